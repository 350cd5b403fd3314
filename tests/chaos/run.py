"""One run: rounds of faults and quiet, inside the world that `world` makes."""

from __future__ import annotations

import heapq
import os
import queue
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from distributed_core.errors import EngineError
from moto_fixtures.region import assert_isolated
from tests.chaos import report
from tests.chaos.census import Census, remains, troubles
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults
from tests.chaos.hosts import WORLD
from tests.chaos.oracle import Happened, Oracle
from tests.chaos.plants import PLANTS
from tests.chaos.schedule import KINDS, Fault, plan

ROUND_S = 20.0
#: After the last fault is healed: until every job has ended, and then until nobody holds anything. A peer whose machine
#: is gone is given up after a minute of silence, and what nobody asks for is kept for half a minute.
JOBS_BOUND_S = 90.0
BOOKS_BOUND_S = 45.0
START_BOUND_S = 60.0
TICK_S = 0.05


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    seconds: float
    seed: int
    workers: int = 4
    clients: int = 2
    at_once: int = 3
    kinds: tuple[str, ...] = tuple(KINDS)
    report: Path | None = None
    plant: str = ""
    keep_logs: Path | None = None
    jobs_bound_s: float = JOBS_BOUND_S
    books_bound_s: float = BOOKS_BOUND_S
    verbose: bool = False


