"""What a move of one task means for the tasks around it.

Every function keeps a worklist instead of calling itself, so that a chain of a million tasks does not end the stack.
"""

from __future__ import annotations

from collections.abc import Iterable

from distributed_core import messages
from distributed_core.ids import Number, PeerId
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import ClientPeer, WorkerPeer
from distributed_core.machines.scheduler.tasks import (
    FORGOTTEN,
    READY,
    RELEASED,
    Arriving,
    Assigned,
    Erred,
    Forgotten,
    Function,
    Held,
    Ready,
    Reason,
    Released,
    Task,
    Troubles,
    Waiting,
    Want,
)

ACTIVE = (Waiting, Ready, Assigned)


def activate(ledger: Ledger, task: Task) -> None:
    """Let a released task run, and before it the released ones among its inputs."""
    stack = [task]
    while stack:
        task = stack.pop()
        if type(task.state) is not Released or (task.client is None and not task.needed):
            continue
        if task.function is None:
            text = "data that a client scattered was needed again after it was released or lost; scatter it again"
            fail(ledger, task, Reason("DataLost", text, None))
            continue
        missing = 0
        reason = None
        for each in task.inputs:
            each.needed += 1
            state = type(each.state)
            if state is Held:
                continue
            missing += 1
            if state is Erred:
                reason = each.state.reason  # type: ignore[attr-defined]
            elif state is Released:
                stack.append(each)
        ledger.move(task, Waiting(missing) if missing else READY)
        if reason is not None:
            fail(ledger, task, reason)


def hold(ledger: Ledger, task: Task, worker: WorkerPeer, nbytes: int, payload: messages.Payload | None) -> None:
    """The data of a task is on `worker`: tell who wants it, free who waited for it."""
    active = type(task.state) in ACTIVE
    if task.troubles is not None:
        task.troubles.suspect = False
    ledger.move(task, worker.held_alone(nbytes))
    if task.client is not None:
        ledger.send(task.client.id, messages.Finished(task.number, nbytes, payload))
        for want in task.sharers:
            ledger.send(want.client.id, messages.Finished(want.number, nbytes, payload))
    if task.users:
        for user in task.users.values():
            if type(user.state) is Waiting:
                user.state.missing -= 1
                if not user.state.missing:
                    ledger.move(user, READY)
    if active:
        settle(ledger, _leave_active(task))
    if task.client is None and not task.needed:
        settle(ledger, [task])


def fail(ledger: Ledger, task: Task, reason: Reason) -> None:
    """The task has no result, and so has none that waits for it."""
    stack = [task]
    loose: list[Task] = []
    while stack:
        task = stack.pop()
        if type(task.state) in (Erred, Forgotten):
            continue
        if type(task.state) in ACTIVE:
            loose.extend(_leave_active(task))
        ledger.move(task, Erred(reason))
        for want in task.wants:
            ledger.send(want.client.id, messages.Failed(want.number, *reason))
        loose.append(task)
        if task.users:
            # An assigned user may have its inputs already; if not, it is rejected and comes back here.
            stack.extend(user for user in task.users.values() if type(user.state) in (Waiting, Ready))
    settle(ledger, loose)


def lose_replica(ledger: Ledger, task: Task, worker: WorkerPeer) -> None:
    """`worker` no longer holds the data of `task`: compute it again elsewhere if anybody still needs it."""
    state = task.state
    if type(state) is not Held or worker not in state.workers:
        return
    rest = tuple(each for each in state.workers if each is not worker)
    if rest:
        ledger.move(task, Held(rest, state.nbytes))
        return
    for user in task.users.values() if task.users else ():
        if type(user.state) is Waiting:
            user.state.missing += 1
        elif type(user.state) is Ready:
            ledger.move(user, Waiting(1))
    if task.options is not None and task.options.actor:
        text = f"the worker {worker.address} that had the actor {task.name} is gone; make a new one"
        fail(ledger, task, Reason("ActorLost", text, None))
        return
    if task.function is None:
        text = f"the data that a client scattered was on worker {worker.address} alone, and was lost with it"
        fail(ledger, task, Reason("DataLost", text, None))
        return
    ledger.move(task, RELEASED)
    if task.client is not None or task.needed:
        for want in task.wants:
            ledger.send(want.client.id, messages.Pending(want.number))
        activate(ledger, task)
    else:
        settle(ledger, [task])


def requeue(ledger: Ledger, task: Task) -> None:
    """An assigned task is no longer with its worker: count its missing inputs anew and queue it again."""
    missing = 0
    reason = None
    for each in task.inputs:
        state = type(each.state)
        if state is Held:
            continue
        missing += 1
        if state is Erred:
            reason = each.state.reason  # type: ignore[attr-defined]
    ledger.move(task, Waiting(missing) if missing else READY)
    if reason is not None:
        fail(ledger, task, reason)
        return
    for each in task.inputs:
        activate(ledger, each)


def settle(ledger: Ledger, stack: list[Task], cancelled_by: tuple[PeerId, ...] = ()) -> None:
    """Release what nobody wants or needs, and forget what nobody can ask for again.

    A run that goes on in vain is interrupted where clients cancelled it; else its result is dropped.
    """
    while stack:
        task = stack.pop()
        if task.client is not None or task.needed or type(task.state) is Forgotten:
            continue
        if task.id in ledger.strays:
            _end_strays(ledger, task, interrupt=bool(cancelled_by))
        state = task.state
        if type(state) is Held:
            for worker in state.workers:
                _dispose(ledger, worker, task)
            ledger.move(task, RELEASED)
        elif type(state) in ACTIVE:
            if type(state) is Assigned:
                ledger.linger(task, state, cancelled_by)
                ledger.send(state.worker.id, messages.Withdrawal(task.id, state.run, bool(cancelled_by)))
            stack.extend(_leave_active(task))
            ledger.move(task, RELEASED)
        elif type(state) is Arriving:
            ledger.move(task, RELEASED)
        if not task.users:
            _forget(ledger, task, stack)


