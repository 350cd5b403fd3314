"""Which worker gets a ready task: a pure policy over the ledger.

A task goes where it is expected to start first: after the work that the worker has already, and after the transfer of
the inputs that it lacks. So workers are filled by expected time and not by count, and data moves only where waiting for
its holder would take longer. A worker that ended nothing for longer than its estimates said counts as busy for as long
again: estimates of functions that are new, or whose runs differ, mend themselves.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from itertools import islice

from distributed_core import messages
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Assigned, Held, Ready, Task, TaskOptions
from distributed_core.machines.scheduler.withholding import (
    first_withheld,
    has_space,
    is_large,
    take_first,
    withhold,
)

#: Workers looked at for one task, so that the price of placing it does not grow with the cluster.
CANDIDATES_MAX = 8
#: Addresses of holders that travel with an input.
HOLDERS_MAX = 3
#: A worker that could not fetch an input of a task so often is not tried again before the next check of liveness.
MISSES_MAX = 2


def assign_ready(ledger: Ledger) -> None:
    """Give ready tasks to workers, best priority first within each client, while any worker has room."""
    if ledger.suspects:
        place_suspects(ledger)
    if ledger.retrying:
        place_cut_off(ledger)
    fresh: dict[int, WorkerPeer] = {}
    if ledger.fresh:
        fresh, ledger.fresh = ledger.fresh, {}
        if ledger.parked:
            place_parked(ledger, fresh)
        if ledger.withheld:
            place_withheld(ledger, fresh)
    shares, tasks = ledger.shares, ledger.tasks
    large_bytes = ledger.settings.large_result_bytes_min if ledger.limited else math.inf
    ledger.unsorted = False
    set_aside = 0
    while ledger.open:
        share = shares.turn()
        if share is None:
            break
        _, task_id = heapq.heappop(share.queue)
        task = tasks.get(task_id)
        if task is None or type(task.state) is not Ready:
            continue
        if task.troubles is not None and (task.troubles.suspect or task.id in ledger.cut_off):
            continue
        options = task.options
        if options is None or not (options.workers or options.resources):
            if task.function is None or task.function.nbytes < large_bytes:
                give(ledger, task, choose(ledger, task))
            elif not place_large(ledger, task):
                set_aside += 1
                if set_aside == ledger.settings.withheld_moves_max:
                    ledger.unsorted = True
                    break
            continue
        worker = choose_fitting(ledger, task, options)
        if worker is not None:
            give(ledger, task, worker)
        else:
            heapq.heappush(ledger.parked.setdefault(options, []), (task.priority, task.id))
            warn_unmet(ledger, task, options)
    if ledger.withheld:
        place_on_idle(ledger, ledger.open if set_aside else fresh)


def give(ledger: Ledger, task: Task, worker: WorkerPeer) -> None:
    """Assign the task, at its client's expense."""
    ledger.shares.charge(task.share, ledger.charged_s(ledger.expected_s(task.function)))
    assign(ledger, task, worker)


# --- any worker will do ---------------------------------------------------------------------------


def choose(ledger: Ledger, task: Task) -> WorkerPeer:
    """Return the worker on which `task` is expected to start first."""
    candidates = dict.fromkeys(islice(ledger.open.values(), CANDIDATES_MAX))
    if not task.inputs:
        return min(candidates, key=lambda worker: load_s(ledger, worker)) if len(candidates) > 1 else _only(candidates)
    for each in islice(task.inputs, CANDIDATES_MAX):
        if type(each.state) is Held:
            for holder in islice(each.state.workers, HOLDERS_MAX):
                if not holder.barred:
                    candidates[holder] = None
    if len(candidates) == 1:
        return _only(candidates)
    return min(candidates, key=lambda worker: load_s(ledger, worker) + transfer_s(ledger, task, worker))


def _only(candidates: dict[WorkerPeer, None]) -> WorkerPeer:
    return next(iter(candidates))


def load_s(ledger: Ledger, worker: WorkerPeer) -> float:
    """Return the seconds until `worker` is expected to have a thread for one task more."""
    planned_s = worker.occupancy_s / worker.nthreads
    if worker.active < worker.nthreads:
        return planned_s
    stuck_s = ledger.now - worker.progress_at
    return planned_s if planned_s > stuck_s else stuck_s


def transfer_s(ledger: Ledger, task: Task, worker: WorkerPeer) -> float:
    """Return the seconds that bringing the missing inputs of `task` to `worker` is expected to take."""
    nbytes = missing = 0
    for each in task.inputs:
        if each.id not in worker.held and type(each.state) is Held:
            nbytes += each.state.nbytes
            missing += 1
    if not missing:
        return 0.0
    return ledger.settings.transfer_latency_s + nbytes / ledger.settings.bandwidth_bytes_per_s


# --- large results --------------------------------------------------------------------------------


