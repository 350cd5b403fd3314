"""One world from its scenario to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions, invariants
from distributed_core.machines.scheduler.tasks import Ready, Task
from distributed_core.settings import SchedulerSettings
from distributed_core.sim.clients import RECONNECT_TIMEOUT_S, SimulatedClient
from distributed_core.sim.faults import strike
from distributed_core.sim.nannies import Keeper
from distributed_core.sim.oracle import RunBook, judge, judge_emptiness, judge_losses
from distributed_core.sim.peers import Peers
from distributed_core.sim.scenario import LONG_S, SILENCE_MAX_S, Scenario, WorkerShape, expand
from distributed_core.sim.workers import SimulatedWorker
from distributed_core.sim.world import Process, World

EVENTS_MAX = 200_000
SETTINGS = SchedulerSettings(
    release_numbers_max=7,
    worker_silence_max_s=SILENCE_MAX_S,
    unreachable_max_s=4.0,
    liveness_interval_s=0.3,
    recovery_s=4.0,
    recovery_wait_s=1.5,
)
WHOLE_EVERY, WHOLE_MOVES = 12, 20
"""All tasks are checked after so many events, and after one that moves so many tasks."""
START_S = 0.1
"""Clients begin when the workers that are there from the start have registered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a world ended: its trace, and how many things happened in it."""

    seed: int
    trace: str
    events: int
    futures: int
    kills: int
    crashes: int


def simulate(seed: int) -> Outcome:
    """Run the world of `seed`.

    Raises
    ------
    InvariantBroken
        A machine contradicts itself, a future has a wrong value or a false error, or is never done.
    """
    return run(expand(seed))


def run(scenario: Scenario) -> Outcome:
    """Run the world of a scenario; raises as `simulate`."""
    try:
        return Simulation(scenario.derived()).run()
    except InvariantBroken as error:
        raise InvariantBroken(f"seed {scenario.seed}: {error}") from error


class Simulation(Peers):
    """One world.

    Attributes
    ----------
    deaths
        Workers that the scheduler lost other than by their own wish.
    partings
        Pairs of workers between which no data passes now, and what waits for it.
    silent_s
        How long the packets of each worker were held up for at most.
    generation
        How many schedulers there were.
    doomed
        There is no scheduler, and never will be.
    falsified
        Somebody's books were made wrong on purpose: only then may there be anything to mend.
    """

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self.scenario = scenario
        self.world = World(scenario.seed)
        self.keepers: dict[str, Keeper] = {}
        self.attempts: dict[int, int] = {}
        self.silent_s: dict[str, float] = {}
        self.falsified = False
        self.long_s = LONG_S
        self.generation = 0
        self.doomed = False
        self._processes = 0
        self.start_scheduler()
        for fault in scenario.faults:
            if fault.kind in ("pause", "silence"):
                for name in fault.names:
                    self.silent_s[name] = self.silent_s.get(name, 0.0) + fault.for_s

    def run(self) -> Outcome:
        for shape in self.scenario.workers:
            keeper = self.keepers[shape.name] = Keeper(self.world, shape, self._start_process)
            self.world.later(shape.joins_s, keeper.begin)
        for place in range(len(self.scenario.clients)):
            self._add_client(place)
        for fault in self.scenario.faults:
            self.world.later(fault.at_s, lambda fault=fault: strike(self, fault))  # type: ignore[misc]
        self._go_on()
        invariants.check(self.scheduler)
        if self.doomed:
            judge_losses(self)
        else:
            judge(self)
            for client in self.clients:
                self.end_client(client)
            self._go_on()
            judge_emptiness(self)
        futures = sum(len(client.jobs) for client in self.clients)
        return Outcome(
            self.scenario.seed, self.world.trace, self.world.events, futures, self.deaths, self.generation - 1
        )

    def _go_on(self) -> None:
        while self.world.step() or self._waits():
            if self.world.events > EVENTS_MAX:
                raise InvariantBroken(f"no end after {EVENTS_MAX} events")

    def _waits(self) -> bool:
        """Keep the world going for tasks that wait for a check of liveness because of an input out of reach."""
        waits = any(type(task.state) is Ready for task in self.scheduler.ledger.cut_off.values())
        if waits:
            self.world.later(SETTINGS.liveness_interval_s, lambda: None)
        return waits

    # --- the scheduler's shell --------------------------------------------------------------------

    def start_scheduler(self) -> None:
        """There is a scheduler that knows nothing."""
        self.generation += 1
        self.process = Process(self.world, self.scenario.scheduler_offset_s, self.scenario.scheduler_rate)
        self.scheduler = SchedulerMachine(SETTINGS)
        self._fed = self._logged = 0
        self._book = RunBook()

    def crash(self, downtime_s: float) -> None:
        """The scheduler's process dies, and another one comes at its address; never, if `downtime_s` is 0."""
        if not self.process.alive:
            return
        self.process.alive = False
        self.doomed = not downtime_s
        self.world.note("scheduler", "crashed")
        self.hang_up_all()
        if downtime_s:
            self.world.later(downtime_s, self.start_scheduler)

    def feed(self, event: events.SchedulerEvent) -> None:
        """Give the machine an event and do what it asks for."""
        if not self.process.alive:
            return
        if type(event) is events.Received:
            for message in event.messages:
                self._book.heard(event.peer, message)
        elif type(event) is events.WorkerLost:
            self._book.lost(event.worker)
        asked = self.scheduler.handle(event, self.process.now)
        self.world.note("scheduler", type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if type(each) is instructions.Send:
                for message in each.messages:
                    self._book.told(each.peer, message)
                self.send(each.peer, each.messages)
            elif type(each) is instructions.Drop:
                self.drop(each)
            elif type(each) is instructions.Continue:
                self._later(0.0, events.Continued())
            elif type(each) is instructions.WatchLiveness:
                self._later(each.delay_s, events.LivenessChecked(), idle=True)
            elif type(each) is instructions.WatchRecovery:
                self._later(each.delay_s, events.RecoveryChecked())
        self._check()
        if self.scheduler.ledger.mended and not self.falsified:
            raise InvariantBroken("a worker's view differed from the scheduler's, and nobody falsified it")
        self._book.check(self)

    def _check(self) -> None:
        """Check the invariants: of all tasks now and then, in between of those that moved, and of their neighbours.

        What is wrong about a task is wrong about one that moved, or has a part in one that did; and it stays wrong
        until somebody mends it.
        """
        ledger, log = self.scheduler.ledger, self.scheduler.ledger.log
        self._fed += 1
        count, self._logged = len(log) - self._logged, len(log)
        if self._fed % WHOLE_EVERY == 0 or count > WHOLE_MOVES:
            invariants.check(self.scheduler)
            return
        touched: dict[int, Task] = {}
        for place in range(1, count + 1):
            task = ledger.tasks.get(log[-place][1])
            if task is not None:
                touched[task.id] = task
                touched.update((each.id, each) for each in task.inputs)
                touched.update(task.users or ())
        invariants.check(self.scheduler, touched.values())

    def _later(self, delay_s: float, event: events.SchedulerEvent, *, idle: bool = False) -> None:
        self.process.after(delay_s, lambda: self.feed(event), timer=True, idle=idle)

    def send(self, peer: int, batch: list[Any]) -> None:
        """Send messages to a peer, if it is still there."""
        connection = self.connections.get(peer)
        if connection is not None:
            connection.down.send(batch)

    # --- who comes --------------------------------------------------------------------------------

    def _start_process(self, shape: WorkerShape) -> SimulatedWorker:
        self._processes += 1
        worker = SimulatedWorker(self, shape, self._processes)
        self.by_address[worker.address] = worker
        worker.after(0.05 * self.world.draw("start", shape.name, self._processes), worker.search, idle=self.doomed)
        return worker

    def _add_client(self, place: int) -> None:
        shape = self.scenario.clients[place]
        client = SimulatedClient(self, place, shape)
        self.clients.append(client)
        client.search(RECONNECT_TIMEOUT_S)
        self.world.later(START_S, client.begin)
        if shape.leaves_s:
            self.world.later(shape.leaves_s, lambda: self.end_client(client))
