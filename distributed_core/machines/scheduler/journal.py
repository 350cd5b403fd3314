"""Events of the scheduler's machine as plain data, without what is the user's, and a digest of its state.

What a recording leaves out: function bodies, arguments, results, exceptions and their texts, figures of processes.
Bytes that name something (digests of functions) become short names that only this recording knows. What it keeps are
the names of tasks, functions, workers and clients, sizes, times, and who said what to whom.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

from distributed_core import messages
from distributed_core.errors import ProtocolError
from distributed_core.machines.scheduler import events
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.tasks import Arriving, Assigned, Erred, Held, Waiting

EVENTS: dict[str, type[Any]] = {
    word.__name__: word
    for word in vars(events).values()
    if isinstance(word, type) and word.__module__ == events.__name__
}
_WORDS = {word.__name__: word for word in messages.WORDS}
#: Places of bodies and payloads in the lists that a message carries.
_FUNCTION_BODY, _TASK_PAYLOAD = 2, 3
#: Fields that are sentences or figures: the machine passes them on, and does nothing by them.
_SENTENCES = {"text", "reason", "metrics"}
#: What a worker says of itself that the machine decides by; all else is shown to people.
_DETAILS = ("resources", "memory_limit_bytes")


class Journal:
    """Turns events into plain data.

    Parameters
    ----------
    secret
        Random bytes that make names of bytes; they are kept nowhere.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def event(self, event: events.SchedulerEvent) -> list[Any]:
        """Return `[kind, fields ...]`: what JSON can hold, and `restored` makes an event of."""
        if type(event) is events.Received:
            return ["Received", event.peer, [self._message(message) for message in event.messages]]
        if type(event) is events.WorkerJoined:
            details = {name: event.details.get(name) for name in _DETAILS}
            said = [event.worker, event.address, event.name, event.nthreads, details, event.returns]
            return ["WorkerJoined", *said]
        if type(event) is events.RetirementPursued:
            return ["RetirementPursued", [[worker, ""] for worker in event.progress]]
        return [type(event).__name__, *(self._plain(getattr(event, field.name)) for field in fields(event))]

    def _message(self, message: Any) -> list[Any]:
        kind = type(message)
        if kind is messages.Submission:
            functions = [_without(each, _FUNCTION_BODY) for each in message.functions]
            tasks = [_without(each, _TASK_PAYLOAD) for each in message.tasks]
            return ["Submission", self._plain(functions), self._plain(tasks)]
        said: list[Any] = [kind.__name__]
        for name, annotation in kind.__annotations__.items():
            value = getattr(message, name)
            if "Payload" in str(getattr(annotation, "__forward_arg__", annotation)):
                value = None if value is None else []
            elif name in _SENTENCES:
                value = type(value)()
            said.append(self._plain(value))
        return said

    def _plain(self, value: Any) -> Any:
        if isinstance(value, bytes):
            named = hashlib.blake2b(value, key=self._secret, digest_size=8).hexdigest()
            return {"bytes": named} if value else {"bytes": ""}
        if isinstance(value, (list, tuple)):
            return [self._plain(each) for each in value]
        if isinstance(value, dict):
            return {"map": [[self._plain(key), self._plain(each)] for key, each in value.items()]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return None


def _without(item: Any, place: int) -> Any:
    """Return an array without the user's bytes at a place; one of the wrong shape is recorded as it is not."""
    if not isinstance(item, list) or len(item) <= place or not isinstance(item[place], (bytes, list)):
        return None
    return [*item[:place], b"" if isinstance(item[place], bytes) else [], *item[place + 1 :]]


def restored(plain: list[Any]) -> events.SchedulerEvent:
    """Return the event that `Journal.event` made plain.

    Raises
    ------
    ProtocolError
        It is none.
    """
    try:
        kind, *values = plain
        if kind == "Received":
            peer, said = values
            return events.Received(peer, [_WORDS[word](*map(_whole, facts)) for word, *facts in said])
        if kind == "WorkerJoined":
            return events.WorkerJoined(*values)
        if kind == "RetirementPursued":
            return events.RetirementPursued(dict(values[0]))
        event: events.SchedulerEvent = EVENTS[kind](*map(_whole, values))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the recording holds an event that this version does not know: {error}") from None
    return event


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        if "bytes" in value:
            return bytes.fromhex(value["bytes"])
        return {_whole(key): _whole(each) for key, each in value["map"]}
    return value


def digest(ledger: Ledger) -> str:
    """Return a digest of the state of all tasks, workers and clients; equal books, equal digests.

    Times are no part of it, nor what a recording leaves out.
    """
    summed = hashlib.blake2b(digest_size=16)
    for task in ledger.tasks.values():
        state = task.state
        detail: Any = None
        if type(state) is Waiting:
            detail = state.missing
        elif type(state) is Assigned:
            detail = (state.worker.id, state.run, state.recalled, state.started, state.seceded)
        elif type(state) is Held:
            detail = ([worker.id for worker in state.workers], state.nbytes)
        elif type(state) is Erred:
            detail = state.reason.kind
        elif type(state) is Arriving:
            detail = state.worker.id if state.worker is not None else None
        wants = [(want.client.id, want.number) for want in task.wants]
        inputs = [each.id for each in task.inputs]
        facts = (task.id, task.key, type(state).__name__, detail, inputs, wants, task.needed, task.priority)
        summed.update(repr(facts).encode())
    for worker in ledger.workers.values():
        marks = (worker.retiring, worker.reserved, worker.alone, worker.nbytes, list(worker.lingering))
        at = (list(worker.assigned), list(worker.held), list(worker.arriving), list(worker.copying))
        memory = (worker.limit_bytes, worker.paused, worker.spilled_bytes, worker.expected_bytes, worker.returning)
        summed.update(repr((worker.id, worker.address, worker.name, worker.nthreads, *marks, *at, *memory)).encode())
    for client in ledger.clients.values():
        summed.update(repr((client.id, client.name, len(client.tasks), len(client.functions))).encode())
    return summed.hexdigest()