class Run:
    """One run."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.oracle = Oracle()
        self.cluster = Cluster(
            os.environ["CHAOS_RUN"], options.seed, options.workers, options.clients, PLANTS.get(options.plant)
        )
        self._faults = Faults(self.cluster)
        self._census = Census(self.cluster)
        self.start_s = time.monotonic()
        self.complaints: list[str] = []
        self._stuck = False

    # --- a run ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do everything; afterwards `complaints` says what was wrong."""
        options = self._options
        rounds = max(1, int(options.seconds // ROUND_S) + 1)
        round_s = min(ROUND_S, options.seconds)
        clocked = self.cluster.clocked
        kinds = [kind for kind in options.kinds if kind != "clock-jump" or clocked]
        planned = plan(options.seed, rounds, round_s, self.cluster.workers, clocked, kinds, options.at_once)
        self.cluster.start()
        self._wait(lambda: all(each.connected for each in self.cluster.submitters), START_BOUND_S, "clients connected")
        self._come_to_rest("at the start", START_BOUND_S)
        for number, faults in enumerate(planned):
            if self._stuck or (number and time.monotonic() - self.start_s + round_s / 2 > options.seconds):
                break
            self._round(number, faults, round_s)
        self._end()

    def _round(self, number: int, faults: list[Fault], round_s: float) -> None:
        begun_s = time.monotonic()
        self.cluster.tell("go")
        agenda: list[tuple[float, int, bool, Fault]] = []
        for fault in faults:
            heapq.heappush(agenda, (begun_s + fault.at_s, fault.number, True, fault))
        done: dict[int, Happened] = {}
        while time.monotonic() < begun_s + round_s or agenda:
            now_s = time.monotonic()
            while agenda and agenda[0][0] <= now_s:
                _, _, begins, fault = heapq.heappop(agenda)
                if begins:
                    self._say(f"{fault}")
                    done[fault.number] = Happened(fault, time.monotonic(), time.monotonic())
                    self.oracle.happened.append(done[fault.number])
                    self._faults.begin(fault)
                    heapq.heappush(agenda, (begun_s + fault.at_s + fault.lasts_s, fault.number, False, fault))
                else:
                    self._faults.heal(fault)
                    done[fault.number].healed_at_s = time.monotonic()
                done[fault.number].deaths = self._faults.deaths.get(fault.number, 0)
            self._tick()
        self._quiet(f"after round {number + 1}")
        for job in sorted(self.oracle.jobs.values(), key=lambda job: job.begun_at_s - job.ended_at_s)[:3]:
            if job.begun_at_s > begun_s and job.ended_at_s:
                span = f"{job.begun_at_s - self.start_s:.1f} to {job.ended_at_s - self.start_s:.1f}"
                self._say(f"among the longest: {job.name} ({job.kind}), from {span}")
        self.oracle.judge(begun_s)
        if self.oracle.complaints or self.cluster.complaints:
            self._stuck = True
        self._say(f"round {number + 1}: {sum(job.tasks for job in self.oracle.jobs.values()):,} tasks so far")

    def _quiet(self, when: str) -> None:
        """Let everything that was begun end."""
        self.cluster.tell("pause")
        healed_s = time.monotonic()
        if not self._wait(self._all_paused, self._options.jobs_bound_s, None):
            self._stuck = True
            for job in self.oracle.open_jobs():
                waits_s = time.monotonic() - healed_s
                text = f"job {job.name} ({job.kind}) waits {waits_s:.0f} s after the last fault was healed"
                self.complaints.append(text)
            self._explain()
            return
        self._say(f"all jobs ended {time.monotonic() - healed_s:.1f} s after the last fault was healed")
        self._come_to_rest(when)

    def _come_to_rest(self, when: str, bound_s: float = 0.0) -> None:
        """Wait until nobody holds anything, and processes have what they had at first."""
        bound_s = bound_s or self._options.books_bound_s
        begun_s = time.monotonic()
        found: list[str] = []
        while True:
            try:
                found = self.cluster.leftovers() or self._census.grown()
            except (EngineError, TimeoutError, OSError) as error:
                found = [f"the scheduler does not answer: {type(error).__name__}: {error}"]
            if not found or time.monotonic() - begun_s > bound_s:
                break
            for _ in range(4):
                self._tick()
        if found:
            self._stuck = True
            self.complaints += [f"{when}, {bound_s:.0f} s after all jobs: {each}" for each in found]
        self._say(f"at rest {time.monotonic() - begun_s:.1f} s after all jobs")

    def _end(self) -> None:
        """Tell all to end in good order, and look at what is left."""
        if self._stuck:
            return
        self.cluster.tell("close")
        living = self.cluster.living_clients()
        self._wait(lambda: all(each.process.poll() is not None for each in living), 30, "clients closed")
        for each in living:
            if each.process.poll() not in (0, None):
                self.complaints.append(f"client {each.name} ended with {each.process.poll()}")
        self._come_to_rest("with all clients closed")
        if self._stuck:
            return
        self.cluster.end_services()
        self.complaints += remains(self.cluster)

    def finish(self) -> None:
        """Look at the logs, and end what is left."""
        self.complaints += self.oracle.complaints + self.cluster.complaints + troubles()
        if self._options.keep_logs is not None:
            shutil.copytree(WORLD / "logs", self._options.keep_logs, dirs_exist_ok=True)

    # --- time passes ------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Hear what clients say for a moment, and start again what ended."""
        try:
            submitter, said = self.cluster.news.get(timeout=TICK_S)
            while True:
                self.oracle.hear(submitter.name, said)
                submitter.connected |= said["event"] == "connected"
                submitter.paused |= said["event"] == "paused"
                submitter.closed |= said["event"] == "closed"
                submitter, said = self.cluster.news.get_nowait()
        except queue.Empty:
            pass
        self.cluster.tend(time.monotonic())
        for each in self.cluster.submitters:
            if each.killed:
                self.oracle.drop(each.name)

    def _all_paused(self) -> bool:
        return all(each.paused for each in self.cluster.living_clients())

    def _wait(self, condition, bound_s: float, what: str | None) -> bool:  # type: ignore[no-untyped-def]
        deadline_s = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > deadline_s:
                if what is not None:
                    self.complaints.append(f"not within {bound_s:.0f} s: {what}")
                    self._stuck = True
                return False
            self._tick()
        return True

    def _explain(self) -> None:
        """Say where the tasks are that clients wait for."""
        for each in self.cluster.living_clients():
            if not each.paused:
                each.process.send_signal(signal.SIGUSR1)
        try:
            self.complaints += self.cluster.leftovers()
        except (EngineError, TimeoutError, OSError) as error:
            self.complaints.append(f"the scheduler does not answer: {type(error).__name__}: {error}")
        time.sleep(0.5)  # the stacks are written meanwhile

    def _say(self, text: str) -> None:
        if self._options.verbose:
            print(f"{time.monotonic() - self.start_s:7.1f}  {text}", flush=True)


def run_here(options: Options) -> int:
    """Do one run in this namespace; return the exit code. Raises NotIsolated."""
    assert_isolated()
    run = Run(options)
    try:
        run.run()
        run.finish()
        took_s = time.monotonic() - run.start_s
        if options.report is not None:
            report.write(options.report, run.oracle, options.seed, took_s, run.complaints, run.start_s)
        if run.complaints:
            command = f"python -m tests chaos --seconds {options.seconds:g} --seed {options.seed}"
            if options.plant:
                command += f" --plant {options.plant}"
            report.print_failure(options.seed, command, run.complaints, run.oracle.happened, run.start_s)
            return 1
        report.print_table(report.recovery_table(run.oracle))
        print(report.summary(run.oracle, options.seed, took_s))
        return 0
    except KeyboardInterrupt:
        print(f"chaos: interrupted, seed {options.seed}")
        return 130
    finally:
        run.cluster.close()
