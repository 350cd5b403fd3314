"""Events in, instructions out: a client's decisions from outside.

Two sides share it. Whoever submits and releases calls `post`, `post_tasks`, `release` and `drain`, in any thread, under
one lock of the client's. `handle` belongs to the loop alone; for `SchedulerFound` the loop takes that lock too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from distributed_core import messages
from distributed_core.machines.client import events
from distributed_core.machines.client.futures import CANCELLED, ERROR, FINISHED, LOST, PENDING, FutureRecord
from distributed_core.machines.client.instructions import (
    ClientInstruction,
    Close,
    Deliver,
    Flush,
    Search,
    Settle,
    Tell,
)
from distributed_core.machines.client.lineage import Lineage
from distributed_core.machines.client.window import TASK_BYTES, Window, payload_bytes

#: Tasks in one message at most, so that the scheduler's loop is never busy with one for long.
CHUNK_TASKS = 500
#: The window of a scheduler that tells none: tasks, and bytes of their payloads.
WINDOW = (100_000, 64 << 20)


class ClientMachine:
    """A client as a pure machine.

    Parameters
    ----------
    futures
        What is held, by number; whoever makes futures adds them, and takes them away before `release`.
    reconnect_timeout_s
        How long to look for a scheduler that was lost; 0 is not at all.

    Attributes
    ----------
    outbox
        What was posted and not drained, oldest first. It stays the same list.
    posted_bytes
        The bytes of all tasks that were ever posted.
    vowed
        What is to run to its end: another scheduler would have to be told of it.
    connected
        Whether there is a scheduler now.
    closed
        Why no news will come any more; "" while some may.
    """

    def __init__(self, futures: dict[int, Any], reconnect_timeout_s: float = 30.0) -> None:
        self.futures: dict[int, FutureRecord] = futures
        self.reconnect_timeout_s = reconnect_timeout_s
        self.lineage = Lineage()
        self.window = Window(*WINDOW)
        self.outbox: list[Any] = []
        self.posted_bytes = 0
        self.vowed: dict[int, None] = {}
        self.connected = False
        self.closed = ""
        self._scheduler_id = ""
        self._farewell = ""
        self._workers_known = 0
        #: Cancellations and retrials that the scheduler did not answer yet, by number: a connection may end before.
        self._cancelling: dict[int, messages.Cancellation] = {}
        self._retrying: dict[int, None] = {}

    # --- who submits: any thread, under the lock --------------------------------------------------

    def post(self, message: Any) -> None:
        """Queue a message."""
        if type(message) is messages.Cancellation:
            self._unvow(message.numbers)
        self.lineage.note(message)
        self.outbox.append(message)

    def post_tasks(self, functions: list[Any], tasks: list[Any]) -> None:
        """Queue new functions and tasks, whose order is that of their numbers."""
        self.lineage.add(functions, tasks)
        for task in tasks:
            self.posted_bytes += payload_bytes(task[3]) + TASK_BYTES
        outbox = self.outbox
        last = outbox[-1] if outbox else None
        if type(last) is messages.Submission and len(last.tasks) + len(tasks) <= CHUNK_TASKS:
            last.functions.extend(functions)
            last.tasks.extend(tasks)
        else:
            outbox.append(messages.Submission(functions, tasks))

    def release(self, numbers: list[int]) -> None:
        """Nobody holds these futures any more, and they are no longer among `futures`."""
        self._unvow(numbers)
        for start in range(0, len(numbers), CHUNK_TASKS):
            self.post(messages.Release(numbers[start : start + CHUNK_TASKS]))

    def _unvow(self, numbers: list[int]) -> None:
        if self.vowed:
            for number in numbers:
                self.vowed.pop(number, None)

    def drain(self) -> list[Any]:
        """Take what was posted, for `Posted`."""
        posted = self.outbox[:]
        del self.outbox[: len(posted)]
        return posted

    # --- the loop ---------------------------------------------------------------------------------

    def handle(self, event: events.ClientEvent, now: float) -> list[ClientInstruction]:
        """Apply what happened; return what is to be done, in order."""
        return self._ON_EVENT[type(event)](self, event)

    def _on_posted(self, event: events.Posted) -> list[ClientInstruction]:
        ready = self.window.take(event.messages)
        for message in ready:
            kind = type(message)
            if kind is messages.Cancellation:
                self._cancelling.update(dict.fromkeys(message.numbers, message))
            elif kind is messages.Retrial:
                self._retrying.update(dict.fromkeys(message.numbers))
        return [Tell(ready)] if ready else []

    def _on_heard(self, event: events.Heard) -> list[ClientInstruction]:
        futures, window = self.futures, self.window
        settled: list[FutureRecord] = []
        others: list[Any] = []
        for message in event.messages:
            kind = type(message)
            if kind is messages.Notice:
                others.append(message)
                continue
            if kind is messages.Roster:
                self._workers_known = message.workers
                continue
            if kind is messages.Farewell:
                self._farewell = message.reason
                continue
            if kind is not messages.Pending:
                window.done(message.number)
            future = futures.get(message.number)
            if kind is messages.Placement:
                others.append(message)
            elif kind is messages.Finished:
                if future is None or future.status == CANCELLED:
                    continue
                if message.payload is not None or future.status != FINISHED:
                    future.payload = message.payload
                future.nbytes = message.nbytes
                future.status = FINISHED
                settled.append(future)
            else:
                self._take_news(message, future, settled, others)
        asked: list[ClientInstruction] = []
        if settled:
            if self.vowed:
                self._keep_vows(settled)
            asked.append(Settle(settled))
        if others:
            asked.append(Deliver(others))
        if window.blocked:
            asked.append(Flush())
        return asked

    def _take_news(
        self, message: Any, future: FutureRecord | None, settled: list[FutureRecord], others: list[Any]
    ) -> None:
        """Take in what few futures hear: that they failed, or are pending again, or were cancelled."""
        kind = type(message)
        number = message.number
        self._retrying.pop(number, None)
        if kind is messages.Cancelled:
            self._cancelling.pop(number, None)
            self.lineage.cancel(number)
        if future is None or future.status == CANCELLED:
            return
        if kind is messages.Failed:
            future.reason = (message.kind, message.text, message.payload)
            future.status = ERROR
            settled.append(future)
            others.append(message)
        elif kind is messages.Pending:
            reopen(future)
        elif kind is messages.Cancelled:
            future.reason = ("TaskCancelled", message.reason, None)
            future.status = CANCELLED
            settled.append(future)

    def _keep_vows(self, settled: list[FutureRecord]) -> None:
        for future in settled:
            self.vowed.pop(future.number, None)

    # --- one scheduler after another --------------------------------------------------------------

    def _on_connected(self, event: events.SchedulerFound) -> list[ClientInstruction]:
        returns, another = bool(self._scheduler_id), event.id != self._scheduler_id
        self.connected = True
        self._scheduler_id = event.id
        return [Tell(self._words(another)), Flush()] if returns else [Flush()]

    def _words(self, another: bool) -> list[Any]:
        """Say again all that still counts, to a scheduler that may never have heard of it."""
        for future in self.futures.values():
            if future.status == FINISHED and future.payload is None:
                reopen(future)
        words: list[Any] = self._cancellations()
        silent = dict.fromkeys(self.window.open)
        for message in self.lineage.words(CHUNK_TASKS, self._is_unsent(), self.window.releases):
            words.append(message)
            if type(message) is messages.Submission:
                words += self._ruins(message)
                for task in message.tasks:
                    silent.pop(task[0], None)
        for number in silent:
            # It is not said again, so there will be no news of it: it takes no room.
            self.window.done(number)
        if self._retrying and not another:
            # The scheduler still has the failure; to another one these are tasks like others.
            words.append(messages.Retrial(list(self._retrying)))
        if another:
            self._retrying.clear()
        if self.vowed:
            words.append(messages.Vow(list(self.vowed)))
        words.append(messages.Reunion(self._workers_known))
        return words

    def _cancellations(self) -> list[Any]:
        """What was cancelled goes first: what the scheduler is not told of again it lets go of, but lets it run."""
        found: dict[tuple[bool, str], list[int]] = {}
        for number, message in self._cancelling.items():
            found.setdefault((message.force, message.reason), []).append(number)
        unsent = [message for message in self.outbox if type(message) is messages.Cancellation]
        return [messages.Cancellation(numbers, *how) for how, numbers in found.items()] + unsent

    def _ruins(self, message: messages.Submission) -> Iterator[messages.Ruin]:
        for task in message.tasks:
            failed = self.futures.get(task[0])
            if failed is not None and failed.status == ERROR and failed.reason is not None:
                yield messages.Ruin(task[0], *failed.reason)

    def _is_unsent(self) -> Callable[[int], bool]:
        """Return what tells whether the scheduler will hear of a number by itself, in its turn."""
        numbers: set[int] = set()
        for message in self.outbox:
            if type(message) is messages.Submission:
                numbers.update(task[0] for task in message.tasks)
            elif type(message) in (messages.Wish, messages.Scattering):
                numbers.update(item[0] for item in message.items)
        return lambda number: number in numbers or self.window.waits(number)

    def _on_disconnected(self, event: events.Disconnected) -> list[ClientInstruction]:
        self.connected = False
        if self._farewell or not self.reconnect_timeout_s:
            return self._close(self._farewell or event.reason)
        return [Search(self.reconnect_timeout_s)]

    def _on_search_ended(self, event: events.SearchEnded) -> list[ClientInstruction]:
        return self._close(event.reason)

    def _close(self, reason: str) -> list[ClientInstruction]:
        """No news will come any more: whatever is pending is lost."""
        self.connected = False
        self.closed = reason
        lost = [future for future in list(self.futures.values()) if future.status == PENDING]
        for future in lost:
            future.reason = ("SchedulerLost", reason, None)
            future.status = LOST
        return [Settle(lost), Close(reason)]

    _ON_EVENT: dict[type, Callable[..., list[ClientInstruction]]] = {
        events.SchedulerFound: _on_connected,
        events.Posted: _on_posted,
        events.Heard: _on_heard,
        events.Disconnected: _on_disconnected,
        events.SearchEnded: _on_search_ended,
    }


def reopen(future: FutureRecord) -> None:
    """The result was lost and is being computed again, or the failed task is tried again."""
    if future.status in (FINISHED, ERROR):
        future.status = PENDING
        future.payload = None
        future.reason = None
