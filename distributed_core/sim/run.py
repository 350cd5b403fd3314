"""One world from its scenario to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions, invariants
from distributed_core.settings import SchedulerSettings
from distributed_core.sim.clients import SimulatedClient
from distributed_core.sim.faults import strike
from distributed_core.sim.nannies import Keeper
from distributed_core.sim.oracle import RunBook, judge, judge_emptiness, lengthy_names
from distributed_core.sim.scenario import LONG_S, SILENCE_MAX_S, Scenario, WorkerShape, expand
from distributed_core.sim.workers import SimulatedWorker
from distributed_core.sim.world import Link, Pipe, Process, World

EVENTS_MAX = 200_000
SETTINGS = SchedulerSettings(
    release_numbers_max=7, worker_silence_max_s=SILENCE_MAX_S, unreachable_max_s=4.0, liveness_interval_s=0.3
)
GREETING_S = 0.002
REFUSED_RETRY_S = 0.05
START_S = 0.1
"""Clients begin when the workers that are there from the start have registered."""
LOSSY_DEATHS = 0.3
"""So many processes die so that what they had sent, and that is still under way, is lost too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a world ended: its trace, and how many things happened in it."""

    seed: int
    trace: str
    events: int
    futures: int
    kills: int


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


class Simulation:
    """One world.

    Attributes
    ----------
    deaths
        Workers that the scheduler lost other than by their own wish.
    partings
        Pairs of workers between which no data passes now, and what waits for it.
    silent_s
        How long the packets of each worker were held up for at most.
    falsified
        Somebody's books were made wrong on purpose: only then may there be anything to mend.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed)
        self.process = Process(self.world, scenario.scheduler_offset_s, scenario.scheduler_rate)
        self.scheduler = SchedulerMachine(SETTINGS)
        self.connections: dict[int, Pipe] = {}
        self.keepers: dict[str, Keeper] = {}
        self.by_address: dict[str, SimulatedWorker] = {}
        self.clients: list[SimulatedClient] = []
        self.attempts: dict[int, int] = {}
        self.deaths = 0
        self.partings: dict[frozenset[str], list[Callable[[bool], None]]] = {}
        self.silent_s: dict[str, float] = {}
        self.falsified = False
        self.long_s = LONG_S
        self._book = RunBook()
        self._processes = 0
        self._peers = 0
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
        judge(self)
        for client in self.clients:
            self._end_client(client)
        self._go_on()
        judge_emptiness(self)
        futures = sum(len(client.jobs) for client in self.clients)
        return Outcome(self.scenario.seed, self.world.trace, self.world.events, futures, self.deaths)

    def _go_on(self) -> None:
        while self.world.step():
            if self.world.events > EVENTS_MAX:
                raise InvariantBroken(f"no end after {EVENTS_MAX} events")

    # --- the scheduler's shell --------------------------------------------------------------------

    def feed(self, event: events.SchedulerEvent) -> None:
        """Give the machine an event and do what it asks for."""
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
                self._drop(each)
            elif type(each) is instructions.Continue:
                self.process.after(0.0, lambda: self.feed(events.Continued()))
            elif type(each) is instructions.WatchLiveness:
                self.process.after(each.delay_s, self._check_liveness, timer=True, idle=True)
        invariants.check(self.scheduler)
        if self.scheduler.ledger.mended and not self.falsified:
            raise InvariantBroken("a worker's view differed from the scheduler's, and nobody falsified it")
        self._book.check(self)

    def _check_liveness(self) -> None:
        self.feed(events.LivenessChecked())

    def send(self, peer: int, batch: list[Any]) -> None:
        """Send messages to a peer, if it is still there."""
        connection = self.connections.get(peer)
        if connection is not None:
            connection.down.send(batch)

    def _drop(self, asked: instructions.Drop) -> None:
        worker = self.scheduler.ledger.workers.get(asked.peer)
        if worker is None:
            raise InvariantBroken(f"a client was dropped: {asked.reason}")
        process = self.by_address[worker.address]
        dead = not process.alive or process.connection is None or process.connection.peer != asked.peer
        if not dead and worker.name not in lengthy_names(self):
            raise InvariantBroken(f"{worker.name} was dropped, and had not been silent: {asked.reason}")
        connection = self.connections.pop(asked.peer, None)
        if connection is not None:
            connection.cut()
            self.lose_worker_later(asked.peer, 0.0)
            # A partition, if it is one, lets it know only when it heals.
            connection.down.cut = False
            connection.down.carry(lambda: process.wake(lambda: process.disconnected(connection)))

    # --- workers ----------------------------------------------------------------------------------

    def _start_process(self, shape: WorkerShape) -> SimulatedWorker:
        self._processes += 1
        worker = SimulatedWorker(self, shape, self._processes)
        self.by_address[worker.address] = worker
        worker.after(0.05 * self.world.draw("start", shape.name, self._processes), lambda: self.register(worker))
        return worker

    def register(self, worker: SimulatedWorker) -> None:
        """Let a process look for the scheduler, until it is welcome: its predecessor of that name may not be gone."""

        def greet() -> None:
            others = self.scheduler.ledger.workers.values()
            if not worker.alive:
                return
            if any(each.name == worker.name or each.address == worker.address for each in others):
                self.world.later(REFUSED_RETRY_S, lambda: self.register(worker))
            else:
                self._welcome(worker)

        self.world.later(GREETING_S, lambda: self.process.wake(greet))

    def _welcome(self, worker: SimulatedWorker) -> None:
        self._peers += 1
        peer, shape = self._peers, worker.shape

        def take(batch: list[Any]) -> None:
            self.process.wake(lambda: self.feed(events.Received(peer, batch)))

        def receive(batch: list[Any]) -> None:
            # What an earlier connection held up is nothing to a process that has registered anew.
            if worker.connection is connection:
                worker.receive(batch)

        up = Link(self.world, f"{shape.name} {peer} up", take, shape.delay_s, shape.jitter)
        down = Link(self.world, f"{shape.name} {peer} down", receive, shape.delay_s, shape.jitter)
        connection = self.connections[peer] = Pipe(peer, up, down)
        worker.registered(connection)
        details = {"resources": worker.resources}
        self.feed(events.WorkerJoined(peer, worker.address, worker.name, shape.nthreads, details))
        keeper = self.keepers[shape.name]
        if keeper.process is worker:
            keeper.hear_registered()

    def process_ended(self, worker: SimulatedWorker, exit_code: int, *, gently: bool) -> None:
        """A worker's process is gone: its keeper hears of it, and sooner or later the scheduler."""
        connection = worker.connection
        if connection is not None and connection.open:
            connection.open = False
            connection.down.cut = True
            peer = connection.peer
            self.deaths += not worker.dismissed
            lost = events.WorkerLost(peer, exit_code or None)
            if not gently and self.world.draw("death", worker.name, peer) < LOSSY_DEATHS:
                connection.up.cut = True
                self.lose_worker_later(peer, 0.01)
            else:
                connection.up.carry(lambda: self.process.wake(lambda: self._lose_worker(lost)))
        keeper = self.keepers[worker.name]
        if keeper.process is worker:
            keeper.hear_end(exit_code, left=exit_code == 0)

    def lose_worker_later(self, peer: int, delay_s: float) -> None:
        """The scheduler sees a worker's connection break."""
        self.deaths += 1
        self.process.after(delay_s, lambda: self._lose_worker(events.WorkerLost(peer)))

    def _lose_worker(self, event: events.WorkerLost) -> None:
        self.connections.pop(event.worker, None)
        if event.worker in self.scheduler.ledger.workers:
            self.feed(event)

    def parted(self, one: str, other: str, action: Callable[[bool], None]) -> bool:
        """Tell whether no data passes between two workers now; then `action` follows: with whether it does again."""
        waiting = self.partings.get(frozenset((one, other)))
        if waiting is None:
            return False
        waiting.append(action)
        return True

    # --- clients ----------------------------------------------------------------------------------

    def _add_client(self, place: int) -> None:
        shape = self.scenario.clients[place]
        client = SimulatedClient(self.world, place, shape)
        self.clients.append(client)
        self._peers += 1
        peer = self._peers

        def take(batch: list[Any]) -> None:
            self.process.wake(lambda: self.feed(events.Received(peer, batch)))

        def hear(batch: list[Any]) -> None:
            for message in batch:
                if type(message) is messages.Placement:
                    self._put(client, message)
                elif type(message) not in (messages.Notice, messages.Roster):
                    client.hear(message)

        up = Link(self.world, f"{client.name} up", take, shape.delay_s, shape.jitter)
        down = Link(self.world, f"{client.name} down", hear, shape.delay_s, shape.jitter)
        connection = self.connections[peer] = Pipe(peer, up, down)
        self.feed(events.ClientJoined(peer, client.name, shape.weight))
        self.world.later(START_S, lambda: client.begin(connection))
        if shape.leaves_s:
            self.world.later(shape.leaves_s, lambda: self._end_client(client))

    def _end_client(self, client: SimulatedClient) -> None:
        if client.left:
            return
        client.left = True
        connection = client.connection
        assert connection is not None
        connection.cut()
        self.process.wake(lambda: self._lose_client(connection.peer))

    def _lose_client(self, peer: int) -> None:
        del self.connections[peer]
        self.feed(events.ClientLost(peer))

    def _put(self, client: SimulatedClient, message: messages.Placement) -> None:
        worker = self.by_address[message.address]
        value = client.jobs[message.number].expected
        delay_s = 0.05 * self.world.draw("put", client.name, message.number) + worker.disk_s
        self.world.later(delay_s, lambda: worker.wake(lambda: worker.put(message.task, value)))
