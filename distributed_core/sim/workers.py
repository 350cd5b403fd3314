"""A worker of the simulation: the real machine, simulated threads and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from distributed_core import messages
from distributed_core.errors import InvariantBroken, ProtocolError
from distributed_core.machines.worker import WorkerMachine, events, instructions, invariants
from distributed_core.settings import WorkerSettings
from distributed_core.sim.scenario import WorkerShape
from distributed_core.sim.workload import Plan, value_of
from distributed_core.sim.world import Pipe, Process, World

INLINE_LABELS = 3
"""Every third result is called small and travels inside its report."""
SETTINGS = WorkerSettings(fetch_tasks_max=3, small_fetch_bytes_max=50, interrupt_grace_s=0.05, heartbeat_interval_s=0.4)
LOST_FETCH_FRACTION = 0.01
DURATIONS_S = (0.0001, 0.001, 0.01, 0.3)
RECONNECT_TIMEOUT_S = 8.0
"""A worker looks for the scheduler for so long, by its own clock; then it ends."""
EXIT_NO_SCHEDULER = 1


class Surroundings(Protocol):
    """What a worker's process sees of the rest of the world."""

    world: World
    by_address: dict[str, SimulatedWorker]
    #: How often each label was run, over all workers.
    attempts: dict[int, int]

    def knock(self, caller: SimulatedWorker) -> None:
        """The process looks for the scheduler."""

    def process_ended(self, worker: SimulatedWorker, exit_code: int, *, gently: bool) -> None:
        """The process is gone."""

    def parted(self, one: str, other: str, action: Callable[[bool], None]) -> bool:
        """Tell whether no data passes between these workers now; then `action` follows: with whether it does again."""


class _Question:
    """A request for data, from one worker to another."""

    def __init__(self, asker: SimulatedWorker, instruction: instructions.Fetch) -> None:
        self.asker = asker
        self.instruction = instruction
        self.done = False


