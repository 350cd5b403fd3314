"""Processes that stood still for longer than any limit, and computers that slept: the work goes on."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from distributed_core import Client
from distributed_core.client.blocking import LoopThread
from distributed_core.comm import sleeping
from distributed_core.comm.address import parse_address
from distributed_core.machines.scheduler import events
from distributed_core.machines.scheduler.tasks import Held
from distributed_core.messages import Heartbeat
from distributed_core.servers.extensions import life
from distributed_core.servers.extensions.life import Life
from distributed_core.servers.scheduler import Scheduler
from distributed_core.servers.worker import Worker
from distributed_core.settings import SchedulerSettings
from tests.distributed_core.launching import Launched, Launcher

pytestmark = pytest.mark.process

SILENCE_S = 2.0
#: Longer than every limit by silence, in these clusters.
STOP_S = 3.5

SCHEDULER = f"""
import sys
from distributed_core import settings
from distributed_core.comm import tcp
from distributed_core.servers import door
tcp.HANDSHAKE_TIMEOUT_S = door.GREETING_TIMEOUT_S = {SILENCE_S}
known = settings.SchedulerSettings
def shorter(**own):
    return known(worker_silence_max_s={SILENCE_S}, liveness_interval_s=0.2, **own)
settings.SchedulerSettings = shorter
from distributed_core.machines.scheduler import machine
machine.SchedulerSettings = shorter
from distributed_core.cli.dscheduler import main
main()
"""
WORKER = """
import sys
from distributed_core import settings
from distributed_core.servers import worker
worker.WorkerSettings = lambda: settings.WorkerSettings(heartbeat_interval_s=0.1)
from distributed_core.cli.dworker import main
main()
"""
CLIENT = """
import sys, threading
from distributed_core import Client, as_completed
from tests.distributed_core.test_standstill import gate, text

address, folder = sys.argv[1:]
with Client(address, timeout=20, reconnect_timeout=60) as client:
    stuck = client.submit(gate, folder, 7, key="stuck")
    many = client.map(text, range(2_000), key="many")
    threading.Thread(target=lambda: print("waiting", flush=True)).start()
    results = {each.key: each.result() for each in as_completed([stuck, *many])}
    later = client.submit(sum, [stuck, 1]).result()
    print(results["stuck"], len(results), later, flush=True)
    print(all(results[f"many-{n}"] == text(n) for n in range(2_000)), flush=True)
