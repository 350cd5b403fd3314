"""The smallest scenario that still fails in the same way: delta debugging (Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from distributed_core.errors import InvariantBroken
from distributed_core.sim.run import run
from distributed_core.sim.scenario import Act, ClientShape, Scenario

RUNS_MAX = 3000


def failure_of(scenario: Scenario) -> str | None:
    """Run a scenario; return how it fails, without the numbers in it, or None if it does not.

    An error of a machine counts as well as what the oracle says.
    """
    try:
        run(deepcopy(scenario))
    except InvariantBroken as error:
        return signature(error)
    except Exception as error:  # a machine that stumbles is a failure like another
        return signature(error)
    return None


def signature(error: Exception) -> str:
    """Return the kind of a failure: what stays the same when parts of its scenario are left out."""
    text = re.sub(r"<Task[^>]*>|<Worker[^>]*>|\[.*\]|worker-[\d:]+", "*", str(error).partition(": ")[2] or str(error))
    return f"{type(error).__name__}: {re.sub(r'[cnx]?[0-9]+', '#', text):.100}"


def reduced(scenario: Scenario, *, runs_max: int = RUNS_MAX, tell: Callable[[str], None] = lambda _: None) -> Scenario:
    """Return the smallest scenario found that fails as this one does.

    Parameters
    ----------
    runs_max
        How many worlds to try at most.
    tell
        Called with a line of progress now and then.

    Raises
    ------
    ValueError
        It does not fail at all.
    """
    wanted = failure_of(scenario)
    if wanted is None:
        raise ValueError("this scenario does not fail")
    tried = 0

    def fails(candidate: Scenario) -> bool:
        nonlocal tried
        if tried >= runs_max or not candidate.sensible():
            return False
        tried += 1
        return failure_of(candidate) == wanted

    best, size = scenario, -1
    while size != measure(best) and tried < runs_max:
        size = measure(best)
        for name, (parts, without) in _KINDS.items():
            best = _minimized(best, parts, without, fails)
            tell(f"{tried} worlds tried: {measure(best)} parts are left (last: {name})")
        for simpler in _simplified(best):
            if fails(simpler):
                best = simpler
    return best


def measure(scenario: Scenario) -> int:
    """Return of how many parts a scenario is made."""
    clients = sum(1 + len(each.jobs) + len(each.chunks) + len(each.acts) for each in scenario.clients)
    return len(scenario.workers) + clients + len(scenario.faults)


def _minimized(
    scenario: Scenario,
    parts: Callable[[Scenario], list[Any]],
    without: Callable[[Scenario, list[Any]], Scenario],
    fails: Callable[[Scenario], bool],
) -> Scenario:
    """Leave out as many parts of one kind as possible: halves first, then ever smaller pieces."""
    piece = max(1, len(parts(scenario)) // 2)
    while True:
        at, shrunk = 0, False
        while at < len(present := parts(scenario)):
            candidate = without(scenario, present[at : at + piece])
            if fails(candidate):
                scenario, shrunk = candidate, True
            else:
                at += piece
        if piece == 1 and not shrunk:
            return scenario
        piece = max(1, piece // 2)


# --- parts of a scenario --------------------------------------------------------------------------


def _places(items: list[Any]) -> list[int]:
    return list(range(len(items)))


def _rest(items: list[Any], gone: list[int]) -> list[Any]:
    return [each for place, each in enumerate(items) if place not in gone]


def _without_faults(scenario: Scenario, gone: list[int]) -> Scenario:
    made = deepcopy(scenario)
    made.faults = _rest(made.faults, gone)
    return made


def _without_clients(scenario: Scenario, gone: list[int]) -> Scenario:
    made = deepcopy(scenario)
    made.clients = _rest(made.clients, gone)
    return _settled(made)


def _without_workers(scenario: Scenario, gone: list[int]) -> Scenario:
    made = deepcopy(scenario)
    made.workers = _rest(made.workers, gone)
    names = (
        {worker.name for worker in made.workers} | {f"c{place}" for place in range(len(made.clients))} | {"scheduler"}
    )
    made.faults = [fault for fault in made.faults if names.issuperset(fault.names)]
    return made


def _jobs_of(scenario: Scenario) -> list[tuple[int, int]]:
    return [(place, job.number) for place, client in enumerate(scenario.clients) for job in reversed(client.jobs)]


def _without_jobs(scenario: Scenario, gone: list[tuple[int, int]]) -> Scenario:
    made = deepcopy(scenario)
    for place, client in enumerate(made.clients):
        client.jobs = [job for job in client.jobs if (place, job.number) not in gone]
    return _settled(made)


def _acts_of(scenario: Scenario) -> list[tuple[int, int]]:
    return [(place, at) for place, client in enumerate(scenario.clients) for at in _places(client.acts)]


def _without_acts(scenario: Scenario, gone: list[tuple[int, int]]) -> Scenario:
    made = deepcopy(scenario)
    for place, client in enumerate(made.clients):
        client.acts = _rest(client.acts, [at for where, at in gone if where == place])
    return made


_KINDS: dict[str, tuple[Callable[[Scenario], list[Any]], Callable[[Scenario, list[Any]], Scenario]]] = {
    "clients": (lambda scenario: _places(scenario.clients), _without_clients),
    "faults": (lambda scenario: _places(scenario.faults), _without_faults),
    "jobs": (_jobs_of, _without_jobs),
    "workers": (lambda scenario: _places(scenario.workers), _without_workers),
    "acts": (_acts_of, _without_acts),
}


def _settled(scenario: Scenario) -> Scenario:
    """Take away what refers to jobs that are gone."""
    keys: set[str | None] = set()
    for client in scenario.clients:
        client.jobs = [job for job in client.jobs if not job.adopted or job.key in keys]
        keys |= {job.key for job in client.jobs}
        _settle_client(client)
    return scenario


def _settle_client(client: ClientShape) -> None:
    there = {job.number for job in client.jobs}
    for job in client.jobs:
        job.inputs = [each for each in job.inputs if each in there]
    chunks = [(at_s, [each for each in numbers if each in there]) for at_s, numbers in client.chunks]
    client.chunks = [chunk for chunk in chunks if chunk[1]]
    acts = [Act(act.at_s, act.word, [each for each in act.numbers if each in there]) for act in client.acts]
    client.acts = [act for act in acts if act.numbers]


def _simplified(scenario: Scenario) -> list[Scenario]:
    """Return it with plainer values: one chunk for each client, no skew, no options."""
    found = []
    for place, client in enumerate(scenario.clients):
        if len(client.chunks) > 1:
            made = deepcopy(scenario)
            made.clients[place].chunks = [(client.chunks[0][0], [each for _, part in client.chunks for each in part])]
            found.append(made)
        for at, job in enumerate(client.jobs):
            if job.options and not job.flakes and "timeout_s" not in job.options:
                made = deepcopy(scenario)
                made.clients[place].jobs[at].options = None
                found.append(made)
    made = deepcopy(scenario)
    made.scheduler_offset_s, made.scheduler_rate = 0.0, 1.0
    for worker in made.workers:
        worker.offset_s, worker.rate = 0.0, 1.0
    for client in made.clients:
        client.offset_s, client.rate = 0.0, 1.0
    if made != scenario:
        found.append(made)
    return found