class SimulatedWorker(Process):
    """One worker process, from its start to its death; what it holds and runs outlives its connections.

    Attributes
    ----------
    connection, coming
        The one over which it is registered; the one over which it is about to be, when it is welcome.
    gives_up_s
        By its clock: when it looks for the scheduler no longer.
    refused_s
        By its clock: since when the scheduler does not want it; 0 is not at all.
    """

    def __init__(self, around: Surroundings, shape: WorkerShape, serial: int) -> None:
        super().__init__(around.world, shape.offset_s, shape.rate)
        self.around = around
        self.shape = shape
        self.name = shape.name
        self.serial = serial
        self.address = f"worker-{serial}:1"
        self.resources = {"R": shape.resources} if shape.resources else {}
        self.machine = WorkerMachine(SETTINGS, replaceable=shape.nanny)
        self.data: dict[int, int] = {}
        #: How much longer everything takes that reads or writes data.
        self.disk_s = 0.0
        self.connection: Pipe | None = None
        self.coming: Pipe | None = None
        self.gives_up_s = 0.0
        self.refused_s = 0.0
        self.bodies: dict[int, None] = {}
        #: The scheduler let it go, when nothing depended on it any more.
        self.dismissed = False
        self.questions: list[_Question] = []
        self._queue: list[tuple[instructions.Execute, list[int]]] = []
        self.running: dict[int, instructions.Execute] = {}
        self._source = self.world.stream("worker", shape.name, serial)

    # --- life -------------------------------------------------------------------------------------

    def search(self) -> None:
        """Look for the scheduler."""
        self.gives_up_s = self.now + RECONNECT_TIMEOUT_S
        self.refused_s = 0.0
        self.around.knock(self)

    def registered(self, connection: Pipe) -> None:
        """The scheduler's welcome has come: tell it what is here from before."""
        if not self.alive or self.coming is not connection:
            return
        self.coming, self.connection = None, connection
        self.feed(events.Registered())
        self._beat(connection)

    def disconnected(self, connection: Pipe) -> None:
        """It sees its connection end: keep what is here, and look for the scheduler again."""
        if not self.alive or connection not in (self.connection, self.coming):
            return
        known = connection is self.connection
        self.connection = self.coming = None
        self.world.note(self.serial, "disconnected")
        if known:
            self.feed(events.SchedulerGone())
            # The next scheduler counts functions anew.
            self.bodies = {}
        self.search()

    def turned_away(self, for_s: float) -> None:
        """The scheduler does not want it, or is not there; it knocks again, for a while."""
        if self.now >= self.gives_up_s or (self.refused_s and self.now >= self.refused_s + for_s):
            self.wake(lambda: self.end(EXIT_NO_SCHEDULER))
        else:
            self.around.knock(self)

    def end(self, exit_code: int, *, gently: bool = False) -> None:
        """The process ends; `gently` what it sent still arrives."""
        if self.alive:
            self.alive = False
            for question in self.questions:
                self._fail(question)
            self.around.process_ended(self, exit_code, gently=gently)

    def _beat(self, connection: Pipe) -> None:
        if self.connection is connection:
            asked = self.machine.handle(events.HeartbeatDue(), self.now)
            said = [message for each in asked if type(each) is instructions.Report for message in each.messages]
            connection.up.send([messages.Heartbeat({}), *said], idle=True)
            self.after(SETTINGS.heartbeat_interval_s, lambda: self._beat(connection), timer=True, idle=True)

    # --- the loop around the machine --------------------------------------------------------------

    def feed(self, event: events.WorkerEvent) -> None:
        """Give the machine an event and do what it asks for."""
        if not self.alive:
            return
        try:
            asked = self.machine.handle(event, self.now)
        except ProtocolError as error:
            raise InvariantBroken(f"worker {self.address} was told what makes no sense: {error}") from error
        invariants.check(self.machine)
        self.world.note(self.serial, type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if self.alive:
                self._PERFORM[type(each)](self, each)

    def receive(self, connection: Pipe, batch: list[Any]) -> None:
        """What an earlier connection held up is nothing to a process that has registered anew."""

        def take() -> None:
            if self.connection is connection:
                self.feed(events.Instructed(batch))

        self.wake(take)

    # --- effects ----------------------------------------------------------------------------------

    def _report(self, instruction: instructions.Report) -> None:
        if self.connection is not None:
            self.connection.up.send(instruction.messages)

    def _execute(self, instruction: instructions.Execute) -> None:
        if instruction.function not in self.bodies:
            raise InvariantBroken(f"worker {self.address} is to run a function that it does not have")
        self._queue.append((instruction, [self.data[task] for task in instruction.inputs]))
        self._start_next()

    def _start_next(self) -> None:
        while self.alive and self._queue and len(self.running) < self.shape.nthreads:
            instruction, inputs = self._queue.pop(0)
            self.running[instruction.run] = instruction
            self._check_resources()
            label, kind, _, _ = Plan.opened(instruction.payload)
            attempt = self.around.attempts[label] = self.around.attempts.get(label, 0) + 1
            if instruction.timeout_s:
                self.after(0.0, lambda run=instruction.run: self.feed(events.RunStarted(run)))  # type: ignore[misc]
            if kind in ("stuck", "stubborn"):
                continue
            duration_s = DURATIONS_S[int(self.world.draw("run", label, attempt) * len(DURATIONS_S))] + self.disk_s
            self.after(duration_s, lambda i=instruction, v=inputs, d=duration_s: self._end_run(i, v, d))  # type: ignore[misc]

    def _check_resources(self) -> None:
        taken = sum(Plan.opened(instruction.payload).demand for instruction in self.running.values())
        if taken > self.resources.get("R", 0.0):
            raise InvariantBroken(f"worker {self.address} runs tasks that take {taken} of its {self.resources}")

    def _end_run(self, instruction: instructions.Execute, inputs: list[int], duration_s: float) -> None:
        label, kind, flakes, _ = Plan.opened(instruction.payload)
        run = instruction.run
        if kind == "poison":
            self.end(-11)
            return
        del self.running[run]
        report: events.RunFinished | events.RunFailed
        if kind == "bad" or self.around.attempts[label] <= flakes:
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
        if at is not None and Plan.opened(at.payload).kind == "stuck":
            self.after(self._source.uniform(0.0, 0.01), lambda: self._end_interrupted(instruction.run))

    def _end_interrupted(self, run: int) -> None:
        if self.running.pop(run, None) is not None:
            self.feed(events.Executed([events.RunFailed(run, [], "TaskInterrupted", 0.1)]))
            self._start_next()

    def _set_timer(self, instruction: instructions.SetTimer) -> None:
        event = events.TimerEnded(instruction.run, instruction.purpose)
        self.after(instruction.delay_s, lambda: self.feed(event), timer=True)

    def _end_process(self, instruction: instructions.EndProcess) -> None:
        self.end(-9, gently=True)

    def _leave(self, instruction: instructions.Leave) -> None:
        self.dismissed = True
        self.end(0, gently=True)

    def _discard(self, instruction: instructions.Discard) -> None:
        for task in instruction.tasks:
            del self.data[task]

    def _keep_function(self, instruction: instructions.KeepFunction) -> None:
        self.bodies[instruction.function] = None

    def _drop_functions(self, instruction: instructions.DropFunctions) -> None:
        for function in instruction.functions:
            self.bodies.pop(function, None)

    # --- data -------------------------------------------------------------------------------------

    def put(self, task: int, value: int) -> None:
        """A client brings data."""
        if self.alive:
            self.data[task] = value
            self.feed(events.DataPut([(task, 8)]))

    def _fetch(self, instruction: instructions.Fetch) -> None:
        question = _Question(self, instruction)
        self.world.later(self._source.uniform(0.0001, 0.01), lambda: self._ask(question))

    def _ask(self, question: _Question) -> None:
        peer = self.around.by_address[question.instruction.address]
        if self.around.parted(self.name, peer.name, lambda healed: self._go_on(question, healed)):
            return
        if not peer.alive or self._source.random() < LOST_FETCH_FRACTION:
            self._fail(question)
        else:
            peer.questions.append(question)
            peer.wake(lambda: peer._answer(question))

    def _go_on(self, question: _Question, healed: bool) -> None:
        if healed:
            self._ask(question)
        else:
            self._fail(question)

    def _answer(self, question: _Question) -> None:
        """Look for the data; the answer takes its time."""
        found = {task: self.data[task] for task in question.instruction.tasks if task in self.data}
        delay_s = self._source.uniform(0.0001, 0.01) + self.disk_s
        self.world.later(delay_s, lambda: self._deliver(question, found))

    def _deliver(self, question: _Question, found: dict[int, int]) -> None:
        asker = question.asker
        self.questions.remove(question)
        if not question.done and not self.around.parted(
            self.name, asker.name, lambda healed: asker._take(question, found) if healed else self._fail(question)
        ):
            asker._take(question, found)

    def _take(self, question: _Question, found: dict[int, int]) -> None:
        def arrive() -> None:
            if question.done:
                return
            question.done = True
            absent = [task for task in question.instruction.tasks if task not in found]
            for task, value in found.items():
                self.data.setdefault(task, value)
            asked, arrived = question.instruction, [(task, 8) for task in found]
            self.feed(events.DataFetched(asked.address, arrived, absent, asked.small))

        self.after(self.disk_s, arrive)

    @staticmethod
    def _fail(question: _Question) -> None:
        """The connection between both breaks, or nobody is there."""
        asker = question.asker
        if question.done:
            return
        question.done = True
        asked = question.instruction
        event = events.PeerUnreachable(asked.address, asked.tasks, asked.small)

        asker.after(0.005, lambda: asker.feed(event))

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
        instructions.KeepFunction: _keep_function,
        instructions.DropFunctions: _drop_functions,
    }
