"""What the scheduler and a worker believe of each other, compared and mended.

A worker's heartbeat brings a tally: how many messages of the scheduler it had applied, and sums over what it holds,
what it runs and what lingers. Where nothing was under way to it, both sides must believe the same. Where they do not,
where what was sent before the last heartbeat is not applied at this one, or where something was under way at two in a
row, the worker is asked for its inventory. What is under way
while that is made looks like a difference too; so it is asked twice, and only what differs both times is mended:

- data that is not there counts as lost: another holder serves, or the task runs again;
- data of which nobody knew is taken, if a task wants it, or disposed of;
- a run that is not there is over: with its data, if that is there, else the task is queued again;
- a run that nobody counts is withdrawn.

The states of tasks are what the scheduler goes by: the books of the worker are made anew from them first. Only those
tasks are looked at that are in the books or in the inventory: all tasks of the scheduler may be a million, and each
worker may have its audit every other second while it is busy.
"""

from __future__ import annotations

from typing import Any

from distributed_core import messages
from distributed_core.ids import RunId, TaskId
from distributed_core.machines.scheduler import recovery, transitions
from distributed_core.machines.scheduler.checking import Misbehaved, checked, numbers_of
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import Lingering, WorkerPeer
from distributed_core.machines.scheduler.tasks import Assigned, Held, Task
from distributed_core.machines.sums import summed

#: Of one worker no more is taken in for an audit than this: it would be no inventory.
ITEMS_MAX = 50_000_000
#: Stands for the run of a task that is in a worker's books and not assigned: no run has this number.
_ODD = -1


def on_tally(ledger: Ledger, worker: WorkerPeer, message: messages.Tally) -> None:
    """Compare what a worker believes with the books; ask for more where they differ, or cannot be compared."""
    view = worker.view
    if worker.returning or ledger.recovery is not None or view.serial:
        return
    sent_before, view.sent_at_tally = view.sent_at_tally, view.sent
    if message.applied != view.sent:
        view.unsure += 1
        # An inventory of very much takes its time on both sides.
        size = len(worker.held) // ledger.settings.held_per_tally
        late = message.applied < sent_before
        if view.unsure >= max(1 if late else ledger.settings.unsure_tallies_max, size):
            _ask(ledger, worker)
        return
    view.unsure = 0
    if _told(message) != _believed(worker):
        _ask(ledger, worker)


def on_inventory(ledger: Ledger, worker: WorkerPeer, message: messages.Stocktaking) -> None:
    """Take in a part of an inventory; with the last one, compare, and mend what differed before too."""
    view = worker.view
    if not view.serial or message.serial != view.serial:
        raise Misbehaved("it sent an inventory that nobody asked for")
    view.held.update(checked(message.held, (int, int)))
    view.runs.update({run: task for task, run in checked(message.runs, (int, int))})
    view.lingering.update(dict.fromkeys(numbers_of(message.lingering)))
    if len(view.held) + len(view.runs) + len(view.lingering) > ITEMS_MAX:
        raise Misbehaved("it has more to tell than there can be")
    if not message.last:
        return
    view.serial = 0
    # What was lost on the way counts as sent no more: nothing could be compared ever again.
    view.sent -= view.sent_at_ask - message.applied
    view.sent_at_tally = min(view.sent_at_tally, view.sent)
    if ledger.recovery is not None:
        # What came back is not all claimed yet: later.
        view.clear()
        view.doubted = {}
        return
    rebuilt = rebuild(ledger, worker)
    found = _differences(ledger, worker)
    doubted, view.doubted = view.doubted, found
    if rebuilt:
        ledger.mended += 1
    if found and not doubted:
        _ask(ledger, worker)
        return
    certain = {kind: [each for each in items if each in doubted.get(kind, ())] for kind, items in found.items()}
    view.doubted = {}
    _mend(ledger, worker, {kind: items for kind, items in certain.items() if items})
    view.clear()


def _ask(ledger: Ledger, worker: WorkerPeer) -> None:
    view = worker.view
    view.clear()
    view.asked += 1
    view.serial = view.asked
    view.unsure = 0
    ledger.send(worker.id, messages.Audit(view.serial))
    view.sent_at_ask = view.sent + len(ledger.outbox[worker.id])


def _told(message: messages.Tally) -> tuple[int, ...]:
    return tuple(message[1:])


def _believed(worker: WorkerPeer) -> tuple[int, ...]:
    runs = [task.state.run if type(task.state) is Assigned else _ODD for task in worker.assigned.values()]
    held, lingering = worker.held, worker.lingering
    return (len(held), held.summed, len(runs), summed(runs), len(lingering), summed(lingering))


# --- differences ----------------------------------------------------------------------------------


