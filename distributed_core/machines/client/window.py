"""How much of a client's work is at the scheduler at once; the rest waits here, in order.

What is submitted leaves in the order of its submission, and inputs come before their users: so what waits never keeps
what is there from ending. Releases and cancellations of what is at the scheduler overtake what waits, for they make
room; not so the release of what a waiting task needs, which follows the last of these. What is released before it left,
and what no waiting task needs, never leaves.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from distributed_core import messages

#: What a task takes beside its payload, about, in the lists where it waits.
TASK_BYTES = 500
#: Numbers in one message of those that are made here.
NUMBERS_MAX = 500


class Window:
    """The tasks of one client that are at the scheduler and not done, and what waits for room among them.

    It belongs to the loop; other threads may read `gone_bytes`.

    Parameters
    ----------
    tasks_max, bytes_max
        So many tasks, and so many bytes of their payloads and overhead, are at the scheduler and not done at most. One
        task that is larger by itself goes alone.

    Attributes
    ----------
    open
        The bytes of each task that was sent and is not done, by number.
    gone_bytes
        The bytes of all tasks that no longer wait: they were sent, or will never be.
    peak
        The most tasks that `open` ever had.
    """

    def __init__(self, tasks_max: int, bytes_max: int) -> None:
        self.tasks_max = max(1, tasks_max)
        self.bytes_max = max(1, bytes_max)
        self.open: dict[int, int] = {}
        self.gone_bytes = 0
        self.peak = 0
        self.open_bytes = 0
        self._backlog: deque[Any] = deque()
        self._waiting: dict[int, Any] = {}
        self._keys: dict[str, int] = {}
        #: How many waiting messages and tasks name a number.
        self._needed: dict[int, int] = {}
        #: Released, but needed by what waits.
        self._released: dict[int, None] = {}
        #: Cancelled before they left: the scheduler never heard of them.
        self._void: dict[int, None] = {}
        self._ready: list[Any] = []

    @property
    def blocked(self) -> bool:
        """Whether anything waits."""
        return bool(self._backlog)

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    @property
    def first_waiting(self) -> int | None:
        """The number that will leave next, or None."""
        return next(iter(self._waiting), None)

    def waits(self, number: int) -> bool:
        """Tell whether a task, or a wish, did not leave yet."""
        return number in self._waiting

    def releases(self, number: int) -> bool:
        """Tell whether a task will be released when those have left that need it."""
        return number in self._released

    def done(self, number: int) -> None:
        """There is news of a task's end."""
        nbytes = self.open.pop(number, None)
        if nbytes is not None:
            self.open_bytes -= nbytes

    def take(self, outbox: list[Any]) -> list[Any]:
        """Return what is to be sent now, in order, after these messages were posted too."""
        for message in outbox:
            kind = type(message)
            if kind is messages.Submission:
                rest = message if self._backlog else self._submit(message)
                if rest is not None:
                    self._keep(rest)
            elif kind is messages.Release:
                self._release(message.numbers)
            elif kind is messages.Cancellation:
                self._cancel(message)
            elif self._backlog and kind in (messages.Vow, messages.Retrial):
                self._in_order(message)
            elif self._backlog and kind is messages.Wish and any(key in self._keys for _, key in message.items):
                self._backlog.append(message)
                for number, key in message.items:
                    self._waiting[number] = (number, key, None, b"", ())
            else:
                self._ready.append(message)
        self._advance()
        ready, self._ready = self._ready, []
        return ready

    # --- what has room ----------------------------------------------------------------------------

    def _submit(self, message: messages.Submission) -> messages.Submission | None:
        """Send as much of a submission as there is room for; return the rest."""
        tasks, sizes, held = message.tasks, self.open, self.open_bytes
        place = 0
        for task in tasks:
            nbytes = payload_bytes(task[3]) + TASK_BYTES
            if sizes and (len(sizes) >= self.tasks_max or held + nbytes > self.bytes_max):
                break
            sizes[task[0]] = nbytes
            held += nbytes
            place += 1
        self.gone_bytes += held - self.open_bytes
        self.open_bytes = held
        if len(sizes) > self.peak:
            self.peak = len(sizes)
        if place == len(tasks):
            self._ready.append(message)
            return None
        if place or message.functions:
            self._ready.append(messages.Submission(message.functions, tasks[:place]))
        return messages.Submission([], tasks[place:])

    def _advance(self) -> None:
        """Send what waited and has room now."""
        backlog = self._backlog
        while backlog:
            message = backlog[0]
            if type(message) is messages.Submission:
                tasks = [task for task in message.tasks if task[0] in self._waiting]
                rest = (
                    self._submit(messages.Submission(message.functions, tasks)) if tasks or message.functions else None
                )
                self._left(tasks[: len(tasks) - len(rest.tasks)] if rest is not None else tasks)
                if rest is not None:
                    backlog[0] = rest
                    return
                backlog.popleft()
                continue
            backlog.popleft()
            if type(message) is messages.Wish:
                items = [item for item in message.items if self._waiting.pop(item[0], None) is not None]
                if items:
                    self._ready.append(messages.Wish(items))
                continue
            self._ready.append(message)
            self._unneed(message.numbers)

    def _left(self, tasks: list[Any]) -> None:
        inputs: list[int] = []
        for task in tasks:
            del self._waiting[task[0]]
            if task[1] is not None:
                self._keys.pop(task[1], None)
            inputs += task[4]
        if inputs:
            self._unneed(inputs)

    # --- what waits -------------------------------------------------------------------------------

    def _keep(self, message: messages.Submission) -> None:
        self._backlog.append(message)
        needed = self._needed
        for task in message.tasks:
            self._waiting[task[0]] = task
            if task[1] is not None:
                self._keys[task[1]] = task[0]
            for each in task[4]:
                needed[each] = needed.get(each, 0) + 1

    def _in_order(self, message: Any) -> None:
        """Keep what must not overtake the tasks that it names; send at once what is about others."""
        fields = message._asdict()
        late = [each for each in message.numbers if each in self._waiting]
        soon = [each for each in message.numbers if each not in self._waiting]
        if soon:
            self._ready.append(type(message)(**{**fields, "numbers": soon}))
        if late:
            self._backlog.append(type(message)(**{**fields, "numbers": late}))
            for each in late:
                self._needed[each] = self._needed.get(each, 0) + 1

    def _release(self, numbers: list[int]) -> None:
        if self._backlog:
            soon = []
            for each in numbers:
                if each in self._needed:
                    self._released[each] = None
                elif each in self._waiting:
                    self._drop(each)
                elif each in self._void:
                    del self._void[each]
                else:
                    soon.append(each)
            numbers = soon
        elif self._void:
            numbers = [each for each in numbers if each not in self._void]
            self._void.clear()
        self._send_release(numbers)

    def _send_release(self, numbers: list[int]) -> None:
        for each in numbers:
            self.done(each)
        for start in range(0, len(numbers), NUMBERS_MAX):
            self._ready.append(messages.Release(numbers[start : start + NUMBERS_MAX]))

    def _cancel(self, message: messages.Cancellation) -> None:
        if self._backlog and message.force:
            # Another client may have tasks of the same keys: those are to be cancelled too.
            self._in_order(message)
        elif self._backlog:
            soon = [each for each in message.numbers if each not in self._waiting]
            for each in message.numbers:
                if each in self._waiting:
                    # What waits and needs it is sent, and the scheduler answers that it is cancelled.
                    self._void[each] = None
                    self._drop(each)
            if soon:
                self._ready.append(message._replace(numbers=soon))
        else:
            self._ready.append(message)
        for each in message.numbers:
            self.done(each)

    def _drop(self, number: int) -> None:
        """Forget a task that was not sent."""
        self._unneed(self._forget(number))

    def _forget(self, number: int) -> Any:
        _, key, digest, payload, inputs, *_ = self._waiting.pop(number)
        if digest is not None:
            self.gone_bytes += payload_bytes(payload) + TASK_BYTES
            if key is not None:
                self._keys.pop(key, None)
        return inputs

    def _unneed(self, numbers: Any) -> None:
        """What named these numbers waits no more: release those that only waited for that."""
        needed = self._needed
        stack = list(numbers)
        free = []
        while stack:
            each = stack.pop()
            count = needed.get(each, 0)
            if count > 1:
                needed[each] = count - 1
                continue
            if needed.pop(each, None) is None or self._released.pop(each, self) is self:
                continue
            if each in self._waiting:
                stack += self._forget(each)
            elif self._void.pop(each, self) is self:
                free.append(each)
        if free:
            self._send_release(free)


def payload_bytes(payload: Any) -> int:
    """Return how many bytes a payload has."""
    if type(payload) is bytes:
        return len(payload)
    return sum(len(each) if type(each) is bytes else each.nbytes for each in payload)
