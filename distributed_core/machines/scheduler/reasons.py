"""Why a task is where it is: read from the ledger, in words."""

from __future__ import annotations

from typing import Any

from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.placement import has_free, unmet, willing
from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Erred,
    Held,
    Ready,
    Released,
    Task,
    TaskOptions,
    Waiting,
)

NAMES_MAX = 3
DEPTH_MAX = 100


def explain(ledger: Ledger, key: str) -> str:
    """Say in a sentence or two why the task of that name is where it is, or why it waits."""
    task = ledger.find(key)
    if task is None:
        return (
            f"no task is named {key:.200} here: it was never submitted to this scheduler, or all its futures were "
            "released or cancelled, and nothing that is wanted needs it"
        )
    return explain_task(ledger, task)


def explain_task(ledger: Ledger, task: Task) -> str:
    """Say the same of a task that is at hand."""
    return f"{task.name} {_where(ledger, task)}"


def _where(ledger: Ledger, task: Task) -> str:
    state = task.state
    if type(state) is Waiting:
        return _waits(ledger, task)
    if type(state) is Ready:
        return _ready(ledger, task)
    if type(state) is Assigned:
        return _assigned(ledger, task, state)
    if type(state) is Held:
        where = _some([worker.address for worker in state.workers])
        return f"is done: its result of {state.nbytes} bytes is on {where}"
    if type(state) is Erred:
        return f"has failed ({state.reason.kind}): {state.reason.text}"
    if type(state) is Arriving:
        where = state.worker.address if state.worker is not None else "a worker"
        return f"is data that a client is bringing to {where}"
    if type(state) is Released:
        return "is not computed: nobody holds a future of it, and nothing that is wanted needs it now"
    return "is forgotten"


def _waits(ledger: Ledger, task: Task) -> str:
    missing = [each for each in task.inputs if type(each.state) is not Held]
    # The way down to what holds it up.
    at = missing[0]
    for _ in range(DEPTH_MAX):
        deeper = [each for each in at.inputs if type(each.state) is not Held] if type(at.state) is Waiting else []
        if not deeper:
            break
        at = deeper[0]
    count = f"{len(missing)} of its {len(task.inputs)} inputs"
    return f"waits for {count}: {_some([each.name for each in missing])}. Of these {at.name} {_where_short(ledger, at)}"


def _where_short(ledger: Ledger, task: Task) -> str:
    return "waits in turn" if type(task.state) is Waiting else _where(ledger, task)


def _ready(ledger: Ledger, task: Task) -> str:
    if not ledger.workers:
        return "is ready, and there is no worker; start one"
    options = task.options
    if options is not None and (options.workers or options.resources):
        demanding = _demanding(ledger, task, options)
        if demanding:
            return demanding
    if task.suspect:
        return (
            f"is to run alone, because {task.trouble().deaths} workers died that may have been running it; it waits "
            "until a worker has nothing else to do"
        )
    if task.function is not None and ledger.withheld.get(task.function):
        return (
            f"is ready and waits for memory: results of this function take about {task.function.nbytes:.0f} bytes, and "
            "every worker that could run it now holds or will hold enough for its limit (--memory-limit)"
        )
    paused = [worker.name for worker in ledger.workers.values() if worker.paused]
    if len(paused) == len(ledger.workers):
        return f"is ready, and every worker is paused, because its process takes most of its memory ({_some(paused)})"
    front = sum(len(client.share.queue) for client in ledger.clients.values())
    return (
        f"is ready and waits for its turn: all {len(ledger.workers)} workers have enough to do for now, and about "
        f"{front} tasks are ready"
    )


def _demanding(ledger: Ledger, task: Task, options: TaskOptions) -> str:
    able = willing(ledger, options)
    if not able:
        return f"waits: {unmet(options)}; it runs as soon as there is such a worker"
    where = _some([worker.name for worker in able])
    if not any(has_free(worker, options) for worker in able):
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in options.resources)
        return f"waits for {wanted}: other runs have it on the workers that could run it ({where})"
    if not any(worker.id in ledger.open for worker in able):
        return f"waits for the workers that may run it ({where}), which have enough to do for now"
    return ""


def _assigned(ledger: Ledger, task: Task, state: Assigned) -> str:
    worker = state.worker
    ago = f"{ledger.now - state.since:.1f} s ago"
    place = list(worker.assigned).index(task.id)
    if state.seceded:
        return f"runs on {worker.address}, which got it {ago}; it gave up its thread to wait for other tasks"
    if task.id == worker.alone:
        return f"runs alone on {worker.address}, which got it {ago}, because workers died that may have been running it"
    if place < worker.nthreads + worker.seceded:
        lacking = [each.name for each in task.inputs if each.id not in worker.held]
        fetching = f" once it has fetched {_some(lacking)}" if lacking else ""
        return f"runs on {worker.address}{fetching}, which got it {ago}"
    asked = "; another worker is idle, so it was asked for it back" if state.recalled else ""
    return f"waits on {worker.address}, which got it {ago}, behind {place} other tasks{asked}"


def story(ledger: Ledger, key: str) -> list[list[Any]]:
    """Return what the log remembers of a task: `[time in seconds, what it became, where]`, oldest first."""
    task = ledger.find(key)
    if task is None:
        return []
    return [[at, became, where] for at, number, became, where in ledger.log if number == task.id]


def whole_state(ledger: Ledger) -> dict[str, Any]:
    """Return all books as plain data, for people who look for what went wrong; nothing of the user's is in it."""
    return {
        "now": ledger.now,
        "workers": {
            worker.address: {
                "id": worker.id,
                "name": worker.name,
                "nthreads": worker.nthreads,
                "assigned": list(worker.assigned),
                "held": list(worker.held),
                "lingering": list(worker.lingering),
                "copying": list(worker.copying),
                "resources": worker.resources,
                "free": worker.free,
                "occupancy_s": worker.occupancy_s,
                "open": worker.id in ledger.open,
                "retiring": worker.retiring,
                "paused": worker.paused,
                "nbytes": worker.nbytes,
                "expected_bytes": worker.expected_bytes,
                "spilled_bytes": worker.spilled_bytes,
                "memory_limit_bytes": worker.limit_bytes,
                "reserved": worker.reserved,
                "alone": worker.alone,
                "last_seen": worker.last_seen,
            }
            for worker in ledger.workers.values()
        },
        "clients": {client.name: {"futures": len(client.tasks)} for client in ledger.clients.values()},
        "tasks": {
            task.id: {
                "name": task.name,
                "state": type(task.state).__name__,
                "where": _where(ledger, task) if type(task.state) is not Waiting else "",
                "inputs": [each.id for each in task.inputs],
                "wants": len(task.wants),
                "needed": task.needed,
                "priority": -task.priority,
                "deaths": task.troubles.deaths if task.troubles is not None else 0,
            }
            for task in ledger.tasks.values()
        },
        "log": [list(line) for line in ledger.log],
    }


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_MAX])
    return shown if len(names) <= NAMES_MAX else f"{shown} and {len(names) - NAMES_MAX} more"
