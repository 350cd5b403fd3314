"""A worker of the simulation: the real machine, simulated threads and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core.errors import InvariantBroken
from distributed_core.machines.worker import WorkerMachine, events, instructions, invariants
from distributed_core.settings import WorkerSettings
from distributed_core.sim.workload import value_of
from distributed_core.sim.world import Link, World

INLINE_LABELS = 3
"""Every third result is called small and travels inside its report."""
SETTINGS = WorkerSettings(fetch_tasks_max=3, interrupt_grace_s=0.05)


class SimulatedWorker:
    """One worker process, from its registration to its death.

    Parameters
    ----------
    die
        Called with this worker when its process ends, by whatever cause.
    attempts
        How often each label was run, over all workers.
    """

    def __init__(
        self,
        world: World,
        peer: int,
        name: str,
        nthreads: int,
        to_scheduler: Link,
        find: Callable[[str], SimulatedWorker | None],
        die: Callable[[SimulatedWorker], None],
        attempts: dict[int, int],
    ) -> None:
        self.world = world
        self.peer = peer
        self.name = name
        self.address = f"worker-{peer}:1"
        self.nthreads = nthreads
        self.resources = {"R": 2.0} if name == "n0" else {}
        self.machine = WorkerMachine(SETTINGS, replaceable=True)
        self.data: dict[int, int] = {}
        self.alive = True
        self.left = False
        self._to_scheduler = to_scheduler
        self._find = find
        self._die = die
        self._attempts = attempts
        self._queue: list[tuple[instructions.Execute, list[int]]] = []
        self.running: dict[int, instructions.Execute] = {}

    def feed(self, event: events.WorkerEvent) -> None:
        """Give the machine an event and do what it asks for."""
        if not self.alive:
            return
        asked = self.machine.handle(event, self.world.now)
        invariants.check(self.machine)
        self.world.note(self.peer, type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if self.alive:
                self._PERFORM[type(each)](self, each)

    def receive(self, batch: list[Any]) -> None:
        self.feed(events.Instructed(batch))

    # --- effects ----------------------------------------------------------------------------------

    def _report(self, instruction: instructions.Report) -> None:
        self._to_scheduler.send(instruction.messages)

    def _execute(self, instruction: instructions.Execute) -> None:
        self._queue.append((instruction, [self.data[task] for task in instruction.inputs]))
        self._start_next()

    def _start_next(self) -> None:
        while self.alive and self._queue and len(self.running) < self.nthreads:
            instruction, inputs = self._queue.pop(0)
            self.running[instruction.run] = instruction
            self._check_resources()
            label, kind, _flakes, _resources = instruction.payload
            self._attempts[label] = self._attempts.get(label, 0) + 1
            if instruction.timeout_s:
                self.world.later(0.0, lambda run=instruction.run: self.feed(events.RunStarted(run)))  # type: ignore[misc]
            if kind in ("stuck", "stubborn"):
                continue
            duration_s = self.world.random.choice([0.0001, 0.001, 0.01, 0.3])
            self.world.later(duration_s, lambda i=instruction, v=inputs, d=duration_s: self._end(i, v, d))  # type: ignore[misc]

    def _check_resources(self) -> None:
        taken = sum(instruction.payload[3] for instruction in self.running.values())
        if taken > self.resources.get("R", 0.0):
            raise InvariantBroken(f"worker {self.peer} runs tasks that take {taken} of its {self.resources}")

    def _end(self, instruction: instructions.Execute, inputs: list[int], duration_s: float) -> None:
        if not self.alive:
            return
        label, kind, flakes, _ = instruction.payload
        run = instruction.run
        if kind == "poison":
            self._die(self)
            return
        del self.running[run]
        report: events.RunFinished | events.RunFailed
        if kind == "bad" or self._attempts[label] <= flakes:
            report = events.RunFailed(run, [], "ValueError: bad", duration_s)
        else:
            value = value_of(label, inputs)
            if run in self.machine.runs:
                self.data[instruction.task] = value
            payload = [value] if label % INLINE_LABELS == 0 else None
            report = events.RunFinished(run, 8 + label % 100, duration_s, payload)
        self.feed(events.Executed([report]))
        self._start_next()

    def _take_back(self, instruction: instructions.TakeBack) -> None:
        kept = [entry for entry in self._queue if entry[0].run != instruction.run]
        taken = len(kept) < len(self._queue)
        self._queue = kept
        self.feed(events.RunTaken(instruction.run, taken))

    def _interrupt(self, instruction: instructions.Interrupt) -> None:
        at = self.running.get(instruction.run)
        if at is not None and at.payload[1] == "stuck":
            delay_s = self.world.random.uniform(0.0, 0.01)
            self.world.later(delay_s, lambda: self._end_interrupted(instruction.run))

    def _end_interrupted(self, run: int) -> None:
        if self.alive and self.running.pop(run, None) is not None:
            self.feed(events.Executed([events.RunFailed(run, [], "TaskInterrupted", 0.1)]))
            self._start_next()

    def _set_timer(self, instruction: instructions.SetTimer) -> None:
        event = events.TimerEnded(instruction.run, instruction.purpose)
        self.world.later(instruction.delay_s, lambda: self.feed(event))

    def _end_process(self, instruction: instructions.EndProcess) -> None:
        self._die(self)

    def _leave(self, instruction: instructions.Leave) -> None:
        self.left = True
        self._die(self)

    def _fetch(self, instruction: instructions.Fetch) -> None:
        delay_s = self.world.random.uniform(0.0001, 0.01)
        self.world.later(delay_s, lambda: self._answer(instruction))

    def _answer(self, instruction: instructions.Fetch) -> None:
        """The peer looks for the data; the answer takes its time, and may find nobody."""
        peer = self._find(instruction.address)
        delay_s = self.world.random.uniform(0.0001, 0.01)
        if peer is None or not peer.alive or self.world.random.random() < 0.01:
            event: events.WorkerEvent = events.PeerUnreachable(instruction.address, instruction.tasks)
            self.world.later(delay_s, lambda: self.feed(event))
            return
        found = {task: peer.data[task] for task in instruction.tasks if task in peer.data}

        def arrive() -> None:
            if not self.alive:
                return
            absent = [task for task in instruction.tasks if task not in found]
            arrived = [(task, 8) for task in found]
            for task, value in found.items():
                self.data.setdefault(task, value)
            self.feed(events.DataFetched(instruction.address, arrived, absent))

        self.world.later(delay_s, arrive)

    def _discard(self, instruction: instructions.Discard) -> None:
        for task in instruction.tasks:
            del self.data[task]

    def _nothing(self, instruction: Any) -> None:
        """Functions are simulated: nothing to keep."""

    _PERFORM: dict[type, Callable[..., None]] = {
        instructions.Report: _report,
        instructions.Execute: _execute,
        instructions.TakeBack: _take_back,
        instructions.Interrupt: _interrupt,
        instructions.SetTimer: _set_timer,
        instructions.EndProcess: _end_process,
        instructions.Leave: _leave,
        instructions.Fetch: _fetch,
        instructions.Discard: _discard,
        instructions.KeepFunction: _nothing,
        instructions.DropFunctions: _nothing,
    }
