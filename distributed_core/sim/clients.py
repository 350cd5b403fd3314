"""A client of the simulation: the real machine, and what its user does."""

from __future__ import annotations

from typing import Any, Protocol

from distributed_core import messages
from distributed_core.machines.client import ClientMachine, events, instructions, invariants
from distributed_core.machines.client.futures import CANCELLED, ERROR, FINISHED, PENDING, FutureRecord
from distributed_core.machines.client.machine import reopen
from distributed_core.sim.scenario import Act, ClientShape
from distributed_core.sim.workload import Job, Plan
from distributed_core.sim.world import Pipe, Process, World

DIGEST = b"f"
RECONNECT_TIMEOUT_S = 8.0
"""A client looks for the scheduler for so long, by its own clock; then what it waits for fails."""
WINDOWS = (2, 10, 100_000)


class ClientSurroundings(Protocol):
    """What a client sees of the rest of the world."""

    world: World
    #: How often each label was run, over all workers.
    attempts: dict[int, int]

    def knock(self, caller: SimulatedClient) -> None:
        """The client looks for the scheduler."""

    def put(self, client: SimulatedClient, message: messages.Placement) -> None:
        """The client brings data to a worker."""


class SimulatedClient(Process):
    """A client's process.

    Attributes
    ----------
    connection, coming
        The one that it has; the one that it is about to have, when it is welcome.
    gone, cancelled
        Futures that its user let go of; those of them that it cancelled.
    failed
        Futures of which it knew that they had failed when it lost a connection, and how often their tasks had run.
    retried
        It asked for failed futures again, so that tasks may run more often than once.
    lost_s, ended_s
        By its clock: when its last connection ended; when it gave up.
    away_s
        In the world's time: until then nothing leads from it to the scheduler.
    """

    def __init__(self, around: ClientSurroundings, place: int, shape: ClientShape) -> None:
        super().__init__(around.world, shape.offset_s, shape.rate)
        self.around = around
        self.name = f"c{place}"
        self.shape = shape
        self.jobs: dict[int, Job] = {job.number: job for job in shape.jobs}
        self.futures: dict[int, FutureRecord] = {}
        self.machine = ClientMachine(self.futures, RECONNECT_TIMEOUT_S)
        self.machine.window.tasks_max = WINDOWS[int(self.world.draw("window", self.name) * len(WINDOWS))]
        self.gone: dict[int, None] = {}
        self.cancelled: dict[int, None] = {}
        self.failed: dict[int, int] = {}
        self.retried = False
        self.left = False
        self.connection: Pipe | None = None
        self.coming: Pipe | None = None
        self.gives_up_s = 0.0
        self.lost_s = 0.0
        self.ended_s = 0.0
        self.away_s = 0.0
        self.returns = False
        self._searches = 0
        #: Scattered data that the scheduler named no worker for yet, and vows that are not kept.
        self._scattering: dict[int, None] = {}
        self._vowed: dict[int, None] = {}

    # --- life -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Submit chunk by chunk, and act when its shape says so, connected or not."""
        for at_s, numbers in self.shape.chunks:
            self.after(at_s, lambda numbers=numbers: self._submit(numbers))  # type: ignore[misc]
        for act in self.shape.acts:
            self.after(act.at_s, lambda act=act: self._act(act))  # type: ignore[misc]

    def search(self, timeout_s: float) -> None:
        """Look for the scheduler."""
        self._searches += 1
        search = self._searches
        self.gives_up_s = self.now + timeout_s
        self.after(timeout_s, lambda: self._give_up(search), timer=True)
        self.around.knock(self)

    def _give_up(self, search: int) -> None:
        if search == self._searches and self.connection is None and not self.left:
            if self.coming is not None:
                self.coming.up.cut = self.coming.down.cut = True
                self.coming = None
            self.ended_s = self.now
            self.feed(events.SearchEnded("nobody came back"))

    def turned_away(self, for_s: float) -> None:
        """Nobody was there; it knocks again until it gives up."""
        if not self.machine.closed and not self.left:
            self.around.knock(self)

    def connected(self, connection: Pipe, scheduler: str) -> None:
        """The scheduler's welcome has come."""
        if self.coming is not connection or self.machine.closed or self.left:
            return
        self.coming, self.connection = None, connection
        self.returns = True
        self._searches += 1
        self.feed(events.SchedulerFound(scheduler))

    def disconnected(self, connection: Pipe) -> None:
        """It sees its connection end."""
        if self.left or self.machine.closed:
            return
        if connection is self.coming:
            self.coming = None
            self.around.knock(self)
        elif connection is self.connection:
            self.connection = None
            self.lost_s = self.now
            for number in list(self._scattering):
                self.fail_to_put(number)
            for number, future in self.futures.items():
                if future.status == ERROR:
                    self.failed.setdefault(number, self.around.attempts.get(self.jobs[number].label, 0))
            self.feed(events.Disconnected("it broke"))

    def receive(self, connection: Pipe, batch: list[Any]) -> None:
        def take() -> None:
            if self.connection is connection:
                self.feed(events.Heard(batch))

        self.wake(take)

    # --- the loop around the machine --------------------------------------------------------------

    def feed(self, event: events.ClientEvent) -> None:
        """Give the machine an event and do what it asks for."""
        asked = self.machine.handle(event, self.now)
        self.world.note(self.name, type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if type(each) is instructions.Tell:
                if self.connection is not None and each.messages:
                    self.connection.up.send(each.messages)
            elif type(each) is instructions.Settle:
                self._keep_vows(each.futures)
            elif type(each) is instructions.Deliver:
                for message in each.messages:
                    self._deliver(message)
            elif type(each) is instructions.Flush:
                self.after(0.0, self._flush)
            elif type(each) is instructions.Search:
                self.search(each.timeout_s)
        invariants.check(self.machine)

    def _flush(self) -> None:
        if self.connection is not None and not self.left:
            self.feed(events.Posted(self.machine.drain()))

    def _deliver(self, message: Any) -> None:
        if type(message) is messages.Placement and message.number in self._scattering:
            del self._scattering[message.number]
            self.around.put(self, message)

    # --- what its user does -----------------------------------------------------------------------

    def _submit(self, numbers: list[int]) -> None:
        if self.machine.closed or self.left:
            return
        for number in numbers:
            job = self.jobs[number]
            if number in self.gone or any(each in self.gone and each not in self.futures for each in job.inputs):
                self.gone[number] = None  # What it is made from is not there to be named.
                continue
            self.futures[number] = FutureRecord(number)
            if job.adopted:
                self.machine.post(messages.Wish([[number, job.key]]))
            elif job.scattered:
                self._scattering[number] = None
                self.machine.post(messages.Scattering([[number, None, 8]], None))
            else:
                functions = [] if self.machine.lineage.knows(DIGEST) else [[DIGEST, "f", b"body"]]
                self.machine.post_tasks(functions, [self._task(job)])
        self._flush()

    @staticmethod
    def _task(job: Job) -> list[Any]:
        demand = (job.options or {}).get("resources", {}).get("R", 0.0)
        payload = Plan(job.label, job.kind, job.flakes, demand).packed()
        return [job.number, job.key, DIGEST, payload, job.inputs, job.priority, job.options]

    def _act(self, act: Act) -> None:
        if self.machine.closed or self.left:
            return
        numbers = [number for number in act.numbers if number not in self.gone and number in self.futures]
        # `scatter` gives futures only when a worker was named for their data.
        numbers = [number for number in numbers if number not in self._scattering]
        if act.word == "retry":
            self._retry(numbers)
        elif act.word == "cancel":
            self._cancel(numbers)
        else:
            if act.word == "vow":
                self._vow(numbers)
            self._release(numbers)
        self._flush()

    def _retry(self, numbers: list[int]) -> None:
        failed = [number for number in numbers if self.futures[number].status == ERROR]
        if failed:
            self.retried = True
            for number in failed:
                reopen(self.futures[number])
            self.machine.post(messages.Retrial(failed))

    def _cancel(self, numbers: list[int], *, force: bool = False) -> None:
        self.machine.post(messages.Cancellation(numbers, force, ""))
        self.cancelled.update(dict.fromkeys(numbers))
        for number in numbers:
            self.gone[number] = None
            future = self.futures[number]
            if future.status in (PENDING, FINISHED):
                future.status = CANCELLED
        # Some keep the future that they cancelled.
        dropped = [each for each in numbers if self.world.draw("drop", self.name, each) < 0.5]
        self._drop(dropped)

    def _release(self, numbers: list[int]) -> None:
        self.gone.update(dict.fromkeys(numbers))
        self._drop([number for number in numbers if number not in self._vowed])

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.futures[number]
        if numbers:
            self.machine.release(numbers)

    def _vow(self, numbers: list[int]) -> None:
        self.machine.post(messages.Vow(numbers))
        for number in numbers:
            if self.futures[number].status == PENDING:
                self._vowed[number] = self.machine.vowed[number] = None

    def _keep_vows(self, futures: list[FutureRecord]) -> None:
        kept = [each.number for each in futures if each.number in self._vowed and each.status != PENDING]
        for number in kept:
            del self._vowed[number]
        self._drop(kept)
        if kept:
            self.after(0.0, self._flush)

    def fail_to_put(self, number: int) -> None:
        """Its data did not get to a worker: `scatter` raises, and nobody has a future to build anything on."""
        self._scattering.pop(number, None)
        if number in self.futures and number not in self.gone:
            numbers = [number]
            for job in self.jobs.values():
                if any(each in numbers for each in job.inputs) and job.number not in self.gone:
                    numbers.append(job.number)
            # For others too: what they adopted could not have been there.
            self._cancel([each for each in numbers if each in self.futures], force=True)
            self.gone.update(dict.fromkeys(numbers))
            self.after(0.0, self._flush)
