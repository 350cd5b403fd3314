"""Plugins of workers, nannies and the scheduler; uploaded files; modules that an operator allows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_core import (
    Client,
    Environ,
    NannyPlugin,
    PipInstall,
    SchedulerPlugin,
    UploadDirectory,
    UploadFile,
    Worker,
    WorkerPlugin,
)
from distributed_core.errors import RemoteError, UsageError
from tests.distributed_core.launching import Launcher, launcher
from tests.distributed_core.test_operations import until

pytestmark = pytest.mark.process

ALLOWED = """
import sys
import threading
from os import getpid

from distributed_core import SchedulerPlugin

events = []
number = 7


preset = []


class Preset(SchedulerPlugin):
    name = "preset"

    def add_client(self, scheduler, client):
        preset.append(client)


def clients():
    return preset


def setup(scheduler):
    events.append("set up")
    scheduler.add_plugin(Preset())


async def teardown(scheduler):
    with open(LEFT, "w") as file:
        file.write("torn down")


LEFT = __file__ + ".left"


def add(a, b=10, *, scheduler=None):
    return [a + b, scheduler.kind]


async def later(dask_scheduler, **kwargs):
    return {"workers": len(dask_scheduler.machine.ledger.workers), "kwargs": kwargs}


def fails():
    raise LookupError("not here")


def odd():
    return threading.Lock()


def seen():
    return events


def deaths(scheduler):
    return scheduler.deaths


def imports(name):
    return name in sys.modules


def plugin_bytes(scheduler):
    (book,) = [each for each in scheduler.extensions if type(each).__name__ == "Plugins"]
    return sorted(book.books["worker"])


def _hidden():
    return "hidden"


class Watch(SchedulerPlugin):
    def start(self, scheduler):
        events.append(["start", scheduler.kind])

    async def close(self):
        events.append("close")

    def add_worker(self, scheduler, worker):
        events.append(["add_worker", worker])

    async def remove_worker(self, scheduler, worker):
        events.append(["remove_worker", worker])

    def add_client(self, scheduler, client):
        events.append(["add_client", client])

    def remove_client(self, scheduler, client):
        events.append(["remove_client", client])

    def transition(self, key, start, finish):
        events.append([key, start, finish])


class Broken(SchedulerPlugin):
    def start(self, scheduler):
        raise LookupError("no start")