def _end_strays(ledger: Ledger, task: Task, *, interrupt: bool) -> None:
    """Nobody wants the task: runs of it that did not count any more are interrupted too, where it was cancelled."""
    for worker, run in ledger.strays.pop(task.id):
        if interrupt and run in worker.lingering and ledger.workers.get(worker.id) is worker:
            ledger.send(worker.id, messages.Withdrawal(task.id, run, True))


def unwant(ledger: Ledger, client: ClientPeer, numbers: Iterable[Number], *, cancelled: bool = False) -> None:
    """The client holds no future of these numbers any more, or cancelled them."""
    loose = []
    for number in numbers:
        task = client.tasks.pop(number, None)
        if task is not None:
            _drop_want(task, client, number)
            loose.append(task)
    settle(ledger, loose, (client.id,) if cancelled else ())


def cancel(
    ledger: Ledger, client: ClientPeer, numbers: Iterable[Number], *, force: bool = False, reason: str = ""
) -> None:
    """Take back these futures and all that this client built on them; other clients keep theirs, but for `force`."""
    stack = [client.tasks[number] for number in numbers if number in client.tasks]
    seen: dict[int, None] = {}
    lost: dict[ClientPeer, list[Number]] = {client: []}
    while stack:
        task = stack.pop()
        if task.id in seen:
            continue
        seen[task.id] = None
        for want in task.wants:
            if force or want.client is client:
                lost.setdefault(want.client, []).append(want.number)
        if task.users:
            stack.extend(task.users.values())
    for each, own in lost.items():
        who = "its client" if each is client else "another client"
        text = reason or f"{who} cancelled it, or a future that it needs"
        for number in own:
            ledger.send(each.id, messages.Cancelled(number, text))
        unwant(ledger, each, own, cancelled=True)


def retry(ledger: Ledger, client: ClientPeer, numbers: Iterable[Number]) -> None:
    """Run failed tasks again: those asked for, the inputs that failed before them, the users that fell after."""
    stack = [client.tasks[number] for number in numbers if number in client.tasks]
    chosen: dict[int, Task] = {}
    while stack:
        task = stack.pop()
        if task.id in chosen or type(task.state) is not Erred:
            continue
        chosen[task.id] = task
        stack.extend(task.inputs)
        if task.users:
            stack.extend(task.users.values())
    for task in chosen.values():
        if task.troubles is not None:
            task.troubles = Troubles(task.troubles.suspect)
        ledger.move(task, RELEASED)
        for want in task.wants:
            ledger.send(want.client.id, messages.Pending(want.number))
    for task in chosen.values():
        activate(ledger, task)


def want(ledger: Ledger, client: ClientPeer, number: Number, task: Task) -> None:
    """Remember a future of the task, and tell the client where the task stands."""
    client.tasks[number] = task
    if task.client is None:
        task.client, task.number = client, number
    else:
        task.sharers = (*task.sharers, Want(client, number))
    state = type(task.state)
    if state is Released:
        activate(ledger, task)
    else:
        tell(ledger, client, number, task)


def tell(ledger: Ledger, client: ClientPeer, number: Number, task: Task) -> None:
    """Tell a client where the task of a future stands, if it has ended."""
    state = task.state
    if type(state) is Held:
        ledger.send(client.id, messages.Finished(number, state.nbytes, None))
    elif type(state) is Erred:
        ledger.send(client.id, messages.Failed(number, *state.reason))


def _drop_want(task: Task, client: ClientPeer, number: Number) -> None:
    if task.client is not client or task.number != number:
        task.sharers = tuple(want for want in task.sharers if want.client is not client or want.number != number)
    elif task.sharers:
        (task.client, task.number), *rest = task.sharers
        task.sharers = tuple(rest)
    else:
        task.client, task.number = None, 0


def _leave_active(task: Task) -> list[Task]:
    """Count `task` no longer among those that need its inputs; return those inputs that may now be loose."""
    loose = []
    for each in task.inputs:
        each.needed -= 1
        if not each.needed and each.client is None:
            loose.append(each)
    return loose


def _dispose(ledger: Ledger, worker: WorkerPeer, task: Task) -> None:
    box = ledger.outbox.get(worker.id)
    if box and type(box[-1]) is messages.Disposal:
        box[-1].tasks.append(task.id)
    else:
        ledger.send(worker.id, messages.Disposal([task.id]))


def _forget(ledger: Ledger, task: Task, stack: list[Task]) -> None:
    ledger.move(task, FORGOTTEN)
    del ledger.tasks[task.id]
    if task.key is not None:
        del ledger.by_key[task.key]
    for each in task.inputs:
        if each.users is not None:
            each.users.pop(task.id, None)
            if not each.users:
                each.users = None
                stack.append(each)
    if task.function is not None:
        task.function.tasks -= 1
        drop_function(ledger, task.function)
    task.inputs = ()


def drop_function(ledger: Ledger, function: Function) -> None:
    """Let a function go that no task uses and no client may name."""
    if function.tasks or function.clients or ledger.functions.get(function.digest) is not function:
        return
    del ledger.functions[function.digest]
    for worker in ledger.workers.values():
        if function.id in worker.functions:
            del worker.functions[function.id]
            ledger.send(worker.id, messages.FunctionDisposal([function.id]))