"""


def gate(folder: str, value: int) -> int:
    """A task that says that it has begun, leaves a line each time, and ends when it may."""
    with open(Path(folder) / "ran", "a") as file:
        file.write("ran\n")
    while not (Path(folder) / "open").exists():
        time.sleep(0.01)
    return value


def text(number: int) -> str:
    return f"{number:05} " * 150


def add_one(value: int) -> int:
    return value + 1


def slowly(value: int) -> int:
    time.sleep(0.02)
    return value


def python(launch: Launcher, source: str, *options: str) -> Launched:
    return launch.start("python", "-c", source, *options)


def scheduler(launch: Launcher) -> tuple[Launched, str]:
    made = python(launch, SCHEDULER, "--host", "127.0.0.1", "--port", "0")
    return made, made.line().split()[-1]


def worker(launch: Launcher, address: str, *options: str) -> Launched:
    made = python(launch, WORKER, address, "--nthreads", "2", *options)
    assert made.line().startswith("Start worker at: ")
    made.line()
    return made


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Stopped:
    """A process that stands still inside of the block, for longer than every limit."""

    def __init__(self, pid: int, for_s: float = STOP_S) -> None:
        self.pid = pid
        self.for_s = for_s

    def __enter__(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.until = time.monotonic() + self.for_s

    def __exit__(self, *failure: object) -> None:
        while time.monotonic() < self.until:
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGCONT)


def workers_of(client: Client) -> dict[str, Any]:
    return dict(client.scheduler_info()["workers"])


def test_a_client_stands_still(launch: Launcher, tmp_path: Path) -> None:
    """Its tasks end meanwhile; it gets all results, and is not forgotten."""
    running, address = scheduler(launch)
    worker(launch, address, "--no-nanny")
    program = python(launch, CLIENT, address, str(tmp_path))
    assert program.line() == "waiting"
    with Client(address) as client, Stopped(program.process.pid):
        eventually(lambda: (tmp_path / "ran").exists())
        (tmp_path / "open").touch()
        # What it wants is there, or what it sent before it stopped was less than all of it.
        eventually(lambda: not any(client.processing().values()))
    assert program.line() == "7 2001 8"
    assert program.line() == "True"
    assert program.wait() == 0
    assert program.errors() == ""
    assert running.end() == 0
    assert "dropped" not in running.errors()


def test_a_scheduler_stands_still(launch: Launcher, tmp_path: Path) -> None:
    """Nobody is given up: it was the judge itself that slept. No task runs twice."""
    running, address = scheduler(launch)
    one = worker(launch, address, "--no-nanny")
    worker(launch, address)
    with Client(address) as client:
        client.wait_for_workers(2, timeout=30)
        before = {where: each["name"] for where, each in workers_of(client).items()}
        stuck = client.submit(gate, str(tmp_path), 7)
        eventually(lambda: (tmp_path / "ran").exists())
        with Stopped(running.process.pid):
            later = client.map(add_one, range(1000))
            (tmp_path / "open").touch()
        assert sum(client.gather(later)) == 500_500
        assert stuck.result(timeout=30) == 7
        assert {where: each["name"] for where, each in workers_of(client).items()} == before
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert one.errors() == ""
    assert running.end() == 0
    assert running.errors() == ""


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_stands_still(launch: Launcher, nanny: str) -> None:
    """It is given up, rightly, and others run what it had; when it goes on it comes back and works."""
    running, address = scheduler(launch)
    one = worker(launch, address, nanny, "--name", "one")
    with Client(address) as client:
        pid = client.submit(os.getpid).result()
        worker(launch, address, "--no-nanny", "--name", "two")
        client.wait_for_workers(2, timeout=30)
        futures = client.map(slowly, range(100))
        with Stopped(pid):
            assert client.gather(futures) == list(range(100))
            assert len(workers_of(client)) == 1
        client.wait_for_workers(2, timeout=30)
        assert client.submit(os.getpid, workers=["one"], pure=False).result(timeout=30) == pid
    assert running.end() == 0
    assert [line for line in running.errors().splitlines() if "sent nothing for" in line]
    assert one.process.poll() is None


def test_a_nanny_stands_still(launch: Launcher) -> None:
    """Its process works on meanwhile; afterwards the nanny does what a nanny does."""
    running, address = scheduler(launch)
    nanny = worker(launch, address)
    with Client(address) as client:
        pid = client.submit(os.getpid).result()
        assert psutil.Process(pid).ppid() == nanny.process.pid
        with Stopped(nanny.process.pid, 1.5):
            assert client.gather(client.map(add_one, range(1000))) == list(range(1, 1001))
        assert client.submit(os.getpid, pure=False).result(timeout=30) == pid
        os.kill(pid, signal.SIGKILL)
        assert client.submit(os.getpid, pure=False).result(timeout=60) != pid
    assert running.end() == 0


class Hearing(Scheduler):
    """Notes how many heartbeats came at once."""

    def feed(self, event: Any) -> None:
        if type(event) is events.Received:
            count = sum(type(each) is Heartbeat for each in event.messages)
            if count:
                self.heard.append(count)
        super().feed(event)


@pytest.fixture
def hearing() -> Iterator[Hearing]:
    thread = LoopThread("scheduler")

    async def make() -> Hearing:
        made = Hearing(host="127.0.0.1", settings=SchedulerSettings(worker_silence_max_s=1000))
        made.heard = []
        made.start(0)
        return made

    made = thread.run(make())
    yield made
    thread.run(made.close())
    thread.stop()


def test_timers_do_not_make_up_for_what_they_missed(launch: Launcher, hearing: Hearing) -> None:
    """15 heartbeats are due when it goes on; one is sent."""
    made = worker(launch, hearing.address, "--no-nanny")
    eventually(lambda: len(hearing.heard) > 5)
    with Stopped(made.process.pid, 1.5):
        pass
    count = len(hearing.heard)
    eventually(lambda: len(hearing.heard) > count + 5)
    assert max(hearing.heard[1:]) <= 2


def test_a_scheduler_that_stood_still_was_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What clients sent meanwhile is not read yet: it looks again later, and ends when it is idle indeed."""
    monkeypatch.setattr(life, "IDLE_CHECKS", 10)

    async def main() -> None:
        made = Scheduler(host="127.0.0.1", insecure=True, idle_timeout_s=100.0)
        (own,) = [each for each in made.extensions if type(each) is Life]
        checks: list[tuple[float, Any, float]] = []
        ended: list[Any] = []
        clock = 1000.0
        loop: Any = type(
            "Loop", (), {"time": lambda self: clock, "call_later": lambda self, *call: checks.append(call)}
        )
        made.loop = loop()
        monkeypatch.setattr(made, "background", lambda work: (ended.append(1), work.close()))
        own.started()
        for late_s in (0.0, 500.0, 0.0):
            delay_s, check, due = checks.pop()
            assert due == clock + delay_s
            clock += delay_s + late_s
            check(due)
            assert not ended
        for _ in range(7):
            assert not ended
            delay_s, check, due = checks.pop()
            clock += delay_s
            check(due)
        assert ended == [1]
        assert checks == []

    asyncio.run(main())


