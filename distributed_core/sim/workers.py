"""A worker of the simulation: the real machine, simulated threads and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core.machines.worker import WorkerMachine, events, instructions, invariants
from distributed_core.settings import WorkerSettings
from distributed_core.sim.workload import value_of
from distributed_core.sim.world import Link, World

INLINE_LABELS = 3
"""Every third result is called small and travels inside its report."""


class SimulatedWorker:
    """One worker process, from its registration to its death."""

    def __init__(
        self,
        world: World,
        peer: int,
        nthreads: int,
        to_scheduler: Link,
        find: Callable[[str], SimulatedWorker | None],
    ) -> None:
        self.world = world
        self.peer = peer
        self.address = f"worker-{peer}:1"
        self.nthreads = nthreads
        self.machine = WorkerMachine(WorkerSettings(fetch_tasks_max=3))
        self.data: dict[int, int] = {}
        self.alive = True
        self._to_scheduler = to_scheduler
        self._find = find
        self._queue: list[tuple[instructions.Execute, list[int]]] = []
        self._busy = 0
        self._abandoned: dict[int, None] = {}

    def feed(self, event: events.WorkerEvent) -> None:
        """Give the machine an event and do what it asks for."""
        if not self.alive:
            return
        asked = self.machine.handle(event, self.world.now)
        invariants.check(self.machine)
        self.world.note(self.peer, type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
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
        while self._queue and self._busy < self.nthreads:
            instruction, inputs = self._queue.pop(0)
            if instruction.run in self._abandoned:
                del self._abandoned[instruction.run]
                continue
            self._busy += 1
            duration_s = self.world.random.choice([0.0001, 0.001, 0.01, 0.3])
            self.world.later(duration_s, lambda i=instruction, v=inputs, d=duration_s: self._end(i, v, d))  # type: ignore[misc]

    def _end(self, instruction: instructions.Execute, inputs: list[int], duration_s: float) -> None:
        if not self.alive:
            return
        self._busy -= 1
        label, bad = instruction.payload
        run = instruction.run
        if run in self._abandoned:
            del self._abandoned[run]
        elif bad:
            self.feed(events.Executed([events.RunFailed(run, [label], "ValueError: bad", duration_s)]))
        else:
            value = value_of(label, inputs)
            if run in self.machine.runs:
                self.data[instruction.task] = value
            payload = [value] if label % INLINE_LABELS == 0 else None
            self.feed(events.Executed([events.RunFinished(run, 8 + label % 100, duration_s, payload)]))
        self._start_next()

    def _abandon(self, instruction: instructions.Abandon) -> None:
        self._abandoned[instruction.run] = None

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
        instructions.Abandon: _abandon,
        instructions.Fetch: _fetch,
        instructions.Discard: _discard,
        instructions.KeepFunction: _nothing,
        instructions.DropFunctions: _nothing,
    }
