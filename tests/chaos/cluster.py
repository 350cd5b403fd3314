"""A cluster on hosts of its own: scheduler, workers under their nannies, clients; started again when they end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed_core import rpc
from distributed_core.comm.credential import write_new
from moto_fixtures.region import run_tool
from tests.chaos.cable import Cables
from tests.chaos.hosts import NETWORK, WORLD, Host, Network, engine
from tests.chaos.plants import Plant
from tests.chaos.work import MARKS, PLANT

PORT = 8786
WORKER_MEMORY = "256MB"
CLIENT_THREADS = 3
START_TIMEOUT_S = 60.0
#: What looks after a service starts it again so long after its end.
RESTART_S = 0.5


@dataclass
class Service:
    """A process that is kept running."""

    host: Host
    argv: list[str]
    log: Path
    wanted: bool = True
    process: subprocess.Popen[str] | None = None
    again_at_s: float = 0.0
    #: Its end is known to the one who caused it.
    expected: bool = False
    starts: int = 0


@dataclass
class Submitter:
    """A client's process, and what it said that nobody has read yet."""

    name: str
    process: subprocess.Popen[str]
    paused: bool = True
    connected: bool = False
    closed: bool = False
    killed: bool = False
    wished: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)


class Cluster:
    """Everything that runs.

    seed: chooses the event loop, and what clients submit.
    note: called with a sentence for each thing that is not as it should be.
    """

    def __init__(self, run: str, seed: int, workers: int, clients: int, plant: Plant | None) -> None:
        self.seed = seed
        self.workers = [f"w{number}" for number in range(workers)]
        self.client_count = clients
        self.plant = plant
        self.complaints: list[str] = []
        self.news: queue.SimpleQueue[tuple[Submitter, dict[str, Any]]] = queue.SimpleQueue()
        self.submitters: list[Submitter] = []
        self._numbered = 0
        run_tool("mount", "-t", "tmpfs", "tmpfs", str(WORLD))
        run_tool("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
        for name in ("logs", "marks", "home"):
            (WORLD / name).mkdir()
        self.network = Network()
        names = ["s", "c", *self.workers, "spare"]
        for name in names:
            self.network.add(name)
        self.cables = Cables(names)
        self.hosts = {name: Host(name, f"{NETWORK}.{10 + place}", run) for place, name in enumerate(names)}
        for host in self.hosts.values():
            self.network.plug(host)
        self.address = f"{self.hosts['s'].address}:{PORT}"
        self.credential = WORLD / "home" / "credential.pem"
        write_new(self.credential)
        # The clock on the wall of some hosts can be set; the monotonic one of another is far ahead of all others.
        self.clocked = [name for name in self.workers[-2:] if _faketime()]
        for name in self.clocked:
            self.hosts[name].clocked = True
        self.hosts[self.workers[0]].ahead_s = 1_000_000
        self.services = {"s": self._service("s", self._scheduler_argv())}
        for name in self.workers:
            self.services[name] = self._service(name, self._worker_argv(name))
        self.services["spare"] = self._service("spare", self._worker_argv("spare"))
        self.services["spare"].wanted = False

    def _service(self, name: str, argv: list[str]) -> Service:
        return Service(self.hosts[name], argv, WORLD / "logs" / f"{name}.log")

    def _scheduler_argv(self) -> list[str]:
        preload = self.plant.preload_scheduler if self.plant else []
        return [engine("dscheduler"), "--host", self.hosts["s"].address, "--port", str(PORT), *preload]

    def _worker_argv(self, name: str) -> list[str]:
        number = self.workers.index(name) if name in self.workers else -1
        argv = [engine("dworker"), self.address, "--name", name, "--nthreads", "2", "--memory-limit", WORKER_MEMORY]
        argv += ["--local-directory", str(self.hosts[name].disk / "local")]
        if number % 2 == 0:
            argv += ["--resources", "GPU=2"]
        if number == 1 and self.plant is None:  # such a run is short, and its bounds are narrow
            argv += ["--lifetime", "20s", "--lifetime-stagger", "8s", "--lifetime-restart"]
        return [*argv, *(self.plant.preload_worker if self.plant else [])]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(WORLD / "home"),
            "DISTRIBUTED_CORE_CREDENTIAL": str(self.credential),
            "DISTRIBUTED_CORE_EVENT_LOOP": "asyncio" if self.seed % 2 else "auto",
            MARKS: str(WORLD / "marks"),
            PLANT: self.plant.name if self.plant else "",
        }

    # --- services ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until all workers and clients are there."""
        for service in self.services.values():
            if service.wanted:
                self._start(service)
        for _ in range(self.client_count):
            self.add_client()

    def _start(self, service: Service) -> None:
        service.expected = False
        service.starts += 1
        service.process = service.host.start(
            service.argv, service.log, self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def tend(self, now_s: float) -> None:
        """Start again what ended; complain of ends that nobody caused."""
        for name, service in self.services.items():
            process = service.process
            if process is not None:
                code = process.poll()
                if code is None:
                    continue
                if not service.expected and service.wanted:
                    self.complaints.append(f"the process of {name} ended by itself with {code}")
                service.process = None
                service.again_at_s = max(service.again_at_s, now_s + RESTART_S)
            elif service.wanted and now_s >= service.again_at_s:
                self._start(service)
        for submitter in self.submitters:
            code = submitter.process.poll()
            if code is not None and not submitter.killed and not submitter.closed:
                self.complaints.append(f"client {submitter.name} ended by itself with {code}")
                submitter.killed = True

    def expect_end(self, name: str, away_s: float = 0.0) -> None:
        """The process of a host is about to end; start it again after so long."""
        service = self.services[name]
        service.expected = True
        service.again_at_s = time.monotonic() + away_s

    # --- clients ----------------------------------------------------------------------------------

    def add_client(self) -> Submitter:
        """Start another client."""
        self._numbered += 1
        name = f"c{self._numbered}"
        log = WORLD / "logs" / f"{name}.log"
        argv = [sys.executable, "-m", "tests.chaos.client", self.address, name, str(self.seed), str(CLIENT_THREADS)]
        process = self.hosts["c"].start(argv, log, self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        submitter = Submitter(name, process)
        self.submitters.append(submitter)
        threading.Thread(target=self._listen, args=(submitter,), daemon=True).start()
        return submitter

    def _listen(self, submitter: Submitter) -> None:
        assert submitter.process.stdout is not None
        with submitter.process.stdout as lines:
            for line in lines:
                try:
                    self.news.put((submitter, json.loads(line)))
                except ValueError:
                    continue  # its last line, cut off

    def tell(self, word: str) -> None:
        """Tell all clients to go on, or to pause."""
        for submitter in self.living_clients():
            submitter.paused = False
            submitter.wished = word
            self.say(submitter, word)

    @staticmethod
    def say(submitter: Submitter, word: str) -> None:
        assert submitter.process.stdin is not None
        try:
            submitter.process.stdin.write(word + "\n")
            submitter.process.stdin.flush()
        except BrokenPipeError:
            pass

    def living_clients(self) -> list[Submitter]:
        return [each for each in self.submitters if not each.killed and not each.closed]

    # --- questions --------------------------------------------------------------------------------

    def ask(self, op: str, timeout_s: float = 8.0, **arguments: Any) -> Any:
        """Ask the scheduler."""
        return getattr(rpc(self.address, credential=self.credential, timeout_s=timeout_s), op)(**arguments)

    def leftovers(self) -> list[str]:
        """Return what scheduler and workers still hold, as sentences; nothing where all is done."""
        state = self.ask("dump_state")
        books = state["scheduler"]
        found = []
        registered = {each["name"] for each in books["workers"].values()}
        missing = [name for name in self.workers if name not in registered]
        if missing:
            found.append(f"not registered: {', '.join(missing)}")
        if books["tasks"]:
            sample = [str(each)[:300] for each in list(_items(books["tasks"]))[:3]]
            found.append(f"the scheduler has {len(books['tasks'])} tasks: {'; '.join(sample)}")
        for address, each in books["workers"].items():
            for word in ("assigned", "held", "lingering", "copying"):
                if each[word]:
                    found.append(f"the scheduler's books of {each['name']} have {word}: {str(each[word])[:100]}")
            answer = state["workers"].get(address)
            if not isinstance(answer, dict):
                found.append(f"{each['name']}: {answer}")
                continue
            for word in ("runs", "lingering", "held", "sought", "asked", "data"):
                if answer[word]:
                    found.append(f"{each['name']} has {word}: {str(answer[word])[:200]}")
        return found

    # --- end --------------------------------------------------------------------------------------

    def end_services(self) -> None:
        """Tell workers and then the scheduler to end, and see that they do, with 0."""
        names = [name for name in self.services if name != "s"]
        for group in (names, ["s"]):
            for name in group:
                service = self.services[name]
                service.wanted = False
                if service.process is not None:
                    service.process.send_signal(signal.SIGTERM)
            for name in group:
                process = self.services[name].process
                if process is None:
                    continue
                try:
                    code = process.wait(20)
                except subprocess.TimeoutExpired:
                    self.complaints.append(f"{name} did not end within 20 s of SIGTERM")
                    continue
                if code != 0:
                    self.complaints.append(f"{name} ended with {code} when it was told to end")

    def close(self) -> None:
        """End whatever is left, by force."""
        for host in self.hosts.values():
            host.close()
        for submitter in self.submitters:
            submitter.process.wait()
            if submitter.process.stdin is not None:
                try:
                    submitter.process.stdin.close()
                except BrokenPipeError:
                    pass
        for service in self.services.values():
            if service.process is not None:
                service.process.wait()
        self.cables.close()


def _items(tasks: Any) -> Any:
    return tasks.items() if isinstance(tasks, dict) else tasks


def _faketime() -> bool:
    from tests.chaos.hosts import FAKETIME

    return Path(FAKETIME.format(os.uname().machine)).exists()