# --- a laptop that slept --------------------------------------------------------------------------


class Router:
    """Forwards connections to a port. Those that it forgets lead nowhere, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.forgotten: set[int] = set()
        self.carrying: list[Any] = []
        self.count = 0

    async def serve(self) -> str:
        self.server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def forget(self) -> None:
        self.forgotten.update(range(self.count))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.count = self.count, self.count + 1
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                if number not in self.forgotten:
                    target.write(data)
                    await target.drain()
            if number not in self.forgotten:
                target.close()

        both = carry(reader, other_writer), carry(other_reader, writer)
        # A writer that nobody holds is closed by the collector.
        self.carrying += [writer, other_writer, *map(asyncio.ensure_future, both)]

    async def close(self) -> None:
        self.server.close()


def test_a_laptop_sleeps_with_a_client_open(
    launch: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The router forgets the connection meanwhile: nothing arrives any more, and nothing says so."""
    asleep_s = 0.0
    monkeypatch.setattr(sleeping, "slept_s", lambda: asleep_s)
    monkeypatch.setattr(sleeping, "LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(sleeping, "ANSWER_TIMEOUT_S", 1.0)
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "2", "--no-nanny")
    thread = LoopThread("router")
    router = Router(parse_address(address).port)
    with Client(thread.run(router.serve()), timeout=20) as client, Client(address) as another:
        done = client.submit(add_one, 1, key="done")
        assert done.result(timeout=30) == 2
        stuck = client.submit(gate, str(tmp_path), 7, key="stuck")
        eventually(lambda: (tmp_path / "ran").exists())
        thread.run(router.forget())
        (tmp_path / "open").touch()
        eventually(lambda: not any(another.processing().values()))
        assert stuck.status == "pending"
        count = router.count
        asleep_s = 100.0
        assert stuck.result(timeout=60) == 7
        assert done.result() == 2
        assert client.submit(add_one, stuck).result(timeout=30) == 8
        assert router.count == count + 1
    assert "this computer slept for 100 s" in caplog.text
    assert (tmp_path / "ran").read_text() == "ran\n"
    thread.run(router.close())
    thread.stop()


