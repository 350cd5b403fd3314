"""A seed's scenario: plain data that says all of a world but its small delays, which come from the seed too."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

from distributed_core.sim.workload import Job, derive, random_jobs

SILENCE_MAX_S = 1.5
"""After so long without a heartbeat a simulated worker is given up."""
FALSIFIED_FRACTION = 0.08
LONG_S = 1.0
"""A pause or partition of this length may be taken for the end."""


@dataclass(slots=True)
class WorkerShape:
    """A worker: under a nanny it is kept alive by that, else another one comes for it some time after its end."""

    name: str
    nthreads: int
    nanny: bool = True
    joins_s: float = 0.0
    resources: float = 0.0
    """Amount of the resource R."""
    delay_s: float = 0.001
    jitter: float = 3.0
    offset_s: float = 0.0
    rate: float = 1.0


@dataclass(slots=True)
class Act:
    """What a client does with its futures, beside making them: release, cancel, vow (and release), retry."""

    at_s: float
    word: str
    numbers: list[int]


@dataclass(slots=True)
class ClientShape:
    """A client, the jobs that it submits, and in which chunks."""

    jobs: list[Job]
    chunks: list[tuple[float, list[int]]]
    acts: list[Act] = field(default_factory=list)
    weight: float = 1.0
    delay_s: float = 0.001
    jitter: float = 3.0
    leaves_s: float = 0.0
    """When its connection ends; 0 is after all is done."""
    offset_s: float = 0.0
    rate: float = 1.0


@dataclass(slots=True)
class Mishap:
    """Something that goes wrong at a time; `names` are workers, clients, or `scheduler`. See `faults.FAULTS`."""

    at_s: float
    kind: str
    names: list[str]
    for_s: float = 0.0


@dataclass(slots=True)
class Scenario:
    """All that `run` needs to know."""

    seed: int
    workers: list[WorkerShape]
    clients: list[ClientShape]
    faults: list[Mishap]
    scheduler_offset_s: float = 0.0
    scheduler_rate: float = 1.0

    def derived(self) -> Scenario:
        """Return it with what its jobs must give worked out."""
        derive(client.jobs for client in self.clients)
        return self

    def sensible(self) -> bool:
        """Tell whether all that it wants can be had: a task that nobody can run waits for ever, and rightly so."""
        names = {worker.name for worker in self.workers if not worker.joins_s}
        most = max((worker.resources for worker in self.workers), default=0.0)
        keys: set[str | None] = set()
        for client in self.clients:
            ended = {each for act in client.acts if act.word in ("cancel", "release") for each in act.numbers}
            for job in client.jobs:
                options = job.options or {}
                wanted = options.get("workers")
                if wanted is not None and not options.get("loose") and not names.intersection(wanted):
                    return False
                if options.get("resources", {}).get("R", 0.0) > most or (job.endless and job.number not in ended):
                    return False
                if job.adopted and job.key not in keys:
                    return False
            keys |= {job.key for job in client.jobs if not job.adopted}
        return bool(names)


def expand(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    source = random.Random(f"scenario {seed}")
    delay_s = source.choice([0.0001, 0.001, 0.02])
    skewed = source.random() < 0.3
    nannies = source.random() < 0.7
    workers = []
    for place in range(source.randint(1, 4)):
        shape = WorkerShape(f"n{place}", source.randint(1, 3), nannies or source.random() < 0.5)
        shape.resources = 0.0 if place else 2.0
        shape.delay_s = delay_s * source.choice([1.0, 1.0, 1.0, 10.0]) if delay_s < 0.02 else delay_s
        shape.jitter = source.choice([1.0, 3.0, 10.0])
        if skewed:
            shape.offset_s, shape.rate = _clock(source)
        workers.append(shape)
    names = [worker.name for worker in workers]
    stubborn = all(worker.nanny for worker in workers)
    clients: list[ClientShape] = []
    for _ in range(source.randint(1, 2)):
        clients.append(_client(source, names, clients, delay_s, stubborn))
    if source.random() < 0.1:
        _add_regrets(source, clients[0], delay_s)
    scenario = Scenario(seed, workers, clients, _faults(source, workers))
    _falsify(random.Random(f"{seed} falsify"), scenario)
    if skewed:
        scenario.scheduler_offset_s, scenario.scheduler_rate = _clock(source)
    if len(clients) > 1 and source.random() < 0.15:
        client = clients[source.randrange(2)]
        if not any(job.endless for job in client.jobs):  # nobody would ever end them
            client.leaves_s = round(source.uniform(0.15, 1.5), 4)
    _lose_connections(random.Random(f"connections {seed}"), scenario, skewed)
    return scenario


#: What may happen to the connections of clients and workers, how often beside each other, and for how long.
_LOSSES: dict[str, tuple[int, float, float]] = {
    "crash": (6, 0.005, 1.0),
    "reset": (3, 0.0, 0.0),
    "unseen": (3, 0.02, 1.2),
    "unaware": (3, 0.02, 1.2),
    "silence": (1, 0.05, 0.8),
    "pause": (1, 0.05, 0.8),
    "absent": (2, 0.3, 6.0),
}


def _lose_connections(source: random.Random, scenario: Scenario, skewed: bool) -> None:
    """Add the loss of connections, and of schedulers, to a part of the worlds; some have nothing else."""
    style = source.choice(["", "", "", "", "mixed", "mixed", "mixed", "crashes", "crashes", "doom"])
    # Nobody interrupts what runs for a client whose connection ends: what never ends would keep its thread.
    clients = [
        f"c{place}"
        for place, client in enumerate(scenario.clients)
        if not any(job.endless or job.hopeless for job in client.jobs)
    ]
    workers = [worker.name for worker in scenario.workers]
    if skewed:
        for client in scenario.clients:
            client.offset_s, client.rate = _clock(source)
    if style == "crashes":
        # With nothing else, so that what runs twice shows.
        scenario.faults = [fault for fault in scenario.faults if fault.kind == "slow"]
        for _ in range(source.choice([1, 1, 2, 3])):
            for_s = round(source.choice([0.005, 0.05, 0.8]) * source.uniform(1.0, 2.0), 4)
            scenario.faults.append(Mishap(round(source.uniform(0.1, 2.5), 4), "crash", ["scheduler"], for_s))
    elif style == "mixed":
        kinds = [kind for kind, (often, _, _) in _LOSSES.items() for _ in range(often)]
        for _ in range(source.choice([1, 2, 3, 5])):
            kind = source.choice(kinds)
            _, least, most = _LOSSES[kind]
            if kind == "crash" or (kind == "absent" and not clients):
                kind, names = "crash", ["scheduler"]
            elif clients and (kind == "absent" or source.random() < 0.6):
                names = [source.choice(clients)]
            else:
                names = [source.choice(workers)]
            at_s, for_s = round(source.uniform(0.1, 2.5), 4), round(source.uniform(least, most), 4)
            scenario.faults.append(Mishap(at_s, kind, names, for_s))
    elif style == "doom":
        scenario.faults.append(Mishap(round(source.uniform(0.1, 2.0), 4), "doom", ["scheduler"]))


def _falsify(source: random.Random, scenario: Scenario) -> None:
    """Add wrong books to some worlds; the others stay what they were."""
    if source.random() < FALSIFIED_FRACTION:
        name = source.choice(scenario.workers).name
        scenario.faults.append(Mishap(round(source.uniform(0.2, 2.0), 4), "falsify", [name]))


def _clock(source: random.Random) -> tuple[float, float]:
    return source.choice([-1e4, 0.0, 3.5, 1.7e9]), source.choice([0.9, 0.999, 1.0, 1.1])


def _client(
    source: random.Random, names: list[str], others: list[ClientShape], delay_s: float, stubborn: bool
) -> ClientShape:
    jobs = random_jobs(source, source.randint(1, 60), names, stubborn=stubborn)
    derive([jobs])
    for other in others:
        for job in other.jobs:
            if job.key is not None and not job.hopeless and source.random() < 0.3:
                jobs.append(Job(len(jobs) + 1, job.label, [], key=job.key, adopted=True))
    client = ClientShape(jobs, [], weight=source.choice([1.0, 3.0]), delay_s=delay_s)
    client.jitter = source.choice([1.0, 3.0, 10.0])
    rest = [job.number for job in jobs]
    start_s = 0.0
    while rest:
        size = source.randint(1, 20)
        start_s += source.uniform(0.0, 0.5) if source.random() < 0.3 else 0.0
        client.chunks.append((round(start_s, 4), rest[:size]))
        rest = rest[size:]
    for job in jobs:
        if source.random() < 0.15 or job.endless:
            client.acts.append(_farewell(source, job, start_s))
        elif job.kind == "bad" and source.random() < 0.3:
            client.acts.append(Act(round(start_s + source.uniform(0.05, 1.0), 4), "retry", [job.number]))
    return client


def _farewell(source: random.Random, job: Job, start_s: float) -> Act:
    at_s = round(start_s + source.uniform(0.0, 1.5), 4)
    if not job.endless and not job.hopeless and source.random() < 0.2:
        return Act(at_s, "vow", [job.number])
    word = "cancel" if job.endless or source.random() < 0.3 else "release"
    return Act(at_s, word, [job.number])


def _add_regrets(source: random.Random, client: ClientShape, delay_s: float) -> None:
    """Add runs that are withdrawn and asked for anew while their reports are under way, so that old run ids come in."""
    first = len(client.jobs) + 1
    shared = Job(first, 999_999 * 128 + first, [])
    users = [Job(first + place, (1_000_000 + place) * 128 + first, [first], kind="bad") for place in range(1, 7)]
    client.jobs += [shared, *users]
    client.chunks.append((client.chunks[-1][0], [job.number for job in [shared, *users]]))
    at_s = client.chunks[-1][0] + source.uniform(1.0, 2.0)
    # Nobody but its failed users knows it now: each retry makes it anew.
    client.acts.append(Act(round(at_s - 0.3, 4), "release", [first]))
    for one, two in pairwise(users):
        client.acts.append(Act(round(at_s, 6), "retry", [one.number]))
        gone_s = at_s + source.uniform(0.0, 3.0) * delay_s
        client.acts.append(Act(round(gone_s, 6), "release", [one.number]))
        at_s = gone_s + source.uniform(0.0, 1.0) * delay_s
        client.acts.append(Act(round(at_s, 6), "retry", [two.number]))
        at_s += source.choice([0.0, 0.5])


#: Kinds of faults, how often they come beside each other, and how long they last.
_LENGTHS: dict[str, tuple[int, float, float]] = {
    "kill": (6, 0.0, 0.0),
    "memory": (1, 0.0, 0.0),
    "restart": (1, 0.0, 0.0),
    "stop": (1, 0.0, 0.0),
    "retire": (2, 0.0, 0.0),
    "join": (2, 0.0, 0.0),
    "copy": (2, 0.0, 0.0),
    "thin": (1, 0.0, 0.0),
    "pause": (3, 0.01, 0.8),
    "freeze": (1, 2.8, 3.5),
    "slow": (2, 0.1, 1.0),
    "silence": (2, 0.05, 0.8),
    "divide": (1, 2.8, 3.5),
    "apart": (2, 0.05, 1.0),
    "estrange": (1, 0.05, 1.0),
    "reset": (1, 0.0, 0.0),
}


def _faults(source: random.Random, workers: list[WorkerShape]) -> list[Mishap]:
    names = [worker.name for worker in workers]
    found: list[Mishap] = []
    kinds = [kind for kind, (often, _, _) in _LENGTHS.items() for _ in range(often)]
    for place in range(source.choice([0, 0, 1, 2, 4, 8])):
        kind = source.choice(kinds)
        chosen = [source.choice(names)]
        if kind in ("apart", "estrange"):
            if len(names) < 2:
                continue
            chosen = source.sample(names, 2)
        elif kind in ("pause", "freeze") and source.random() < 0.25:
            chosen = ["scheduler"]
        elif kind == "join":
            chosen = [f"x{place}"]
            joins_s = round(source.uniform(0.01, 2.0), 4)
            workers.append(WorkerShape(chosen[0], source.randint(1, 3), True, joins_s, delay_s=workers[0].delay_s))
            continue
        _, least, most = _LENGTHS[kind]
        at_s = round(source.uniform(0.0, 2.0) ** 1.5, 4)
        found.append(Mishap(at_s, kind, chosen, round(source.uniform(least, most), 4)))
    return found