"""


def _append(path: str, name: str | None) -> None:
    with open(path, "a") as file:
        file.write(f"{name}\n")


class Counting(WorkerPlugin):
    """Notes what happens to it, where the worker shows it."""

    def __init__(self, start: int, path: str) -> None:
        self.start = start
        self.path = path

    def setup(self, worker: Worker) -> None:
        worker.counted = self.start  # type: ignore[attr-defined]

    async def teardown(self, worker: Worker) -> None:
        await asyncio.to_thread(_append, self.path, worker.name)


class Failing(WorkerPlugin):
    """Fails where the worker has a certain name."""

    def __init__(self, name: str) -> None:
        self.where = name

    def setup(self, worker: Worker) -> None:
        worker.tried = True  # type: ignore[attr-defined]
        if worker.name == self.where:
            raise LookupError(f"not on {worker.name}")

    def teardown(self, worker: Worker) -> None:
        worker.tried = False  # type: ignore[attr-defined]


def counted(dask_worker: Worker) -> Any:
    return getattr(dask_worker, "counted", None)


def tried(dask_worker: Worker) -> Any:
    return getattr(dask_worker, "tried", None)


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modules") / "operators_choice.py"
    path.write_text(ALLOWED)
    return path


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory, allowed: Path) -> Iterator[tuple[Launcher, str]]:
    """A cluster of two workers with nannies, a and b, whose scheduler allows a module."""
    with launcher(tmp_path_factory.mktemp("plugged")) as made:
        _, address = made.scheduler("--preload", str(allowed), "--preload", "json:dumps")
        made.worker(address, "--nthreads", "1", "--name", "a")
        made.worker(address, "--nthreads", "1", "--name", "b")
        yield made, address


@pytest.fixture
def client(plugged: tuple[Launcher, str]) -> Iterator[Client]:
    with Client(plugged[1]) as made:
        made.wait_for_workers(2, timeout=30)
        yield made


def later_worker(plugged: tuple[Launcher, str], name: str) -> Any:
    made, address = plugged
    return made.worker(address, "--nthreads", "1", "--name", name)


# --- worker plugins -------------------------------------------------------------------------------


def test_a_worker_plugin_comes_to_all_and_to_later_ones(
    plugged: tuple[Launcher, str], client: Client, tmp_path: Path
) -> None:
    torn = tmp_path / "torn"
    addresses = list(client.nthreads())
    assert client.register_plugin(Counting(5, str(torn))) == {each: {"status": "OK"} for each in addresses}
    assert set(client.run(counted).values()) == {5}
    worker = later_worker(plugged, "late")
    assert client.submit(lambda: counted(get_own_worker()), workers="late").result(timeout=30) == 5
    assert client.run(counted, workers="late").popitem()[1] == 5
    assert worker.end() == 0
    assert torn.read_text() == "late\n"
    assert client.register_plugin(Counting(6, str(torn)))
    assert torn.read_text() == "late\na\nb\n" or torn.read_text() == "late\nb\na\n"
    assert set(client.run(counted).values()) == {6}
    until(lambda: len(client.nthreads()) == 2)
    client.unregister_worker_plugin("Counting")
    assert sorted(torn.read_text().split()) == ["a", "a", "b", "b", "late"]
    with pytest.raises(UsageError, match="no worker plugin is named Counting; there are"):
        client.unregister_worker_plugin("Counting")


def get_own_worker() -> Any:
    from distributed_core.context import context

    return context.worker


def test_a_plugin_that_fails_is_taken_back_from_all(client: Client) -> None:
    with pytest.raises(LookupError, match="not on b"):
        client.register_plugin(Failing("b"), name="failing")
    assert client.run(tried, workers="a").popitem()[1] is False
    with pytest.raises(UsageError, match="no worker plugin is named failing"):
        client.unregister_worker_plugin("failing")


def test_what_is_no_plugin(client: Client) -> None:
    with pytest.raises(UsageError, match="is no plugin; derive it"):
        client.register_plugin(3)
    with pytest.raises(UsageError, match=r"write Counting\(\)"):
        client.register_plugin(Counting)
    with pytest.raises(UsageError, match="name of a plugin"):
        client.register_plugin(WorkerPlugin(), name="")


def test_transitions_at_the_workers(client: Client) -> None:
    class Watching(WorkerPlugin):
        def setup(self, worker: Worker) -> None:
            worker.moves = []  # type: ignore[attr-defined]
            self.worker = worker

        def transition(self, key: str, start: str, finish: str) -> None:
            self.worker.moves.append((key, start, finish))  # type: ignore[attr-defined]

    client.register_plugin(Watching(), name="watching")
    well = client.submit(abs, -1, key="well")
    ill = client.submit(divmod, 1, 0, key="ill")
    assert well.result() == 1
    assert isinstance(ill.exception(), ZeroDivisionError)
    expected = {("well", "ready", "executing"), ("well", "executing", "memory")}
    expected |= {("ill", "ready", "executing"), ("ill", "executing", "error")}

    def moves(dask_worker: Worker) -> Any:
        return dask_worker.moves  # type: ignore[attr-defined]

    until(lambda: {move for each in client.run(moves).values() for move in each} == expected)
    client.unregister_worker_plugin("watching")


def test_the_scheduler_keeps_plugins_and_opens_none(client: Client, tmp_path: Path) -> None:
    client.register_plugin(Counting(1, str(tmp_path / "torn")), name="opaque")
    assert "opaque" in client.run_on_scheduler("operators_choice:plugin_bytes")
    assert client.run_on_scheduler("operators_choice:imports", "cloudpickle") is False
    assert client.run_on_scheduler("operators_choice:imports", "distributed_core.protocol.payload") is False
    assert client.run_on_scheduler("operators_choice:imports", "tornado") is True
    client.unregister_worker_plugin("opaque")


# --- uploads --------------------------------------------------------------------------------------


def test_an_uploaded_module(plugged: tuple[Launcher, str], client: Client, tmp_path: Path) -> None:
    file = tmp_path / "uploaded_module.py"

    def answer() -> Any:
        import uploaded_module  # type: ignore[import-not-found]

        return uploaded_module.answer()

    file.write_text("def answer():\n    return 1\n")
    client.upload_file(file)
    assert set(client.run(answer).values()) == {1}
    assert client.submit(answer).result() == 1
    # In the same second and of the same size, so that only the content tells them apart.
    file.write_text("def answer():\n    return 2\n")
    client.upload_file(str(file))
    assert client.submit(answer, key="again").result() == 2
    assert set(client.run(answer).values()) == {2}
    worker = later_worker(plugged, "later")
    assert client.submit(answer, key="later", workers="later").result(timeout=30) == 2
    assert worker.end() == 0


@pytest.mark.parametrize("suffix", ["zip", "egg"])
def test_an_uploaded_archive(client: Client, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"uploaded_archive.{suffix}"

    def pack(value: int) -> None:
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr(f"packed_{suffix}/__init__.py", f"from packed_{suffix}.inner import value")
            packed.writestr(f"packed_{suffix}/inner.py", f"value = {value}")
            packed.writestr("beside.txt", "no module")

    def value(suffix: str = suffix) -> Any:
        import importlib

        return importlib.import_module(f"packed_{suffix}").value

    for number in (3, 4):
        pack(number)
        client.upload_file(file)
        assert set(client.run(value).values()) == {number}


def test_files_that_cannot_be_uploaded(client: Client, tmp_path: Path) -> None:
    for name, text in (("a.py", "def f(:"), ("b.zip", "no archive"), ("c.txt", "text")):
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="is no Python"):
        client.upload_file(tmp_path / "a.py")
    with pytest.raises(UsageError, match="is no archive"):
        client.upload_file(tmp_path / "b.zip")
    with pytest.raises(UsageError, match="ends in"):
        client.upload_file(tmp_path / "c.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        client.upload_file(tmp_path / "none.py")
    broken = tmp_path / "raises_at_import.py"
    broken.write_text("raise LookupError('at import')")
    with pytest.raises(LookupError, match="at import"):
        client.upload_file(broken)
    assert client.upload_file(broken, load=False)
    client.unregister_worker_plugin("upload-raises_at_import.py")


# --- nanny plugins --------------------------------------------------------------------------------


def test_an_environment_for_all_and_for_later_ones(plugged: tuple[Launcher, str], client: Client) -> None:
    before = client.run(os.getpid)
    client.register_plugin(Environ({"FROM_A_PLUGIN": 12}))
    assert set(client.run(os.getenv, "FROM_A_PLUGIN").values()) == {"12"}
    assert not set(client.run(os.getpid).values()) & set(before.values())
    worker = later_worker(plugged, "later-still")
    assert client.submit(os.getenv, "FROM_A_PLUGIN", workers="later-still").result(timeout=30) == "12"
    assert worker.end() == 0
    until(lambda: len(client.nthreads()) == 2)
    client.unregister_worker_plugin("Environ", nanny=True)
    client.restart_workers(["a"])
    assert set(client.run(os.getenv, "FROM_A_PLUGIN", workers="a").values()) == {None}


def test_a_nanny_plugin_that_fails(client: Client) -> None:
    class Refusing(NannyPlugin):
        def setup(self, nanny: Any) -> None:
            raise LookupError(nanny.kind)

    with pytest.raises(LookupError, match="Nanny"):
        client.register_plugin(Refusing())
    with pytest.raises(UsageError, match="no nanny plugin is named"):
        client.unregister_worker_plugin("Refusing", nanny=True)


def test_an_uploaded_folder(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "tests").mkdir(parents=True)
    (folder / "in_the_folder.py").write_text("value = 5")
    (folder / "tests" / "test_it.py").write_text("")

    def value() -> Any:
        import in_the_folder  # type: ignore[import-not-found]

        where = os.path.dirname(in_the_folder.__file__)
        return in_the_folder.value, sorted(name for name in os.listdir(where) if name != "__pycache__")

    client.register_plugin(UploadDirectory(folder, restart=True, update_path=True))
    assert list(client.run(value).values()) == [(5, ["in_the_folder.py"])] * 2
    with pytest.raises(UsageError, match="is no folder"):
        UploadDirectory(tmp_path / "none")


def test_packages_are_installed_by_pip(client: Client, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny_wheel-1.0-py3-none-any.whl"
    content = {
        "tiny_wheel.py": b"value = 6\n",
        "tiny_wheel-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n",
        "tiny_wheel-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in content.items()
    ]
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)
        packed.writestr("tiny_wheel-1.0.dist-info/RECORD", "\n".join([*lines, "tiny_wheel-1.0.dist-info/RECORD,,"]))
    target = tmp_path / "target"
    options = ["--quiet", "--no-index", "--upgrade", "--target", str(target)]
    client.register_plugin(PipInstall([str(wheel)], pip_options=options))
    assert (target / "tiny_wheel.py").read_bytes() == b"value = 6\n"
    client.unregister_worker_plugin("pip-install-tiny_wheel-1.0-py3-none-any.whl", nanny=True)
    with pytest.raises(UsageError, match="pip could not install no-such-package"):
        client.register_plugin(PipInstall("no-such-package", pip_options=["--no-index"]))
    with pytest.raises(UsageError, match="name one"):
        PipInstall([])


# --- the scheduler's own --------------------------------------------------------------------------


def test_functions_of_allowed_modules(client: Client) -> None:
    assert client.run_on_scheduler("operators_choice:add", 1) == [11, "Scheduler"]
    assert client.run_on_scheduler("operators_choice:add", 1, b=2) == [3, "Scheduler"]
    assert client.run_on_scheduler("operators_choice:later", x=[1, "a"]) == {"workers": 2, "kwargs": {"x": [1, "a"]}}
    assert client.run_on_scheduler("json:dumps", {"a": 1}) == '{"a": 1}'
    assert client.run_on_scheduler("operators_choice:seen")[0] == "set up"
    assert client.run_on_scheduler("operators_choice:clients")[-1] == client.id


def test_what_is_refused_on_the_scheduler(client: Client) -> None:
    with pytest.raises(UsageError, match=r"did not allow the module os .*dscheduler --preload os$"):
        client.run_on_scheduler("os:system", "true")
    with pytest.raises(UsageError, match="allowed json:dumps only; start it with: dscheduler --preload json:loads"):
        client.run_on_scheduler("json:loads", "1")
    for path in (
        "operators_choice:_hidden",
        "operators_choice:getpid",
        "operators_choice:none",
        "operators_choice:sys",
    ):
        with pytest.raises(UsageError, match="defines no public"):
            client.run_on_scheduler(path)
    for path in ("operators_choice", "operators_choice:", ":add", ""):
        with pytest.raises(UsageError, match="is no import path"):
            client.run_on_scheduler(path)
    with pytest.raises(UsageError, match="dscheduler --preload"):
        client.run_on_scheduler(os.getpid)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no plain data"):
        client.run_on_scheduler("operators_choice:add", {1, 2})
    with pytest.raises(UsageError, match="returned lock, and only plain data"):
        client.run_on_scheduler("operators_choice:odd")
    with pytest.raises(RemoteError, match="raised LookupError: not here"):
        client.run_on_scheduler("operators_choice:fails")
    with pytest.raises(RemoteError, match="TypeError"):
        client.run_on_scheduler("operators_choice:add")


def test_a_scheduler_plugin(plugged: tuple[Launcher, str], client: Client) -> None:
    def seen() -> list[Any]:
        found: list[Any] = client.run_on_scheduler("operators_choice:seen")
        return found

    assert client.register_plugin("operators_choice:Watch") == "operators_choice:Watch"
    assert seen()[-1] == ["start", "Scheduler"]
    future = client.submit(abs, -1, key="watched")
    assert future.result() == 1
    until(lambda: ["watched", "processing", "memory"] in seen())
    moves = [event[1:] for event in seen() if event[0] == "watched"]
    assert moves == [["released", "queued"], ["queued", "processing"], ["processing", "memory"]]
    with Client(plugged[1]) as other:
        until(lambda: ["add_client", other.id] in seen())
    until(lambda: ["remove_client", other.id] in seen())
    worker = later_worker(plugged, "watched")
    (added,) = [event[1] for event in seen() if event[0] == "add_worker"]
    assert worker.end() == 0
    until(lambda: ["remove_worker", added] in seen())
    client.unregister_scheduler_plugin("operators_choice:Watch")
    assert seen()[-1] == "close"
    count = len(seen())
    assert client.submit(abs, -1, key="unwatched").result() == 1
    assert len(seen()) == count
    with pytest.raises(UsageError, match="no scheduler plugin is named"):
        client.unregister_scheduler_plugin("operators_choice:Watch")


def test_scheduler_plugins_that_are_refused(client: Client) -> None:
    class Here(SchedulerPlugin):
        pass

    class WithState(SchedulerPlugin):
        def __init__(self) -> None:
            self.state = 1

    with pytest.raises(UsageError, match="did not allow the module"):
        client.register_plugin(Here())
    with pytest.raises(UsageError, match="state of its own"):
        client.register_plugin(WithState())
    with pytest.raises(UsageError, match="did not allow the module os"):
        client.register_plugin("os:getpid")
    with pytest.raises(RemoteError, match="did not start: LookupError: no start"):
        client.register_plugin("operators_choice:Broken")


def test_hooks_of_preloaded_modules(launch: Launcher, tmp_path: Path) -> None:
    log = tmp_path / "log"
    module = tmp_path / "hooked.py"
    lines = f"def setup(server):\n    open({str(log)!r}, 'a').write(server.kind + ' up\\n')\n"
    lines += f"def teardown(server):\n    open({str(log)!r}, 'a').write(server.kind + ' down\\n')\n"
    module.write_text(lines)
    scheduler, address = launch.scheduler("--preload", str(module))
    near = os.path.relpath(module)
    folder = str(tmp_path / "folder")
    options = ("--nthreads", "1", "--local-directory", folder, "--preload", near, "--preload-nanny", near)
    worker = launch.worker(address, *options)
    assert log.read_text() == "Scheduler up\nNanny up\nWorker up\n"
    assert worker.end() == 0
    assert scheduler.end() == 0
    assert log.read_text().split("\n")[3:] == ["Worker down", "Nanny down", "Scheduler down", ""]


@pytest.mark.parametrize("text", ["import no_such_module", "def setup(server):\n    raise LookupError('no')"])
def test_preloaded_modules_that_fail(launch: Launcher, tmp_path: Path, text: str) -> None:
    module = tmp_path / "failing.py"
    module.write_text(text)
    _, address = launch.scheduler()
    commands = [
        launch.start("dscheduler", "--host", "127.0.0.1", "--port", "0", "--preload", str(module)),
        launch.start("dworker", address, "--nthreads", "1", "--preload", str(module)),
        launch.start("dworker", address, "--nthreads", "1", "--preload-nanny", str(module)),
    ]
    for command in commands:
        assert command.wait() in (1, 2)
        assert "--preload" in command.errors()
        assert "Traceback" not in command.errors()


def test_preloads_that_are_not_there(launch: Launcher, tmp_path: Path) -> None:
    for spec, text in (
        ("no_such_module_at_all", "cannot be imported"),
        (str(tmp_path / "none.py"), "is not there"),
        ("json:none", "has no function none"),
    ):
        command = launch.start("dscheduler", "--host", "127.0.0.1", "--port", "0", "--preload", spec)
        assert command.wait() == 2
        assert text in command.errors()


def test_the_names_of_uploads(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    assert UploadFile(tmp_path / "x.py").name == "upload-x.py"


def test_the_end_of_the_module_is_the_operators(launch: Launcher, allowed: Path) -> None:
    scheduler, address = launch.scheduler("--preload", str(allowed))

    async def ask() -> Any:
        async with Client(address, asynchronous=True) as client:
            return await client.run_on_scheduler("operators_choice:deaths")

    assert asyncio.run(ask()) == {}
    assert scheduler.end(signal.SIGINT) == 0
    assert Path(f"{allowed}.left").read_text() == "torn down"
