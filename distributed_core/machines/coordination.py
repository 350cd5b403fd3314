"""Locks, semaphores, events, queues and variables: who waits for what, and who gets it. Pure: events in, answers out.

First come, first served, for each name. What a holder has goes with it when its connection ends, and whoever has gone
is never given anything. Values are tokens here: numbers that stand for what the extension keeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Request = int
Holder = int
Token = int


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A holder asks for `operation` on the thing of that name; the answer may come later."""

    request: Request
    holder: Holder
    operation: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestDropped:
    """Nobody waits for the answer any more: time is over, or the one who asked gave up."""

    request: Request


@dataclass(frozen=True, slots=True)
class HolderLost:
    """The connection of a holder ended."""

    holder: Holder


# --- instructions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell who asked; `well` is false where `value` is a sentence that says what was wrong."""

    request: Request
    value: Any
    well: bool = True


@dataclass(frozen=True, slots=True)
class ForgetValue:
    """Nothing holds this value any more."""

    token: Token


# --- records --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Waiter:
    request: Request
    holder: Holder
    arguments: dict[str, Any]


@dataclass(slots=True)
class _Semaphore:
    most: int
    leases: dict[str, Holder] = field(default_factory=dict)
    waiters: deque[_Waiter] = field(default_factory=deque)
    users: dict[Holder, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Flag:
    up: bool = False
    waiters: deque[_Waiter] = field(default_factory=deque)
    users: dict[Holder, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Line:
    """A queue: values, who waits for one, and who waits to put one."""

    most: int
    tokens: deque[Token] = field(default_factory=deque)
    getters: deque[_Waiter] = field(default_factory=deque)
    putters: deque[_Waiter] = field(default_factory=deque)
    users: dict[Holder, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Slot:
    """A variable."""

    token: Token | None = None
    waiters: deque[_Waiter] = field(default_factory=deque)


class CoordinationMachine:
    """All named things of a cluster."""

    def __init__(self) -> None:
        #: Which lease has a lock, by the lock's name, and who holds each lease.
        self.locked: dict[str, str] = {}
        self.leases: dict[str, Holder] = {}
        #: Who waits for locks, oldest first: `names`, `count` of them, `lease`.
        self.lock_waiters: deque[_Waiter] = deque()
        self.semaphores: dict[str, _Semaphore] = {}
        self.flags: dict[str, _Flag] = {}
        self.lines: dict[str, _Line] = {}
        self.slots: dict[str, _Slot] = {}
        self._out: list[Answer | ForgetValue] = []

    def handle(self, event: Asked | RequestDropped | HolderLost) -> list[Answer | ForgetValue]:
        """Apply what happened; return what is to be done, in order."""
        if isinstance(event, Asked):
            handler = self._OPERATIONS.get(event.operation)
            if handler is None:
                self._refuse(event, f"there is no operation {event.operation!r:.60}")
            else:
                handler(self, event)
        elif isinstance(event, RequestDropped):
            self._drop_waiters(lambda waiter: waiter.request == event.request)
        else:
            self._lose(event.holder)
        out, self._out = self._out, []
        return out

    def _answer(self, asked: Asked | _Waiter, value: Any) -> None:
        self._out.append(Answer(asked.request, value))

    def _refuse(self, asked: Asked, text: str) -> None:
        self._out.append(Answer(asked.request, text, False))

    @staticmethod
    def _waiter(asked: Asked) -> _Waiter:
        return _Waiter(asked.request, asked.holder, asked.arguments)

    # --- locks ------------------------------------------------------------------------------------

    def _acquire_locks(self, asked: Asked) -> None:
        """Arguments: `names`, `count` (how many of them), `lease`."""
        names, count = asked.arguments["names"], asked.arguments["count"]
        if not 1 <= count <= len(set(names)):
            self._refuse(asked, f"{count} of {len(set(names))} locks cannot be had")
            return
        if asked.arguments["lease"] in self.leases:
            self._refuse(asked, "this lock is held already, by this very object; release it first")
            return
        self.lock_waiters.append(self._waiter(asked))
        self._give_locks()

    def _give_locks(self) -> None:
        """Give locks to those that can have enough; what an earlier one waits for, a later one does not get."""
        promised: dict[str, None] = {}
        rest: deque[_Waiter] = deque()
        for waiter in self.lock_waiters:
            wanted = list(dict.fromkeys(waiter.arguments["names"]))
            free = [name for name in wanted if name not in self.locked and name not in promised]
            lease = waiter.arguments["lease"]
            if len(free) < waiter.arguments["count"] or lease in self.leases:
                promised.update(dict.fromkeys(wanted))
                rest.append(waiter)
                continue
            self.leases[lease] = waiter.holder
            for name in free[: waiter.arguments["count"]]:
                self.locked[name] = lease
            self._answer(waiter, True)
        self.lock_waiters = rest

    def _release_locks(self, asked: Asked) -> None:
        """Arguments: `lease`."""
        lease = asked.arguments["lease"]
        if self.leases.get(lease) != asked.holder:
            self._refuse(asked, "this lock is not held by who releases it")
            return
        self._free_lease(lease)
        self._answer(asked, True)
        self._give_locks()

    def _free_lease(self, lease: str) -> None:
        del self.leases[lease]
        self.locked = {name: each for name, each in self.locked.items() if each != lease}

    def _is_locked(self, asked: Asked) -> None:
        self._answer(asked, asked.name in self.locked)

    # --- semaphores -------------------------------------------------------------------------------

    def _semaphore(self, asked: Asked) -> _Semaphore | None:
        """Arguments of all: `most`."""
        most = asked.arguments["most"]
        found = self.semaphores.get(asked.name)
        if found is None:
            found = self.semaphores[asked.name] = _Semaphore(most)
        elif found.most != most:
            self._refuse(asked, f"the semaphore {asked.name!r:.60} has {found.most} leases, not {most}")
            return None
        found.users[asked.holder] = None
        return found

    def _acquire_semaphore(self, asked: Asked) -> None:
        """Arguments: `lease`."""
        semaphore = self._semaphore(asked)
        if semaphore is not None:
            semaphore.waiters.append(self._waiter(asked))
            self._give_leases(semaphore)

    def _give_leases(self, semaphore: _Semaphore) -> None:
        while semaphore.waiters and len(semaphore.leases) < semaphore.most:
            waiter = semaphore.waiters.popleft()
            semaphore.leases[waiter.arguments["lease"]] = waiter.holder
            self._answer(waiter, True)

    def _release_semaphore(self, asked: Asked) -> None:
        """Arguments: `lease`."""
        semaphore = self._semaphore(asked)
        if semaphore is None:
            return
        if semaphore.leases.get(asked.arguments["lease"]) != asked.holder:
            self._refuse(asked, "this lease is not held by who releases it")
            return
        del semaphore.leases[asked.arguments["lease"]]
        self._answer(asked, True)
        self._give_leases(semaphore)

    def _count_leases(self, asked: Asked) -> None:
        semaphore = self._semaphore(asked)
        if semaphore is not None:
            self._answer(asked, len(semaphore.leases))

    def _close_semaphore(self, asked: Asked) -> None:
        semaphore = self.semaphores.pop(asked.name, None)
        for waiter in semaphore.waiters if semaphore is not None else ():
            self._out.append(Answer(waiter.request, f"the semaphore {asked.name!r:.60} was closed", False))
        self._answer(asked, True)

    # --- events -----------------------------------------------------------------------------------

    def _flag(self, asked: Asked) -> _Flag:
        flag = self.flags.setdefault(asked.name, _Flag())
        flag.users[asked.holder] = None
        return flag

    def _wait_event(self, asked: Asked) -> None:
        flag = self._flag(asked)
        if flag.up:
            self._answer(asked, True)
        else:
            flag.waiters.append(self._waiter(asked))

    def _set_event(self, asked: Asked) -> None:
        flag = self._flag(asked)
        flag.up = True
        self._answer(asked, True)
        while flag.waiters:
            self._answer(flag.waiters.popleft(), True)

    def _clear_event(self, asked: Asked) -> None:
        self._flag(asked).up = False
        self._answer(asked, True)

    def _is_set(self, asked: Asked) -> None:
        self._answer(asked, self._flag(asked).up)

    # --- queues -----------------------------------------------------------------------------------

    def _line(self, asked: Asked) -> _Line:
        """Arguments of all: `most`, 0 for any number."""
        line = self.lines.setdefault(asked.name, _Line(asked.arguments["most"]))
        line.most = line.most or asked.arguments["most"]
        line.users[asked.holder] = None
        return line

    def _put(self, asked: Asked) -> None:
        """Arguments: `token`."""
        line = self._line(asked)
        line.putters.append(self._waiter(asked))
        self._move_line(line)

    def _take(self, asked: Asked) -> None:
        """Arguments: `batch`: 0 for one value, -1 for all that there are, n for n of them."""
        line = self._line(asked)
        line.getters.append(self._waiter(asked))
        self._move_line(line)

    def _move_line(self, line: _Line) -> None:
        """Let values in while there is room, and out while somebody waits for them, until nothing moves."""
        moved = True
        while moved:
            moved = False
            while line.putters and (not line.most or len(line.tokens) < line.most):
                waiter = line.putters.popleft()
                line.tokens.append(waiter.arguments["token"])
                self._answer(waiter, True)
                moved = True
            if line.getters:
                batch = line.getters[0].arguments["batch"]
                count = len(line.tokens) if batch < 0 else max(1, batch)
                if count <= len(line.tokens):
                    waiter = line.getters.popleft()
                    self._answer(waiter, [line.tokens.popleft() for _ in range(count)])
                    moved = True

    def _size(self, asked: Asked) -> None:
        self._answer(asked, len(self._line(asked).tokens))

    def _close_line(self, asked: Asked) -> None:
        self._forget_line(asked.name)
        self._answer(asked, True)

    def _forget_line(self, name: str) -> None:
        line = self.lines.pop(name, None)
        if line is None:
            return
        for token in [*line.tokens, *(waiter.arguments["token"] for waiter in line.putters)]:
            self._out.append(ForgetValue(token))
        for waiter in [*line.getters, *line.putters]:
            self._out.append(Answer(waiter.request, f"the queue {name!r:.60} was closed", False))

    # --- variables --------------------------------------------------------------------------------

    def _set_variable(self, asked: Asked) -> None:
        """Arguments: `token`."""
        slot = self.slots.setdefault(asked.name, _Slot())
        if slot.token is not None:
            self._out.append(ForgetValue(slot.token))
        slot.token = asked.arguments["token"]
        self._answer(asked, True)
        while slot.waiters:
            self._answer(slot.waiters.popleft(), slot.token)

    def _get_variable(self, asked: Asked) -> None:
        slot = self.slots.setdefault(asked.name, _Slot())
        if slot.token is not None:
            self._answer(asked, slot.token)
        else:
            slot.waiters.append(self._waiter(asked))

    def _delete_variable(self, asked: Asked) -> None:
        slot = self.slots.get(asked.name)
        if slot is not None and slot.token is not None:
            self._out.append(ForgetValue(slot.token))
            slot.token = None
        self._forget_idle_slots()
        self._answer(asked, True)

    def _forget_idle_slots(self) -> None:
        for name in [name for name, slot in self.slots.items() if slot.token is None and not slot.waiters]:
            del self.slots[name]

    # --- those who go -----------------------------------------------------------------------------

    def _drop_waiters(self, gone: Callable[[_Waiter], bool]) -> None:
        """Take these out of all lines, and give to others what they stood before."""
        self.lock_waiters = deque(each for each in self.lock_waiters if not gone(each))
        self._give_locks()
        for semaphore in self.semaphores.values():
            semaphore.waiters = deque(each for each in semaphore.waiters if not gone(each))
            self._give_leases(semaphore)
        for flag in self.flags.values():
            flag.waiters = deque(each for each in flag.waiters if not gone(each))
        for line in self.lines.values():
            for waiter in line.putters:
                if gone(waiter):
                    self._out.append(ForgetValue(waiter.arguments["token"]))
            line.putters = deque(each for each in line.putters if not gone(each))
            line.getters = deque(each for each in line.getters if not gone(each))
            self._move_line(line)
        for slot in self.slots.values():
            slot.waiters = deque(each for each in slot.waiters if not gone(each))
        self._forget_idle_slots()

    def _lose(self, holder: Holder) -> None:
        for lease in [lease for lease, each in self.leases.items() if each == holder]:
            self._free_lease(lease)
        for semaphore in self.semaphores.values():
            semaphore.leases = {lease: each for lease, each in semaphore.leases.items() if each != holder}
        self._drop_waiters(lambda waiter: waiter.holder == holder)
        # A thing that nobody of those who are there ever used is of no use.
        self.semaphores = {name: each for name, each in self.semaphores.items() if _still_used(each.users, holder)}
        self.flags = {name: each for name, each in self.flags.items() if _still_used(each.users, holder)}
        for name in [name for name, line in self.lines.items() if not _still_used(line.users, holder)]:
            self._forget_line(name)

    _OPERATIONS: dict[str, Callable[..., None]] = {
        "lock_acquire": _acquire_locks,
        "lock_release": _release_locks,
        "lock_locked": _is_locked,
        "semaphore_acquire": _acquire_semaphore,
        "semaphore_release": _release_semaphore,
        "semaphore_value": _count_leases,
        "semaphore_close": _close_semaphore,
        "event_wait": _wait_event,
        "event_set": _set_event,
        "event_clear": _clear_event,
        "event_is_set": _is_set,
        "queue_put": _put,
        "queue_get": _take,
        "queue_qsize": _size,
        "queue_close": _close_line,
        "variable_set": _set_variable,
        "variable_get": _get_variable,
        "variable_delete": _delete_variable,
    }


def _still_used(users: dict[Holder, None], lost: Holder) -> bool:
    users.pop(lost, None)
    return bool(users)