def place_large(ledger: Ledger, task: Task) -> bool:
    """Give a task with a large result to a worker that has space for it; or withhold it, and return False."""
    assert task.function is not None
    if task.function not in ledger.withheld:
        fitting = (each for each in ledger.open.values() if has_space(ledger, each, task))
        candidates = dict.fromkeys(islice(fitting, CANDIDATES_MAX))
        for each in islice(task.inputs, CANDIDATES_MAX):
            if type(each.state) is Held:
                for holder in islice(each.state.workers, HOLDERS_MAX):
                    if holder.id in ledger.open and has_space(ledger, holder, task):
                        candidates[holder] = None
        if candidates:
            give(ledger, task, _best(ledger, task, candidates))
            return True
    withhold(ledger, task)
    return False


def place_withheld(ledger: Ledger, fresh: dict[int, WorkerPeer]) -> None:
    """Place tasks that waited for memory; `fresh` are the workers that may have some now."""
    placed = True
    while placed:
        placed = False
        for task in first_withheld(ledger):
            fitting = [each for each in fresh.values() if each.id in ledger.open and has_space(ledger, each, task)]
            if fitting:
                take_first(ledger, task)
                give(ledger, task, _best(ledger, task, fitting))
                placed = True


def place_on_idle(ledger: Ledger, workers: dict[int, WorkerPeer]) -> None:
    """Workers that run nothing, after all else was placed, get one withheld task each: so there is always progress.

    Looked at are `workers`: those of which something changed, or all where tasks were withheld just now.
    """
    for worker in [each for each in workers.values() if each.id in ledger.open and not each.active]:
        first = next(iter(first_withheld(ledger)), None)
        if first is None:
            return
        take_first(ledger, first)
        give(ledger, first, worker)


def _best(ledger: Ledger, task: Task, workers: Iterable[WorkerPeer]) -> WorkerPeer:
    return min(workers, key=lambda each: load_s(ledger, each) + transfer_s(ledger, task, each))


# --- demands --------------------------------------------------------------------------------------


def willing(ledger: Ledger, options: TaskOptions) -> list[WorkerPeer]:
    """Return the workers that may run a task of these demands, if not now then when they are free."""
    workers = list(ledger.workers.values())
    if options.workers is not None:
        named = [worker for worker in workers if worker.answers_to(options.workers)]
        if named or not options.loose:
            workers = named
    for name, amount in options.resources:
        workers = [worker for worker in workers if worker.resources.get(name, 0.0) >= amount]
    return workers


def has_free(worker: WorkerPeer, options: TaskOptions | None) -> bool:
    """Tell whether nobody has what the task needs of the worker's resources."""
    if options is None or not options.resources:
        return True
    if worker.lingering and any(each.foreign for each in worker.lingering.values()):
        return False
    return all(worker.free.get(name, 0.0) >= amount for name, amount in options.resources)


def choose_fitting(ledger: Ledger, task: Task, options: TaskOptions) -> WorkerPeer | None:
    """Return the best worker that meets the demands and has room now, or None."""
    fitting = [each for each in willing(ledger, options) if each.id in ledger.open and has_free(each, options)]
    if is_large(ledger, task):
        fitting = [each for each in fitting if not each.active or has_space(ledger, each, task)]
    return min(fitting, key=lambda each: load_s(ledger, each) + transfer_s(ledger, task, each), default=None)


def place_parked(ledger: Ledger, fresh: dict[int, WorkerPeer]) -> None:
    """Place tasks that waited for a worker with what they need; `fresh` are the workers that may have it now."""
    for options, heap in list(ledger.parked.items()):
        if not any(worker.id in ledger.open and has_free(worker, options) for worker in fresh.values()):
            continue
        while heap:
            task = ledger.tasks.get(heap[0][1])
            if task is not None and type(task.state) is Ready and not task.suspect:
                worker = choose_fitting(ledger, task, options)
                if worker is None:
                    break
                give(ledger, task, worker)
            heapq.heappop(heap)
        if not heap:
            del ledger.parked[options]


def warn_unmet(ledger: Ledger, task: Task, options: TaskOptions) -> None:
    """Tell the clients that want the task, once for these demands, that no worker that is there will do."""
    if willing(ledger, options):
        return
    for want in task.wants:
        if want.client.id > 0 and options not in want.client.warned:
            want.client.warned[options] = None
            text = f"{task.name} waits: {unmet(options)}; it runs as soon as there is such a worker"
            ledger.send(want.client.id, messages.Notice("warning", text, None))


def unmet(options: TaskOptions) -> str:
    """Say in words what no worker meets."""
    parts = []
    if options.workers is not None and not options.loose:
        parts.append(f"is called {' or '.join(sorted(options.workers))}")
    if options.resources:
        parts.append("has " + " and ".join(f"{amount:g} {name}" for name, amount in options.resources))
    return "no worker that is registered " + " and ".join(parts or ["may run it"])


