"""This machine as a provider: an instance is a process group of its own, and its tags are in its environment.

So what runs is found by looking at the processes, after a crash of dec2 at any point too, and no file has to be right.
The group is the cluster's folder: made first, deleted last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from dec2.engines.base import Capacity, Engine, Place
from dec2.errors import LaunchFailed, NoSuchCluster, NotGone, ProviderError
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node, node_name
from dec2.plan import LaunchScheduler, LaunchWorkers
from dec2.providers.base import Connection, Provider, Tell
from dec2.spec import ClusterSpec

_CLUSTER, _ROLE, _INDEX, _FOLDER, _BOTH = "DEC2_CLUSTER", "DEC2_ROLE", "DEC2_INDEX", "DEC2_FOLDER", "DEC2_BOTH"
_TERM_GRACE_S = 5.0
_KILL_GRACE_S = 5.0
_QUESTION_TIMEOUT_S = 20.0
_CREDENTIAL, _SCHEDULER_FILE, _ENGINE_FILE = "credential.pem", "scheduler.json", "engine"


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
        nodes: dict[int, Node] = {}
        for process, tags in self._processes(name):
            index = int(tags[_INDEX])
            role = SCHEDULER if tags[_ROLE] == SCHEDULER else WORKER
            if index == 0 and role == WORKER:
                continue
            both = tags.get(_BOTH) == "1"
            nodes[index] = Node(
                id=str(process.pid),
                role=role,
                index=index,
                state="running",
                private_address="127.0.0.1",
                public_address="127.0.0.1",
                both=both,
                registers_as=node_name(name, index),
            )
        folder = self.home / name
        group = str(folder) if folder.is_dir() else None
        engine = None
        with contextlib.suppress(OSError):
            engine = (folder / _ENGINE_FILE).read_text().strip() or None
        # A worker of a cluster of one whose scheduler died is not a node, but must not stay either.
        orphans = self._orphans(name) if 0 not in nodes else ()
        ordered = tuple(nodes[index] for index in sorted(nodes))
        return Inventory(name, self.name, group, engine, ordered, orphans)

    def leftovers(self, name: str) -> tuple[str, ...]:
        left = self.observe(name)
        return tuple(filter(None, (left.group, *(node.id for node in left.nodes), *left.leftovers)))

    def clusters(self) -> list[Inventory]:
        names = {tags[_CLUSTER] for _, tags in self._processes(None)}
        with contextlib.suppress(OSError):
            names |= {each.name for each in self.home.iterdir() if each.is_dir() and not each.name.startswith(".")}
        return [self.observe(name) for name in sorted(names)]

    def _processes(self, name: str | None) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Yield the leaders of the process groups that carry our tags; their children inherit the tags."""
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) != process.pid:
                    continue
                tags = process.environ()
                if tags.get(_FOLDER) != str(self.home) or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if name is None or tags.get(_CLUSTER) == name:
                    yield process, tags
            except (psutil.Error, OSError):
                continue

    def _orphans(self, name: str) -> tuple[str, ...]:
        found = ((process.pid, tags) for process, tags in self._processes(name))
        return tuple(str(pid) for pid, tags in found if tags[_INDEX] == "0" and tags[_ROLE] == WORKER)

    # --- making -------------------------------------------------------------------------------

    def ensure_group(self, spec: ClusterSpec, engine: Engine) -> None:
        folder = self.home / spec.name
        self.preflight(spec)
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_once(folder / _ENGINE_FILE, engine.name.encode(), 0o600)
        _write_once(folder / _CREDENTIAL, engine.new_credential(), 0o600)

    def launch_scheduler(self, spec: ClusterSpec, engine: Engine, action: LaunchScheduler, tell: Tell) -> None:
        for pid in self._orphans(spec.name):
            _end([psutil.Process(int(pid))])
        place = self._place(spec.name)
        # The file of a scheduler that died would lead new workers to nobody.
        Path(place.scheduler_file).unlink(missing_ok=True)
        self._start(spec, SCHEDULER, 0, engine.scheduler_command(place), both=action.both)
        tell(f"{spec.name}-0", "launched")

    def launch_workers(self, spec: ClusterSpec, engine: Engine, action: LaunchWorkers, tell: Tell) -> None:
        for index in action.indices:
            self._start_worker(spec, engine, index)
            tell(node_name(spec.name, index), "launched")

    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        inventory = self.observe(spec.name)
        scheduler = inventory.scheduler
        if scheduler is not None and scheduler.both and not self._has_worker_zero(spec.name):
            self._start_worker(spec, engine, 0)
        for node in inventory.nodes:
            tell(node_name(spec.name, node.index), "starting")

    def _has_worker_zero(self, name: str) -> bool:
        return any(tags[_INDEX] == "0" and tags[_ROLE] == WORKER for _, tags in self._processes(name))

    def _start_worker(self, spec: ClusterSpec, engine: Engine, index: int) -> None:
        nthreads = spec.nthreads or max(1, (os.cpu_count() or 1) // max(1, spec.workers))
        capacity = Capacity(nthreads, spec.nprocs, "0" if spec.memory_limit == "auto" else spec.memory_limit)
        command = engine.worker_command(self._place(spec.name), node_name(spec.name, index), capacity)
        self._start(spec, WORKER, index, command)

    def _start(self, spec: ClusterSpec, role: str, index: int, command: tuple[str, ...], both: bool = False) -> None:
        folder = self.home / spec.name
        tags = {_CLUSTER: spec.name, _ROLE: role, _INDEX: str(index), _FOLDER: str(self.home), _BOTH: str(int(both))}
        try:
            with open(folder / f"{role}-{index}.log", "ab") as log:
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={**os.environ, **tags},
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

    def registered(self, inventory: Inventory, engine: Engine) -> tuple[str, ...] | None:
        address = self._scheduler_address(inventory.name)
        if address is None:
            return None
        place = self._place(inventory.name)
        asking = Place(place.python, place.host, 0, place.scheduler_file, address, place.credential)
        try:
            done = subprocess.run(
                engine.question(asking), capture_output=True, text=True, timeout=_QUESTION_TIMEOUT_S, check=False
            )
            return engine.registered(done.stdout) if done.returncode == 0 else None
        except (subprocess.TimeoutExpired, ValueError):
            return None

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
        chosen = set(ids)
        processes = list(self._processes(inventory.name))
        zero = any(str(process.pid) in chosen and tags[_INDEX] == "0" for process, tags in processes)
        ending = [
            process for process, tags in processes if str(process.pid) in chosen or (zero and tags[_INDEX] == "0")
        ]
        # Workers first: so none of them complains of a lost scheduler.
        _end(sorted(ending, key=lambda process: process.environ().get(_ROLE) == SCHEDULER))

    def delete_group(self, inventory: Inventory) -> None:
        # Whatever was started between the look and now goes too.
        _end([process for process, _ in self._processes(inventory.name)])
        folder = self.home / inventory.name
        if folder.is_dir():
            # First out of the way under another name, so that a half-deleted folder is never taken for a cluster.
            grave = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.home))
            os.replace(folder, grave / "cluster")
            shutil.rmtree(grave, ignore_errors=True)
        with contextlib.suppress(OSError):
            for grave in self.home.glob(".gone-*"):
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


def _end(processes: list[psutil.Process]) -> None:
    """End process groups: asked, then killed. A `Process` of psutil knows its start time: a reused pid is safe."""
    for number, grace_s in ((signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, _KILL_GRACE_S)):
        for process in processes:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.is_running():
                    if number == signal.SIGKILL:
                        os.killpg(process.pid, number)
                    else:
                        process.send_signal(number)
        _, processes = psutil.wait_procs(processes, timeout=grace_s)
    alive = [process for process in processes if process.is_running()]
    if alive:
        raise NotGone(f"process {alive[0].pid} does not end; kill it by hand")
