"""Data that moves without a run that needs it: replicas, rebalancing, and workers that retire without losing any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distributed_core import messages
from distributed_core.machines.scheduler import stealing, transitions
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.placement import holders_of
from distributed_core.machines.scheduler.tasks import Assigned, Held, Task

#: Rebalancing stops when no worker is further from the mean than this part of it.
UNEVEN_FRACTION = 0.05


def copy(ledger: Ledger, task: Task, target: WorkerPeer) -> None:
    """Tell `target` to fetch the data of `task`, unless it has it or is about to."""
    state = task.state
    if type(state) is Held and target not in state.workers and task.id not in target.copying and not _fixed(task):
        target.copying[task.id] = task
        ledger.send(target.id, messages.Acquisition([[task.id, state.nbytes, holders_of(state)]]))


def plan_replicas(
    ledger: Ledger, tasks: Iterable[Task], n: int | None, workers: Sequence[WorkerPeer]
) -> list[tuple[Task, WorkerPeer]]:
    """Return which data is to go where, so that `n` of `workers` (None: all of them) hold each task's."""
    planned: dict[WorkerPeer, int] = {}
    pairs = []
    for task in tasks:
        state = task.state
        if type(state) is not Held or _fixed(task):
            continue
        lacking = [each for each in workers if each not in state.workers and not each.retiring]
        wanted = len(lacking) if n is None else n - sum(each in state.workers for each in workers)
        # Paused ones last: they have little memory left.
        order = sorted(lacking, key=lambda each: (each.paused, each.nbytes + planned.get(each, 0)))
        for target in order[: max(0, wanted)]:
            planned[target] = planned.get(target, 0) + state.nbytes
            pairs.append((task, target))
    return pairs


def plan_balance(
    ledger: Ledger, tasks: Iterable[Task] | None, workers: Sequence[WorkerPeer]
) -> list[tuple[Task, WorkerPeer, WorkerPeer]]:
    """Return (task, from, to), largest first, that bring the bytes of `workers` close to their mean."""
    if len(workers) < 2:
        return []
    nbytes = {worker: worker.nbytes for worker in workers}
    mean = sum(nbytes.values()) / len(nbytes)
    chosen = None if tasks is None else {task.id for task in tasks}
    moves = []
    for source in sorted(workers, key=lambda each: -nbytes[each]):
        movable = [each for each in source.held.values() if _movable(each) and (chosen is None or each.id in chosen)]
        for task in sorted(movable, key=lambda each: -_nbytes(each)):
            target = min(nbytes, key=lambda each: nbytes[each])
            size = _nbytes(task)
            if nbytes[source] - mean <= mean * UNEVEN_FRACTION:
                break
            # A move must bring both closer to the mean, or the whole would swing.
            if nbytes[target] + size < nbytes[source] and task.id not in target.held:
                nbytes[source] -= size
                nbytes[target] += size
                moves.append((task, source, target))
    return moves


def begin_retirement(ledger: Ledger, worker: WorkerPeer) -> None:
    """Give `worker` nothing more, and take back what it did not start."""
    if worker.retiring:
        return
    worker.retiring = True
    ledger.review(worker)
    running = worker.nthreads
    for place, task in enumerate(list(worker.assigned.values())):
        state = task.state
        if place >= running and type(state) is Assigned and not state.recalled and not state.started:
            stealing.recall(ledger, task, None)


def end_retirement(ledger: Ledger, worker: WorkerPeer) -> None:
    """`worker` stays after all."""
    worker.retiring = False
    ledger.review(worker)


def pursue_retirement(ledger: Ledger, worker: WorkerPeer) -> str:
    """Bring away what only retiring workers hold.

    Returns
    -------
    str
        `running`, `copying` or `done`; else a sentence that says why it cannot go.
    """
    others = [each for each in ledger.workers.values() if not each.retiring]
    moving = 0
    for task in list(worker.held.values()):
        state = task.state
        assert type(state) is Held
        if not all(holder.retiring for holder in state.workers):
            continue
        if _fixed(task):
            return f"it holds the actor {task.name}, which cannot move; release that first"
        if not others:
            return "it holds data that no other worker is there to take; start another worker first"
        moving += 1
        if not any(task.id in each.copying for each in others):
            copy(ledger, task, min(others, key=lambda each: (each.paused, each.nbytes)))
    if worker.arriving:
        moving += 1
    if worker.assigned or worker.lingering:
        return "running"
    return "copying" if moving else "done"


def drop_replica(ledger: Ledger, task: Task, worker: WorkerPeer) -> None:
    """Let `worker` forget its copy, if it is not the only one."""
    state = task.state
    if type(state) is Held and worker in state.workers and len(state.workers) > 1:
        ledger.send(worker.id, messages.Disposal([task.id]))
        transitions.lose_replica(ledger, task, worker)


def _fixed(task: Task) -> bool:
    return task.options is not None and task.options.actor


def _movable(task: Task) -> bool:
    return type(task.state) is Held and len(task.state.workers) == 1 and not _fixed(task) and not task.needed


def _nbytes(task: Task) -> int:
    return task.state.nbytes if type(task.state) is Held else 0
