"""This machine as a provider: an instance is a process group of its own, and its tags are in its environment.

So what runs is found by looking at the processes, after a crash of dec2 at any point too, and no file has to be right.
Whatever a task started inherits the tags, so it is found and ended as well. The group is the cluster's folder: made
first, deleted last.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import psutil

from dec2.engines.base import Capacity, Engine, Place
from dec2.errors import LaunchFailed, NoSuchCluster, NotGone, ProviderError
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node, node_name
from dec2.plan import LaunchScheduler, LaunchWorkers
from dec2.providers.base import Connection, Provider, Question, Tell
from dec2.spec import ClusterSpec, check_name, is_name

_CLUSTER, _ROLE, _INDEX, _FOLDER, _BOTH = "DEC2_CLUSTER", "DEC2_ROLE", "DEC2_INDEX", "DEC2_FOLDER", "DEC2_BOTH"
#: The pid of the process that dec2 started. Its descendants inherit the tag, but have other pids.
_UNIT = "DEC2_UNIT"
_MARKED = ("/bin/sh", "-c", f'export {_UNIT}=$$; exec "$@"', "sh")
_LOG = re.compile(rf"({SCHEDULER}|{WORKER})-([0-9]+)\.log")
_GRAVE = ".gone-"
_TERM_GRACE_S = 5.0
_KILL_GRACE_S = 5.0
_END_POLL_S = 0.02
_CREDENTIAL, _SCHEDULER_FILE, _RECORD, _LOCK = "credential.pem", "scheduler.json", "cluster.json", "lock"


class LocalProvider(Provider):
    """Processes on loopback. `home` is where the clusters' folders are."""

    name = "local"

    def __init__(self, home: Path | None = None) -> None:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        self.home = home or Path(state).expanduser() / "dec2" / "local"

    def preflight(self, spec: ClusterSpec) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ProviderError(f"{self.home} cannot be made ({error.strerror}); set XDG_STATE_HOME") from None

    # --- what exists --------------------------------------------------------------------------

    def observe(self, name: str) -> Inventory:
        # A name is a folder here, and "..", or "/home", must never become one that destroy deletes.
        check_name(name)
        # Between a log and its process, or between two workers, a launch looks like a loss.
        with self._quiet(name):
            return self._look(name)

    def _look(self, name: str) -> Inventory:
        nodes: dict[int, Node] = {}
        orphans = []
        for process, tags in self._units(name):
            role, index = tags[_ROLE], int(tags[_INDEX])
            if index == 0 and role == WORKER:
                orphans.append(str(process.pid))
            elif index not in nodes:
                nodes[index] = _node(name, role, index, str(process.pid), both=tags.get(_BOTH) == "1")
        folder = self.home / name
        # A node that left a log and no process is gone, and people must see that.
        for role, index in self._logged(folder):
            if index not in nodes and (index or role == SCHEDULER):
                nodes[index] = _node(name, role, index, f"{role}-{index}", state="gone")
        # A worker of a cluster of one whose scheduler died is not a node, but must not stay either.
        left = orphans if 0 not in nodes or not nodes[0].alive else []
        left += [str(grave) for grave in self.home.glob(f"{_GRAVE}{name}.*")]
        record = self._record(name)
        return Inventory(
            name,
            self.name,
            group=str(folder) if folder.is_dir() else None,
            engine=record.pop("engine", None),
            nodes=tuple(nodes[index] for index in sorted(nodes)),
            leftovers=tuple(left),
            options=record,
        )

    def leftovers(self, name: str) -> tuple[str, ...]:
        left = self.observe(name)
        running = (str(process.pid) for process, _ in self._tagged(name))
        return tuple(filter(None, (left.group, *running, *left.leftovers)))

    def clusters(self) -> list[Inventory]:
        names = {tags[_CLUSTER] for _, tags in self._tagged(None)}
        with contextlib.suppress(OSError):
            names |= {each.name for each in self.home.iterdir() if each.is_dir() and is_name(each.name)}
        return [self.observe(name) for name in sorted(names)]

    def _tagged(self, name: str | None) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Yield every process that carries our tags: what dec2 started, and all that came of it."""
        for process in psutil.process_iter():
            try:
                # A zombie has ended; in a container it stays if process 1 does not collect it.
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                tags = process.environ()
            except (psutil.Error, OSError):
                continue
            if tags.get(_FOLDER) == str(self.home) and (name is None or tags.get(_CLUSTER) == name):
                yield process, tags

    def _units(self, name: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Yield the processes that dec2 started itself: schedulers and workers, or their nannies."""
        for process, tags in self._tagged(name):
            # Without the mark it is the shell that is about to set it.
            if tags.get(_UNIT, str(process.pid)) == str(process.pid):
                yield process, tags

    def _running(self, name: str) -> set[tuple[str, int]]:
        return {(tags[_ROLE], int(tags[_INDEX])) for _, tags in self._units(name)}

    def _logged(self, folder: Path) -> list[tuple[str, int]]:
        try:
            found = [_LOG.fullmatch(each.name) for each in folder.iterdir()]
        except OSError:
            return []
        return sorted((match[1], int(match[2])) for match in found if match)

    def _record(self, name: str) -> dict[str, str]:
        """Return the engine and the options with which the cluster was made."""
        try:
            return dict(json.loads((self.home / name / _RECORD).read_text()))
        except (OSError, ValueError):
            return {}

    # --- making -------------------------------------------------------------------------------

    def ensure_group(self, spec: ClusterSpec, engine: Engine) -> None:
        folder = self.home / spec.name
        self.preflight(spec)
        folder.mkdir(mode=0o700, exist_ok=True)
        record = {"engine": engine.name, **spec.lasting_options()}
        _write_once(folder / _RECORD, json.dumps(record).encode(), 0o600)
        _write_once(folder / _CREDENTIAL, engine.new_credential(), 0o600)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold the cluster's lock: of two `dec2 up` at once, the second finds what the first one started."""
        try:
            lock = open(self.home / name / _LOCK, "ab")  # noqa: SIM115 -- closed below
        except OSError:
            raise LaunchFailed(f"the cluster {name} was destroyed meanwhile; run dec2 up again") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _quiet(self, name: str) -> Iterator[None]:
        """Keep others from launching meanwhile, if there is anything to launch into."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                fcntl.flock(held.enter_context(open(self.home / name / _LOCK, "rb")), fcntl.LOCK_SH)
            yield

    def launch_scheduler(self, spec: ClusterSpec, engine: Engine, action: LaunchScheduler, tell: Tell) -> None:
        with self._alone(spec.name):
            if (SCHEDULER, 0) in self._running(spec.name):
                return
            self._end_nodes(spec.name, {0})
            place = self._place(spec.name)
            # The file of a scheduler that died would lead new workers to nobody.
            Path(place.scheduler_file).unlink(missing_ok=True)
            self._start(spec, SCHEDULER, 0, engine.scheduler_command(place), both=action.both)
        tell(node_name(spec.name, 0), "launched")

    def launch_workers(self, spec: ClusterSpec, engine: Engine, action: LaunchWorkers, tell: Tell) -> None:
        with self._alone(spec.name):
            running = self._running(spec.name)
            for index in action.indices:
                if (WORKER, index) not in running:
                    self._start_worker(spec, engine, index)
                tell(node_name(spec.name, index), "launched")

    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        with self._alone(spec.name):
            inventory = self._look(spec.name)
            scheduler = inventory.scheduler
            if scheduler is not None and scheduler.both and (WORKER, 0) not in self._running(spec.name):
                self._start_worker(spec, engine, 0)
        for node in inventory.nodes:
            if node.alive:
                tell(node_name(spec.name, node.index), "starting")

    def _start_worker(self, spec: ClusterSpec, engine: Engine, index: int) -> None:
        nthreads = spec.nthreads or max(1, (os.cpu_count() or 1) // max(1, spec.workers))
        capacity = Capacity(nthreads, spec.nprocs, "0" if spec.memory_limit == "auto" else spec.memory_limit)
        command = engine.worker_command(self._place(spec.name), node_name(spec.name, index), capacity)
        self._start(spec, WORKER, index, command)

    def _start(self, spec: ClusterSpec, role: str, index: int, command: tuple[str, ...], both: bool = False) -> None:
        folder = self.home / spec.name
        tags = {_CLUSTER: spec.name, _ROLE: role, _INDEX: str(index), _FOLDER: str(self.home), _BOTH: str(int(both))}
        # dec2 may itself run inside a task of another cluster, and must not pass that one's mark on.
        inherited = {name: value for name, value in os.environ.items() if name != _UNIT}
        try:
            with open(folder / f"{role}-{index}.log", "ab") as log:
                subprocess.Popen(
                    (*_MARKED, *command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={**inherited, **tags},
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchFailed(f"{command[0]} cannot be started ({error.strerror})") from None

    def _place(self, name: str) -> Place:
        folder = self.home / name
        return Place(
            python=sys.executable,
            host="127.0.0.1",
            port=0,
            scheduler_file=str(folder / _SCHEDULER_FILE),
            scheduler_address=None,
            credential=str(folder / _CREDENTIAL),
        )

    # --- asking -------------------------------------------------------------------------------

    def converse(self, inventory: Inventory, engine: Engine, question: Question, timeout_s: float) -> str | None:
        address = self._scheduler_address(inventory.name)
        if address is None:
            return None
        place = self._place(inventory.name)
        asking = Place(place.python, place.host, 0, place.scheduler_file, address, place.credential)
        try:
            done = subprocess.run(
                question(asking), capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def _scheduler_address(self, name: str) -> str | None:
        try:
            named = json.loads((self.home / name / _SCHEDULER_FILE).read_text())
            return str(named["address"]).partition("://")[2] or str(named["address"])
        except (OSError, ValueError, KeyError):
            return None

    def log_tail(self, inventory: Inventory, node: Node, lines: int) -> str:
        log = self.home / inventory.name / f"{node.role}-{node.index}.log"
        try:
            return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    # --- ending -------------------------------------------------------------------------------

    def remove(self, inventory: Inventory, ids: tuple[str, ...]) -> None:
        self._end_nodes(inventory.name, {node.index for node in inventory.nodes if node.id in set(ids)})

    def _end_nodes(self, name: str, indices: Set[int] | None = None) -> None:
        """End nodes, or all of them: first what dec2 started, in its own orderly way, then whatever that left."""
        units = [(process, tags) for process, tags in self._units(name) if _among(tags, indices)]
        # Workers first: so none of them complains of a lost scheduler.
        units.sort(key=lambda each: each[1][_ROLE] == SCHEDULER)
        _end(process for process, _ in units)
        _end(process for process, tags in self._tagged(name) if _among(tags, indices))

    def delete_group(self, inventory: Inventory) -> None:
        folder = self.home / inventory.name
        with contextlib.ExitStack() as held:
            if folder.is_dir():
                held.enter_context(self._alone(inventory.name))
            # Whatever was started between the look and now goes too.
            self._end_nodes(inventory.name)
            if folder.is_dir():
                # First out of the way under another name, so that a half-deleted folder is never taken for a cluster.
                grave = Path(tempfile.mkdtemp(prefix=f"{_GRAVE}{inventory.name}.", dir=self.home))
                os.replace(folder, grave / "cluster")
        for grave in self.home.glob(f"{_GRAVE}{inventory.name}.*"):
            shutil.rmtree(grave, ignore_errors=True)

    # --- reaching -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self, inventory: Inventory) -> Iterator[Connection]:
        address = self._scheduler_address(inventory.name)
        if address is None or inventory.scheduler is None:
            raise NoSuchCluster(f"the cluster {inventory.name} has no running scheduler; run: dec2 up --provider local")
        yield Connection(address, self._place(inventory.name).credential, True)

    def shell(self, inventory: Inventory, node: Node) -> tuple[str, ...]:
        return (os.environ.get("SHELL") or "/bin/sh",)


def _write_once(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole, unless it is there: of two that race, both use the first one's."""
    if path.exists():
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, mode)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _node(name: str, role: str, index: int, id: str, *, state: str = "running", both: bool = False) -> Node:
    return Node(
        id=id,
        role=role,
        index=index,
        state=state,
        private_address="127.0.0.1",
        public_address="127.0.0.1",
        both=both,
        registers_as=node_name(name, index),
    )


def _among(tags: dict[str, str], indices: Set[int] | None) -> bool:
    return indices is None or int(tags[_INDEX]) in indices


def _end(processes: Iterable[psutil.Process]) -> None:
    """End processes: asked, then killed. A `Process` of psutil knows its start time: a reused pid is safe."""
    alive = [process for process in processes if _runs(process)]
    for number, grace_s in ((signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, _KILL_GRACE_S)):
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        deadline = time.monotonic() + grace_s
        while (alive := [process for process in alive if _runs(process)]) and time.monotonic() < deadline:
            time.sleep(_END_POLL_S)
    if alive:
        raise NotGone(f"process {alive[0].pid} does not end; kill it by hand")


def _runs(process: psutil.Process) -> bool:
    """Whether a process has not ended. A zombie has, even if nobody ever collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