@pytest.mark.parametrize("returns", [True, False])
def test_a_client_whose_machine_does_not_answer_keeps_its_futures(
    launch: Launcher, tmp_path: Path, caplog: pytest.LogCaptureFixture, returns: bool
) -> None:
    """As when a laptop sleeps for longer than TCP tries: what it wanted is done meanwhile, and not again. In the end it
    is let go."""
    thread = LoopThread("scheduler")

    async def make() -> Scheduler:
        absence_s = 1000.0 if returns else 0.5
        made = Scheduler(host="127.0.0.1", settings=SchedulerSettings(client_absence_max_s=absence_s))
        made.start(0)
        return made

    made = thread.run(make())
    launch.worker(made.address, "--nthreads", "2", "--no-nanny")
    router = Router(parse_address(made.address).port)
    with Client(thread.run(router.serve()), timeout=20) as client:
        done = client.submit(add_one, 1, pure=False)
        assert done.result(timeout=30) == 2
        stuck = client.submit(gate, str(tmp_path), 7, pure=False)
        eventually(lambda: (tmp_path / "ran").exists())
        thread.run(router.forget())
        before = max(made.machine.ledger.clients)

        async def time_out() -> None:
            """Let the system say what it says when nothing was acknowledged for a quarter of an hour."""
            problem = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            made._peers[before].stream._io.close((OSError, problem, None))  # type: ignore[attr-defined]

        thread.run(time_out())
        eventually(lambda: before not in made._peers)
        if not returns:
            eventually(lambda: not made.machine.ledger.tasks)
            (tmp_path / "open").touch()
        else:
            assert before in made.machine.ledger.clients
            (tmp_path / "open").touch()
            tasks = made.machine.ledger.tasks
            eventually(lambda: all(type(each.state) is Held for each in list(tasks.values())))
        assert client._thread is not None
        assert client._session._channel is not None
        client._thread.loop.call_soon_threadsafe(client._session._channel.abort)
        assert stuck.result(timeout=60) == 7
        assert done.result(timeout=30) == 2
    assert (tmp_path / "ran").read_text() == "ran\n" * (1 if returns else 2)
    assert "does not answer; its futures are kept" in caplog.text
    thread.run(router.close())
    thread.run(made.close())
    thread.stop()


def test_a_connection_that_outlived_the_sleep_is_kept(launch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep_s = 0.0
    asked: list[str] = []
    monkeypatch.setattr(sleeping, "slept_s", lambda: asleep_s)
    monkeypatch.setattr(sleeping, "LOOK_INTERVAL_S", 0.01)
    _, address = launch.scheduler()
    with Client(address, timeout=20) as client:
        channel = client._session._channel
        call = channel.call

        async def noted(op: str, *rest: Any) -> Any:
            value = await call(op, *rest)
            asked.append(op)
            return value

        monkeypatch.setattr(channel, "call", noted)
        asleep_s = 50.0
        eventually(lambda: asked)
        assert client.scheduler_info()["address"] == address
        assert client._session._channel is channel
    assert asked.count("ping") == 1


def test_a_worker_that_slept_asks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And registers anew, where there is no answer."""
    asleep_s = 0.0
    monkeypatch.setattr(sleeping, "slept_s", lambda: asleep_s)
    monkeypatch.setattr(sleeping, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(sleeping, "ANSWER_TIMEOUT_S", 0.2)

    async def main() -> None:
        nonlocal asleep_s
        made = Scheduler(insecure=True)
        made.start(0)
        asked: asyncio.Queue[int] = asyncio.Queue()
        answers = asyncio.Event()

        async def ping(peer: int = 0, **context: Any) -> str:
            asked.put_nowait(peer)
            await answers.wait()
            return "pong"

        made.handlers["ping"] = ping
        registered: asyncio.Queue[int] = asyncio.Queue()
        one = Worker("127.0.0.1", made.port, insecure=True, nthreads=1)
        one.on_registered = lambda _: registered.put_nowait(1)
        one.start(0)
        await registered.get()
        asleep_s = 50.0
        first = await asked.get()
        assert first > 0
        await registered.get()
        answers.set()
        asleep_s = 100.0
        assert await asked.get() > first
        assert registered.empty()
        await one.close()
        await made.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_client_that_nobody_holds_ends_without_being_closed(launch: Launcher) -> None:
    """What watches for sleep does not keep it."""
    _, address = launch.scheduler()
    client = Client(address, timeout=20, set_as_default=False)
    assert client._thread is not None
    thread = client._thread._thread
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    thread.join(30)
    assert not thread.is_alive()


def test_the_clocks_of_sleep_are_those_of_this_system() -> None:
    assert sleeping.slept_s() >= -0.001
    assert sys.platform == "linux"
