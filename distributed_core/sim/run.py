"""One world from a seed to its end, and the oracle that judges it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions, invariants
from distributed_core.machines.worker import events as worker_events
from distributed_core.settings import SchedulerSettings
from distributed_core.sim.workers import SimulatedWorker
from distributed_core.sim.workload import Job, random_jobs
from distributed_core.sim.world import Link, World

EVENTS_MAX = 200_000
DIGEST = b"f"


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
    return _Simulation(seed).run()


class _Client:
    """A client's side of the wire: futures by number, as the scheduler told."""

    def __init__(self, peer: int, jobs: list[Job]) -> None:
        self.peer = peer
        self.jobs = {job.number: job for job in jobs}
        self.status: dict[int, str] = {}
        self.values: dict[int, int] = {}
        self.gone: dict[int, None] = {}
        self.reasons: dict[int, str] = {}


class _Simulation:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        self.source = self.world.random
        self.scheduler = SchedulerMachine(SchedulerSettings(release_numbers_max=7))
        self.links: dict[int, Link] = {}
        self.workers: dict[int, SimulatedWorker] = {}
        self.by_address: dict[str, SimulatedWorker] = {}
        self.clients: list[_Client] = []
        self.attempts: dict[int, int] = {}
        self.delay_s = self.source.choice([0.0001, 0.001, 0.02])
        self.kills = 0
        self.deaths = 0
        self.names: list[str] = []
        self._peers = 0

    def run(self) -> Outcome:
        self.names = [f"n{place}" for place in range(self.source.randint(1, 4))]
        for name in self.names:
            self._add_worker(name)
        for _ in range(self.source.randint(1, 2)):
            self._add_client()
        for _ in range(self.source.choice([0, 0, 1, 2, 5])):
            self.world.later(self.source.uniform(0.0, 2.0), self._kill_one)
        if self.source.random() < 0.3:
            self.world.later(self.source.uniform(0.0, 2.0), self._retire_one)
        while self.world.step():
            if self.world.events > EVENTS_MAX:
                raise InvariantBroken(f"seed {self.seed}: no end after {EVENTS_MAX} events")
        for client in self.clients:
            self._judge(client)
        self._leave()
        futures = sum(len(client.jobs) for client in self.clients)
        return Outcome(self.seed, self.world.trace, self.world.events, futures, self.kills)

    # --- the scheduler's shell --------------------------------------------------------------------

    def _feed(self, event: events.SchedulerEvent) -> None:
        asked = self.scheduler.handle(event, self.world.now)
        invariants.check(self.scheduler)
        self.world.note("scheduler", type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if type(each) is instructions.Send:
                self.links[each.peer].send(each.messages)
            elif type(each) is instructions.Drop:
                raise InvariantBroken(f"seed {self.seed}: peer {each.peer} was dropped: {each.reason}")
            elif type(each) is instructions.Continue:
                self.world.later(0.0, lambda: self._feed(events.Continued()))

    def _next_peer(self) -> int:
        self._peers += 1
        return self._peers

    # --- workers ----------------------------------------------------------------------------------

    def _add_worker(self, name: str) -> None:
        peer = self._next_peer()

        def to_scheduler(batch: list[Any]) -> None:
            self._feed(events.Received(peer, batch))

        up = Link(self.world, to_scheduler, self.delay_s)
        nthreads = self.source.randint(1, 3)
        worker = SimulatedWorker(
            self.world, peer, name, nthreads, up, self.by_address.get, self._end_worker, self.attempts
        )
        self.links[peer] = Link(self.world, worker.receive, self.delay_s)
        self.workers[peer] = worker
        self.by_address[worker.address] = worker
        details = {"resources": worker.resources}
        self._feed(events.WorkerJoined(peer, worker.address, name, worker.nthreads, details))

    def _kill_one(self) -> None:
        alive = list(self.workers.values())
        if alive:
            self.kills += 1
            self._end_worker(self.source.choice(alive))

    def _end_worker(self, worker: SimulatedWorker) -> None:
        worker.alive = False
        self.deaths += not worker.left
        del self.workers[worker.peer]
        self.links[worker.peer].cut = True
        # What it had sent may still arrive before the scheduler sees the connection end.
        self.world.later(self.delay_s * 4, lambda: self._feed(events.WorkerLost(worker.peer)))
        self.world.later(self.source.uniform(0.0, 1.0), lambda: self._add_worker(worker.name))

    def _retire_one(self) -> None:
        if len(self.workers) > 1:
            peer = self.source.choice(list(self.workers))
            self._feed(events.RetirementWanted([peer]))
            self.world.later(0.01, lambda: self._pursue(peer, 100))

    def _pursue(self, peer: int, tries: int) -> None:
        progress = {peer: ""}
        self._feed(events.RetirementPursued(progress))
        if progress[peer] == "done":
            self.links[peer].send([messages.Dismissal("retired")])
        elif progress[peer] in ("running", "copying") and tries:
            self.world.later(0.05, lambda: self._pursue(peer, tries - 1))
        else:
            self._feed(events.RetirementEnded([peer]))

    # --- clients ----------------------------------------------------------------------------------

    def _add_client(self) -> None:
        peer = self._next_peer()
        jobs = random_jobs(self.source, self.source.randint(1, 60), self.names)
        client = _Client(peer, jobs)
        for other in self.clients:
            self._adopt(client, other)
        self.clients.append(client)

        def to_client(batch: list[Any]) -> None:
            self._hear(client, batch)

        self.links[peer] = Link(self.world, to_client, self.delay_s)
        self._feed(events.ClientJoined(peer, f"c{peer}", self.source.choice([1.0, 3.0])))
        up = Link(self.world, lambda batch: self._feed(events.Received(peer, batch)), self.delay_s)
        functions: list[Any] = [[DIGEST, "f", b"body"]]
        jobs = list(client.jobs.values())
        start_s = 0.0
        while jobs:
            size = self.source.randint(1, 20)
            chunk, jobs = jobs[:size], jobs[size:]
            # Later chunks may build on this one: their times only grow.
            start_s += self.source.uniform(0.0, 0.5) if self.source.random() < 0.3 else 0.0
            batch: list[Any] = []
            for job in chunk:
                client.status[job.number] = "pending"
                if job.adopted:
                    batch.append(messages.Wish([[job.number, job.key]]))
                elif job.scattered:
                    batch.append(messages.Scattering([[job.number, None, 8]], None))
                else:
                    batch.append(messages.Submission(functions, [self._task(job)]))
                    functions = []
            self.world.later(start_s, partial(up.send, batch))
        for job in client.jobs.values():
            chance = self.source.random()
            if chance < 0.15 or job.endless:
                self.world.later(start_s + self.source.uniform(0.0, 1.5), partial(self._give_up, client, up, job))

    def _adopt(self, client: _Client, other: _Client) -> None:
        """Let `client` want some of the other's tasks by their keys."""
        for job in list(other.jobs.values()):
            if job.key is not None and not job.hopeless and self.source.random() < 0.3:
                number = len(client.jobs) + 1
                copied = Job(number, job.label, [], key=job.key, adopted=True, expected=job.expected)
                copied.reasons, copied.fragile = job.reasons, job.fragile
                client.jobs[number] = copied

    def _task(self, job: Job) -> list[Any]:
        demand = (job.options or {}).get("resources", {}).get("R", 0.0)
        payload = [job.label, job.kind, job.flakes, demand]
        return [job.number, job.key, DIGEST, payload, job.inputs, self.source.randint(0, 1), job.options]

    def _give_up(self, client: _Client, up: Link, job: Job) -> None:
        if job.number in client.gone:
            return
        client.gone[job.number] = None
        if not job.endless and not job.hopeless and self.source.random() < 0.2:
            up.send([messages.Vow([job.number]), messages.Release([job.number])])
        elif job.endless or self.source.random() < 0.3:
            up.send([messages.Cancellation([job.number], False, "")])
        else:
            up.send([messages.Release([job.number])])

    def _hear(self, client: _Client, batch: list[Any]) -> None:
        for message in batch:
            if type(message) in (messages.Notice, messages.Roster):
                continue
            number = message.number
            if type(message) is messages.Finished:
                client.status[number] = "finished"
                if message.payload is not None:
                    self._expect(client, number, message.payload[0])
            elif type(message) is messages.Failed:
                client.status[number] = "error"
                client.reasons[number] = message.kind
            elif type(message) is messages.Pending:
                client.status[number] = "pending"
            elif type(message) is messages.Cancelled:
                client.status[number] = "cancelled"
            elif type(message) is messages.Placement:
                self._put(client, message)

    def _put(self, client: _Client, message: messages.Placement) -> None:
        worker = self.by_address[message.address]
        value = client.jobs[message.number].expected

        def arrive() -> None:
            if worker.alive:
                worker.data[message.task] = value
                worker.feed(worker_events.DataPut([(message.task, 8)]))

        self.world.later(self.source.uniform(0.0, 0.05), arrive)

    # --- the oracle -------------------------------------------------------------------------------

    def _expect(self, client: _Client, number: int, value: int) -> None:
        if value != client.jobs[number].expected:
            raise InvariantBroken(f"seed {self.seed}: future {number} has the value {value}, which is wrong")

    def _judge(self, client: _Client) -> None:
        for number, job in client.jobs.items():
            status = client.status[number]
            if number in client.gone or status == "cancelled":
                continue
            if status == "pending":
                raise InvariantBroken(f"seed {self.seed}: future {number} is never done")
            reason = client.reasons.get(number)
            if status == "error":
                excused = (
                    reason in job.reasons
                    or (reason == "DataLost" and job.fragile and self.deaths > 0)
                    or (reason == "DataLost" and job.fragile and bool(client.gone))
                    or (reason == "KilledWorker" and self.kills > self.scheduler.settings.allowed_failures)
                )
                if not excused:
                    raise InvariantBroken(f"seed {self.seed}: future {number} failed with {reason} for no reason")
            elif job.reasons:
                raise InvariantBroken(f"seed {self.seed}: future {number} is finished, and should have failed")
            else:
                self._look_up(client, number)
            if not self.deaths and not job.adopted and self.attempts.get(job.label, 0) > 1 + job.flakes:
                raise InvariantBroken(f"seed {self.seed}: future {number} ran twice, and no worker died")

    def _look_up(self, client: _Client, number: int) -> None:
        held = self.scheduler.holders(client.peer, [number])
        if not held:
            raise InvariantBroken(f"seed {self.seed}: future {number} is finished, and nobody holds it")
        _, task, addresses = held[0]
        for address in addresses:
            worker = self.by_address[address]
            if not worker.alive or task not in worker.data:
                raise InvariantBroken(f"seed {self.seed}: {address} should hold task {task}")
            self._expect(client, number, worker.data[task])

    def _leave(self) -> None:
        """All clients go: nothing may stay, neither at the scheduler nor on the workers."""
        for client in self.clients:
            self._feed(events.ClientLost(client.peer))
        while self.world.step():
            pass
        if self.scheduler.ledger.tasks or self.scheduler.ledger.functions:
            raise InvariantBroken(f"seed {self.seed}: the scheduler keeps {self.scheduler.ledger.tasks}")
        for worker in self.workers.values():
            if worker.data or worker.machine.replicas or worker.machine.runs:
                raise InvariantBroken(f"seed {self.seed}: worker {worker.peer} keeps {worker.data}")
