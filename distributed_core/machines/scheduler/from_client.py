"""What clients say, and what it does to the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.ids import Number, PeerId
from distributed_core.machines.scheduler import recovery, transitions
from distributed_core.machines.scheduler.checking import Misbehaved, check_frames, checked, numbers_of
from distributed_core.machines.scheduler.from_worker import disbelieve
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import ClientPeer
from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Erred,
    Function,
    Held,
    Reason,
    Released,
    Task,
    TaskOptions,
)

_TASK = (int, (str, type(None)), bytes, (bytes, list), list, int, (dict, type(None)))
_DATUM = (int, (str, type(None)), int)
TIMEOUT_MAX_S = 1e9


def on_submission(ledger: Ledger, client: ClientPeer, message: messages.Submission) -> None:
    for digest, name, body in checked(message.functions, (bytes, str, bytes)):
        if digest in client.functions:
            continue
        function = ledger.functions.get(digest)
        if function is None:
            function = Function(ledger.next_function_id(), digest, name, body)
            ledger.functions[digest] = function
        function.clients += 1
        client.functions[digest] = function
    for number, key, digest, payload, inputs, priority, options in checked(message.tasks, _TASK):
        if number in client.tasks:
            said_again(ledger, client, number)
            continue
        if type(payload) is list:
            check_frames(payload)
        task = known(ledger, client, number, key) if key is not None or client.said is not None else None
        if task is None:
            function = client.functions.get(digest)
            try:
                needs = tuple([client.tasks[each] for each in inputs])
            except KeyError:
                # Cancelled meanwhile, by whomever; what is built on this one comes here too.
                ledger.send(client.id, messages.Cancelled(number, "it needs a future that was cancelled or released"))
                continue
            except TypeError:
                raise Misbehaved("it submitted a task whose inputs are no numbers") from None
            if function is None:
                raise Misbehaved("it submitted a task with an unknown function")
            wishes = options_of(options)
            if len(set(needs)) != len(needs):
                if len(set(inputs)) != len(inputs):
                    raise Misbehaved("it submitted a task with an input twice")
                needs, wishes = _each_once(needs, wishes)
            task = new_task(ledger, client, number, key, function, payload, needs, priority, wishes)
        transitions.want(ledger, client, number, task)
        if client.said is not None:
            client.said[number] = None
            recovery.claim(ledger, task)


def _each_once(needs: tuple[Task, ...], options: TaskOptions | None) -> tuple[tuple[Task, ...], TaskOptions]:
    """Several numbers of a client mean the same task: return the inputs without repetition, and where each goes."""
    places: dict[Task, int] = {}
    for each in needs:
        places.setdefault(each, len(places))
    return tuple(places), (options or TaskOptions())._replace(places=tuple(places[each] for each in needs))


def known(ledger: Ledger, client: ClientPeer, number: Number, key: str | None) -> Task | None:
    """Return the task that a client means, if it is in the books: by its key, or by its number from before."""
    task = ledger.by_key.get(key) if key is not None else None
    if task is None and client.said is not None:
        # It let go of it, or was out of touch; others still want what is made from it.
        task = ledger.tasks.get(client.base + number)
    return task


def said_again(ledger: Ledger, client: ClientPeer, number: Number) -> None:
    """A client that came back names a future that it has: tell where it stands."""
    if client.said is None or number in client.said:
        raise Misbehaved(f"it used the number {number} twice")
    client.said[number] = None
    transitions.tell(ledger, client, number, client.tasks[number])


def new_task(
    ledger: Ledger,
    client: ClientPeer,
    number: Number,
    key: str | None,
    function: Function | None,
    payload: Any,
    inputs: tuple[Task, ...],
    priority: int,
    options: TaskOptions | None = None,
) -> Task:
    """Enter a task into the books."""
    task_id = client.base + number
    if number >> recovery.NUMBER_BITS or task_id in ledger.tasks:
        raise Misbehaved(f"it used the number {number}, which it cannot use, or not again")
    task = Task(task_id, key, function, payload, inputs, -priority, client.share, options)
    ledger.tasks[task.id] = task
    if key is not None:
        ledger.by_key[key] = task
    if function is not None:
        function.tasks += 1
    for each in inputs:
        if each.users is None:
            each.users = {task.id: task}
        else:
            each.users[task.id] = task
    return task


def on_scattering(ledger: Ledger, client: ClientPeer, message: messages.Scattering) -> None:
    planned: dict[PeerId, int] = {}
    names = frozenset(map(str, message.workers)) if message.workers is not None else None
    for number, key, nbytes in checked(message.items, _DATUM):
        if number in client.tasks:
            said_again(ledger, client, number)
            continue
        task = ledger.by_key.get(key) if key is not None else None
        if task is not None and type(task.state) is not Released:
            transitions.want(ledger, client, number, task)
            continue
        fitting = [
            each for each in ledger.workers.values() if not each.retiring and (names is None or each.answers_to(names))
        ]
        # Paused ones last: they have little memory left.
        worker = min(fitting, key=lambda each: (each.paused, each.nbytes + planned.get(each.id, 0)), default=None)
        if task is None:
            task = new_task(ledger, client, number, key, None, None, (), 0)
        ledger.move(task, Arriving(worker))
        transitions.want(ledger, client, number, task)
        if worker is None:
            text = "there is no worker to scatter data to; start one first"
            if names is not None:
                text = f"no worker called {' or '.join(sorted(names))} is there to scatter data to"
            transitions.fail(ledger, task, Reason("DataLost", text, None))
            continue
        planned[worker.id] = planned.get(worker.id, 0) + nbytes
        ledger.send(client.id, messages.Placement(number, task.id, worker.address))


def on_release(ledger: Ledger, client: ClientPeer, message: messages.Release) -> None:
    numbers = numbers_of(message.numbers)
    recovery.withdraw_wishes(ledger, client, numbers)
    transitions.unwant(ledger, client, numbers)


def on_cancellation(ledger: Ledger, client: ClientPeer, message: messages.Cancellation) -> None:
    numbers = numbers_of(message.numbers)
    recovery.withdraw_wishes(ledger, client, numbers)
    for number in numbers:
        if number not in client.tasks:
            # A client says it again to another scheduler until it has an answer.
            ledger.send(client.id, messages.Cancelled(number, message.reason))
    transitions.cancel(ledger, client, numbers, force=message.force, reason=message.reason)


def on_retrial(ledger: Ledger, client: ClientPeer, message: messages.Retrial) -> None:
    transitions.retry(ledger, client, numbers_of(message.numbers))


def on_vow(ledger: Ledger, client: ClientPeer, message: messages.Vow) -> None:
    for number in numbers_of(message.numbers):
        task = client.tasks.get(number)
        if task is not None and type(task.state) not in (Held, Erred) and not _vowed(ledger, task):
            transitions.want(ledger, ledger.vows, ledger.next_vow(), task)


def _vowed(ledger: Ledger, task: Task) -> bool:
    return any(want.client is ledger.vows for want in task.wants)


def on_wish(ledger: Ledger, client: ClientPeer, message: messages.Wish) -> None:
    for number, key in checked(message.items, (int, str)):
        if number in client.tasks:
            said_again(ledger, client, number)
            continue
        if client.said is not None:
            client.said[number] = None
        recovery.wish(ledger, client, number, key)


def on_ruin(ledger: Ledger, client: ClientPeer, message: messages.Ruin) -> None:
    task = client.tasks.get(message.number)
    if task is not None and type(task.state) in transitions.ACTIVE:
        if type(task.state) is Assigned:
            # A worker that came back is at it all the same.
            ledger.linger(task, task.state, ())
            ledger.send(task.state.worker.id, messages.Withdrawal(task.id, task.state.run, False))
        transitions.fail(ledger, task, Reason(message.kind, message.text, message.payload))


def on_reclaim(ledger: Ledger, client: ClientPeer, message: messages.Reclaim) -> None:
    for number, key, _ in checked(message.items, _DATUM):
        if number in client.tasks:
            said_again(ledger, client, number)
            continue
        task = known(ledger, client, number, key)
        if task is None:
            task = new_task(ledger, client, number, key, None, None, (), 0)
        if type(task.state) is Released:
            ledger.move(task, Arriving(None))
        transitions.want(ledger, client, number, task)
        if client.said is not None:
            client.said[number] = None
        if ledger.recovery is not None:
            ledger.recovery.reclaimed[task.id] = task
        recovery.claim(ledger, task)


def on_reunion(ledger: Ledger, client: ClientPeer, message: messages.Reunion) -> None:
    recovery.reunited(ledger, client, message.workers)


def on_farewell(ledger: Ledger, client: ClientPeer, message: messages.Farewell) -> None:
    client.leaves = True


def on_complaint(ledger: Ledger, client: ClientPeer, message: messages.Complaint) -> None:
    for number, address in checked(message.items, (int, str)):
        task = client.tasks.get(number)
        if task is not None:
            disbelieve(ledger, task, address)


def options_of(given: dict[str, Any] | None) -> TaskOptions | None:
    """Return the options of a task as its client sent them."""
    if not given:
        return None
    try:
        workers = given.get("workers")
        resources = given.get("resources") or {}
        timeout_s, retries = given.get("timeout_s", 0.0), given.get("retries", 0)
        amounts = (timeout_s, retries, *resources.values())
        # Not a number is neither below 0 nor above; a time limit beyond the end of all clocks is none.
        if not all(type(amount) in (int, float) and amount >= 0 for amount in amounts):
            raise ValueError
        if type(workers) is str:
            raise ValueError
        return TaskOptions(
            retries=int(retries),
            resources=tuple(sorted((str(name), float(amount)) for name, amount in resources.items())),
            workers=None if workers is None else frozenset(map(str, workers)),
            loose=bool(given.get("loose")),
            timeout_s=float(timeout_s) if timeout_s <= TIMEOUT_MAX_S else 0.0,
            actor=bool(given.get("actor")),
        )
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise Misbehaved("it sent options of a task that make no sense") from None


FROM_CLIENT: dict[type, Callable[[Ledger, ClientPeer, Any], None]] = {
    messages.Submission: on_submission,
    messages.Scattering: on_scattering,
    messages.Release: on_release,
    messages.Cancellation: on_cancellation,
    messages.Complaint: on_complaint,
    messages.Wish: on_wish,
    messages.Retrial: on_retrial,
    messages.Vow: on_vow,
    messages.Ruin: on_ruin,
    messages.Reclaim: on_reclaim,
    messages.Reunion: on_reunion,
    messages.Farewell: on_farewell,
}
