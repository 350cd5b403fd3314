"""What workers say, and what it does to the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.machines.scheduler import recovery, stealing, transitions, views
from distributed_core.machines.scheduler.checking import (
    DURATION_MAX_S,
    Misbehaved,
    bounded,
    check_figures,
    check_frames,
    checked,
)
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Assigned, Held, Reason, Task

#: No scheduler makes so many runs.
RUN_MAX = 1 << 53


def on_completion(ledger: Ledger, worker: WorkerPeer, message: messages.Completion) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is not None:
        if type(message.payload) is list:
            check_frames(message.payload)
        _learn(ledger, task, message.duration_s)
        function = task.function
        assert function is not None
        old = function.nbytes
        function.nbytes = old + ledger.settings.duration_weight * (message.nbytes - old) if old else message.nbytes
        worker.progress_at = ledger.now
        transitions.hold(ledger, task, worker, message.nbytes, message.payload)
    elif ledger.recovery is not None:
        recovery.ended(ledger, worker, message.task, message.run, message.nbytes)


def on_failure(ledger: Ledger, worker: WorkerPeer, message: messages.Failure) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is None:
        recovery.ended(ledger, worker, message.task, message.run, None)
        return
    if type(message.payload) is list:
        check_frames(message.payload)
    _learn(ledger, task, message.duration_s)
    worker.progress_at = ledger.now
    options = task.options
    if options is not None and options.retries > 0:
        task.options = options._replace(retries=options.retries - 1)
        if message.kind != "exception":
            ledger.linger(task, task.state, ())  # type: ignore[arg-type]
        transitions.requeue(ledger, task)
        return
    if message.kind != "exception":
        # The run was given up, and its thread may still be at it: its resources are not free before it says so.
        ledger.linger(task, task.state, ())  # type: ignore[arg-type]
    transitions.fail(ledger, task, Reason(message.kind, message.text, message.payload))


def on_rejection(ledger: Ledger, worker: WorkerPeer, message: messages.Rejection) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is None:
        return
    absent = checked(message.absent, (int, str))
    # Of the inputs only: nobody has a say about data that it has nothing to do with.
    inputs = {each.id: each for each in task.inputs}
    for number, address in absent:
        if number in inputs:
            disbelieve(ledger, inputs[number], address or worker.address)
    if not absent and not message.unreachable and task.function is not None:
        # It lacks the function's body, which we believed to be there: it leaves again with the next assignment.
        worker.functions.pop(task.function.id, None)
    # Holders that the books have lost since are no reason: the data is made again, or is elsewhere.
    unreachable = [
        (inputs[number], address)
        for number, address in checked(message.unreachable, (int, str))
        if number in inputs and is_held_at(inputs[number], address)
    ]
    if unreachable and recovery.cut_off(ledger, task, worker, [each for each, _ in unreachable]):
        addresses = ", ".join(dict.fromkeys(address for _, address in unreachable))
        text = (
            f"for more than {ledger.settings.unreachable_max_s:g} s no worker could fetch its inputs, at last "
            f"{worker.address} from {addresses}; check the network between workers"
        )
        transitions.fail(ledger, task, Reason("DataUnreachable", text, None))
    elif type(task.state) is Assigned:
        transitions.requeue(ledger, task)


def is_held_at(task: Task, address: str) -> bool:
    """Tell whether the data of a task should be at this address."""
    return type(task.state) is Held and any(worker.address == address for worker in task.state.workers)


def disbelieve(ledger: Ledger, task: Task, address: str) -> None:
    """The worker at `address` does not have the data that it should: the books were wrong."""
    if type(task.state) is Held:
        for worker in task.state.workers:
            if worker.address == address:
                ledger.send(worker.id, messages.Disposal([task.id]))
                transitions.lose_replica(ledger, task, worker)


def on_possession(ledger: Ledger, worker: WorkerPeer, message: messages.Possession) -> None:
    for task_id, nbytes in checked(message.items, (int, int)):
        worker.copying.pop(task_id, None)
        task = ledger.tasks.get(task_id)
        if task is not None:
            recovery.gain(ledger, task, worker, nbytes)
        elif not (worker.returning and recovery.keep(ledger, worker, task_id, nbytes)):
            ledger.send(worker.id, messages.Disposal([task_id]))


def on_continuation(ledger: Ledger, worker: WorkerPeer, message: messages.Continuation) -> None:
    items = checked(message.items, (int, int))
    if not worker.returning or not all(0 < run <= RUN_MAX for _, run in items):
        raise Misbehaved("it said out of turn that runs go on, or runs of numbers that there are not")
    recovery.continued(ledger, worker, items)


def on_presence(ledger: Ledger, worker: WorkerPeer, message: messages.Presence) -> None:
    worker.returning = False
    ledger.review(worker)


def on_shortfall(ledger: Ledger, worker: WorkerPeer, message: messages.Shortfall) -> None:
    asked = {task_id: worker.copying.pop(task_id, None) for task_id, _ in checked(message.absent, (int, str))}
    for task_id, address in message.absent:
        task = ledger.tasks.get(task_id)
        if task is not None and asked[task_id] is task:
            disbelieve(ledger, task, address or worker.address)
    for task_id, _ in checked(message.unreachable, (int, str)):
        worker.copying.pop(task_id, None)


def on_departure(ledger: Ledger, worker: WorkerPeer, message: messages.Departure) -> None:
    ledger.depart(worker, message.run)


def on_yielding(ledger: Ledger, worker: WorkerPeer, message: messages.Yielding) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is None:
        if message.given:
            recovery.ended(ledger, worker, message.task, message.run, None)
        return
    state = task.state
    assert type(state) is Assigned
    if message.given:
        transitions.requeue(ledger, task)
    else:
        state.started = True
        ledger.forget_recall(state)


def on_secession(ledger: Ledger, worker: WorkerPeer, message: messages.Secession) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is None:
        return
    state = task.state
    assert type(state) is Assigned
    if not state.seceded:
        state.seceded = state.started = True
        worker.seceded += 1
        worker.occupancy_s -= state.expected_s
        state.expected_s = 0.0
        if worker.alone == task.id:
            # What it waits for may have nowhere else to run.
            worker.alone = 0
        ledger.review(worker)


def on_return(ledger: Ledger, worker: WorkerPeer, message: messages.Return) -> None:
    task = current(ledger, worker, message.task, message.run)
    if task is not None and type(task.state) is Assigned and task.state.seceded:
        task.state.seceded = False
        worker.seceded -= 1
        ledger.review(worker)


def on_sacrifice(ledger: Ledger, worker: WorkerPeer, message: messages.Sacrifice) -> None:
    worker.blameless = True


def on_stubbornness(ledger: Ledger, worker: WorkerPeer, message: messages.Stubbornness) -> None:
    lingering = worker.lingering.get(message.run)
    for client in lingering.clients if lingering is not None else ():
        ledger.send(client, messages.Notice("warning", message.text, None))


def on_heartbeat(ledger: Ledger, worker: WorkerPeer, message: messages.Heartbeat) -> None:
    check_figures(message.metrics)
    worker.metrics = message.metrics


def on_memory_state(ledger: Ledger, worker: WorkerPeer, message: messages.MemoryState) -> None:
    if message.spilled_bytes < 0:
        raise Misbehaved("it says that less than nothing is on disk")
    worker.spilled_bytes = message.spilled_bytes
    paused, worker.paused = worker.paused, message.paused
    ledger.review(worker)
    if worker.paused and not paused:
        stealing.relieve(ledger, worker)


def current(ledger: Ledger, worker: WorkerPeer, task_id: int, run: int) -> Task | None:
    """Return the task if this run of it is the one that counts."""
    task = worker.assigned.get(task_id)
    if task is None:
        return None
    state = task.state
    return task if type(state) is Assigned and state.run == run else None


def _learn(ledger: Ledger, task: Task, duration_s: float) -> None:
    function = task.function
    assert function is not None
    if not 0.0 <= duration_s <= DURATION_MAX_S:
        duration_s = bounded(duration_s, DURATION_MAX_S)
    old = function.duration_s
    weight = ledger.settings.duration_weight
    function.duration_s = duration_s if old is None else old + weight * (duration_s - old)
    state = task.state
    if type(state) is Assigned:
        # What it was charged was a guess.
        ledger.shares.charge(task.share, duration_s - ledger.charged_s(state.expected_s))


FROM_WORKER: dict[type, Callable[[Ledger, WorkerPeer, Any], None]] = {
    messages.Completion: on_completion,
    messages.Failure: on_failure,
    messages.Rejection: on_rejection,
    messages.Possession: on_possession,
    messages.Heartbeat: on_heartbeat,
    messages.Shortfall: on_shortfall,
    messages.Departure: on_departure,
    messages.Yielding: on_yielding,
    messages.Secession: on_secession,
    messages.Return: on_return,
    messages.Sacrifice: on_sacrifice,
    messages.Stubbornness: on_stubbornness,
    messages.Continuation: on_continuation,
    messages.Presence: on_presence,
    messages.MemoryState: on_memory_state,
    messages.Tally: views.on_tally,
    messages.Stocktaking: views.on_inventory,
}