def _differences(ledger: Ledger, worker: WorkerPeer) -> dict[str, dict[int, None]]:
    """Return what differs between an inventory and the books, by kind."""
    view = worker.view
    counted = {task.state.run: task for task in worker.assigned.values() if type(task.state) is Assigned}
    found = {
        "absent": {task: None for task in worker.held if task not in view.held},
        "unknown": {
            task: None for task in view.held if task not in worker.held and not _runs_there(ledger, worker, task)
        },
        "over": {run: None for run in counted if run not in view.runs},
        "stray": {run: None for run in view.runs if run not in counted and run not in worker.lingering},
        "departed": {run: None for run in worker.lingering if run not in view.lingering and run not in view.runs},
        "lingering": {run: None for run in view.lingering if run not in worker.lingering},
    }
    return {kind: items for kind, items in found.items() if items}


def _runs_there(ledger: Ledger, worker: WorkerPeer, number: TaskId) -> bool:
    """Tell whether a task whose data a worker has is run there nevertheless: the run replaces the data."""
    task = ledger.tasks.get(number)
    state = task.state if task is not None else None
    return type(state) is Assigned and state.worker is worker and state.run in worker.view.runs


def _mend(ledger: Ledger, worker: WorkerPeer, certain: dict[str, list[int]]) -> None:
    view = worker.view
    ledger.mended += sum(map(len, certain.values()))
    counted = {task.state.run: task for task in worker.assigned.values() if type(task.state) is Assigned}
    for run in certain.get("over", ()):
        task = counted[run]
        if task.id in view.held:
            # Its report was lost, and not its data.
            transitions.hold(ledger, task, worker, view.held[task.id], None)
        else:
            transitions.requeue(ledger, task)
    for number in certain.get("absent", ()):
        if number in worker.held:
            transitions.lose_replica(ledger, worker.held[number], worker)
    for number in certain.get("unknown", ()):
        if number not in worker.held:
            _take(ledger, worker, number, view.held[number])
    for run in certain.get("stray", ()):
        worker.lingering[run] = Lingering((), ())
        ledger.send(worker.id, messages.Withdrawal(view.runs[run], run, False))
    for run in certain.get("departed", ()):
        ledger.depart(worker, run)
    for run in certain.get("lingering", ()):
        worker.lingering[run] = Lingering((), ())
    ledger.review(worker)


def _take(ledger: Ledger, worker: WorkerPeer, number: TaskId, nbytes: int) -> None:
    task = ledger.tasks.get(number)
    if task is None:
        ledger.send(worker.id, messages.Disposal([number]))
    else:
        recovery.gain(ledger, task, worker, nbytes)


# --- the books of one worker, from the states of tasks --------------------------------------------


def rebuild(ledger: Ledger, worker: WorkerPeer) -> bool:
    """Make the books of a worker anew from the states of the tasks there; return whether they were wrong."""
    assigned: dict[TaskId, Task] = {}
    held: dict[TaskId, Task] = {}
    view = worker.view
    named = {**worker.assigned, **dict(worker.held.items()), **view.held, **dict.fromkeys(view.runs.values())}
    for number in named:
        task = ledger.tasks.get(number)
        if task is None:
            continue
        state = task.state
        if type(state) is Assigned and state.worker is worker:
            assigned[task.id] = task
        elif type(state) is Held and worker in state.workers:
            held[task.id] = task
    wrong = _set_held(worker, held) | _set_assigned(worker, assigned)
    if wrong:
        ledger.review(worker)
    return wrong


def _set_held(worker: WorkerPeer, held: dict[TaskId, Task]) -> bool:
    nbytes = sum(task.state.nbytes for task in held.values() if type(task.state) is Held)
    if nbytes == worker.nbytes and held.keys() == set(worker.held):
        return False
    for number in list(worker.held):
        del worker.held[number]
    worker.held.update(held)
    worker.nbytes = nbytes
    return True


def _set_assigned(worker: WorkerPeer, assigned: dict[TaskId, Task]) -> bool:
    states = [task.state for task in assigned.values() if type(task.state) is Assigned]
    occupancy_s = sum(state.expected_s for state in states)
    expected_bytes = sum(state.expected_bytes for state in states)
    seceded = sum(state.seceded for state in states)
    free = dict(worker.resources)
    demands = [task.options.resources for task in assigned.values() if task.options is not None]
    for resources in [*demands, *(each.resources for each in worker.lingering.values())]:
        for name, amount in resources:
            free[name] = free.get(name, 0.0) - amount
    right = (
        assigned.keys() == worker.assigned.keys()
        and abs(occupancy_s - worker.occupancy_s) < 1e-6
        and (expected_bytes, seceded) == (worker.expected_bytes, worker.seceded)
        and all(abs(free.get(name, 0.0) - worker.free.get(name, 0.0)) < 1e-6 for name in {**free, **worker.free})
    )
    if right:
        return False
    # In the order in which they were assigned.
    order: dict[TaskId, Any] = dict(sorted(assigned.items(), key=lambda each: _run(each[1])))
    worker.assigned = order
    worker.occupancy_s, worker.expected_bytes, worker.seceded = occupancy_s, expected_bytes, seceded
    worker.free = free
    return True


def _run(task: Task) -> RunId:
    return task.state.run if type(task.state) is Assigned else 0