# --- inputs that could not be fetched ---------------------------------------------------------------


def place_cut_off(ledger: Ledger) -> None:
    """Place tasks whose inputs could not be fetched; those that no worker is left for wait until all are tried anew."""
    retrying, ledger.retrying = ledger.retrying, {}
    for task in retrying.values():
        if type(task.state) is Ready and not task.suspect:
            worker = choose_reaching(ledger, task)
            if worker is not None:
                give(ledger, task, worker)


def choose_reaching(ledger: Ledger, task: Task) -> WorkerPeer | None:
    """Return a worker that has all inputs, however busy; else one that has room and has not failed to fetch them.

    One that failed once may be given another try at once: not every failure lasts.
    """
    misses, options = task.trouble().misses, task.options
    fitting = None if options is None else dict.fromkeys(willing(ledger, options))

    def may(worker: WorkerPeer) -> bool:
        tried = misses.get(worker.id, 0) < MISSES_MAX
        return tried and (fitting is None or (worker in fitting and has_free(worker, options)))

    first = task.inputs[0].state if task.inputs else None
    holders = [
        each
        for each in (first.workers if type(first) is Held else ())
        if not each.barred and may(each) and all(other.id in each.held for other in task.inputs)
    ]
    if holders:
        return min(holders, key=lambda each: load_s(ledger, each))
    candidates = islice((each for each in ledger.open.values() if may(each)), CANDIDATES_MAX)
    return min(
        candidates,
        key=lambda each: (misses.get(each.id, 0), load_s(ledger, each) + transfer_s(ledger, task, each)),
        default=None,
    )


# --- suspects run alone ---------------------------------------------------------------------------


def place_suspects(ledger: Ledger) -> None:
    """Give each suspect a worker of its own, and keep busy workers free of new work until there are enough."""
    for task_id in list(ledger.suspects):
        task = ledger.suspects[task_id]
        if type(task.state) is not Ready:
            del ledger.suspects[task_id]
            continue
        options = task.options
        fitting = list(ledger.workers.values()) if options is None else willing(ledger, options)
        misses = task.trouble().misses
        fitting = [each for each in fitting if not (each.alone or each.retiring or each.shut)]
        fitting = [each for each in fitting if misses.get(each.id, 0) < MISSES_MAX]
        idle = [worker for worker in fitting if not worker.active and has_free(worker, options)]
        if idle:
            worker = min(idle, key=lambda each: transfer_s(ledger, task, each))
            del ledger.suspects[task_id]
            worker.reserved = False
            worker.alone = task.id
            give(ledger, task, worker)
        elif not _reserve(ledger, fitting):
            break
    if not ledger.suspects:
        for worker in ledger.workers.values():
            if worker.reserved:
                worker.reserved = False
                ledger.review(worker)


def _reserve(ledger: Ledger, fitting: list[WorkerPeer]) -> bool:
    """Let one more worker run empty; return False where enough do."""
    most = max(1, int(len(ledger.workers) * ledger.settings.reserved_workers_fraction))
    if sum(worker.reserved for worker in ledger.workers.values()) >= most:
        return False
    free = [worker for worker in fitting if not worker.reserved]
    if free:
        worker = min(free, key=lambda each: load_s(ledger, each))
        worker.reserved = True
        ledger.review(worker)
    return True


# --- the assignment itself ------------------------------------------------------------------------


def assign(ledger: Ledger, task: Task, worker: WorkerPeer) -> None:
    """Tell `worker` to run `task`, and the function first if it is new there."""
    function = task.function
    assert function is not None and task.payload is not None
    run = ledger.next_run_id()
    assigned = Assigned(worker, run, ledger.expected_s(function), ledger.now)
    if worker.limit_bytes and function.nbytes >= ledger.settings.large_result_bytes_min:
        assigned.expected_bytes = int(function.nbytes)
    ledger.move(task, assigned)
    if function.id not in worker.functions:
        worker.functions[function.id] = None
        ledger.send(worker.id, messages.FunctionBody(function.id, function.name, function.body))
    inputs = [_locate(each, worker) for each in task.inputs] if task.inputs else []
    timeout_s = 0.0
    if task.options is not None:
        timeout_s = task.options.timeout_s
        if task.options.places:
            inputs = [inputs[place] for place in task.options.places]
    ledger.send(worker.id, messages.Assignment(task.id, run, function.id, task.payload, inputs, timeout_s))


def _locate(task: Task, worker: WorkerPeer) -> list[object]:
    state = task.state
    assert type(state) is Held
    if worker in state.workers:
        return [task.id, state.nbytes, []]
    return [task.id, state.nbytes, holders_of(state)]


def holders_of(state: Held) -> list[str]:
    """Return the addresses that travel with an input."""
    return [holder.address for holder in state.workers[:HOLDERS_MAX]]
