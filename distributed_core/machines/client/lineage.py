"""What a client would have to say to a scheduler that never heard of it: all that its futures are made from.

A task stays here as long as its future is held, or that of anything made from it: the same time that the scheduler
keeps it. Called under the cells' lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distributed_core import messages


class Datum(NamedTuple):
    """Scattered data: the scheduler knows it by this key, and workers have it."""

    key: str | None
    nbytes: int


class Lineage:
    """The words of one client that still count, oldest first."""

    def __init__(self) -> None:
        #: By number: a task as it was submitted, scattered data, or the key of a task of others.
        self.entries: dict[int, list[Any] | Datum | str] = {}
        #: How many entries have this one as an input.
        self.users: dict[int, int] = {}
        #: Released, and still an input of others.
        self.let_go: dict[int, None] = {}
        #: Not to be said again: whatever is made from them is cancelled too.
        self.cancelled: dict[int, None] = {}
        self._functions: dict[bytes, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, functions: list[Any], tasks: list[Any]) -> None:
        """Remember what was submitted; the lists are as those of `Submission`."""
        for function in functions:
            self._functions[function[0]] = function
        entries = self.entries
        for task in tasks:
            entries[task[0]] = task
            for each in task[4]:
                self.users[each] = self.users.get(each, 0) + 1

    def note(self, message: Any) -> None:
        """Remember what else was said that counts."""
        kind = type(message)
        if kind is messages.Release:
            self._release(message.numbers)
        elif kind is messages.Cancellation:
            for number in message.numbers:
                self.cancel(number)
        elif kind is messages.Wish:
            self.entries.update((number, key) for number, key in message.items)
        elif kind is messages.Scattering:
            self.entries.update((number, Datum(key, nbytes)) for number, key, nbytes in message.items)

    def cancel(self, number: int) -> None:
        """It was cancelled, by whomever."""
        if number in self.entries:
            self.cancelled[number] = None

    def _release(self, numbers: list[int]) -> None:
        stack = list(numbers)
        while stack:
            number = stack.pop()
            if number in self.users:
                if number in self.entries:
                    self.let_go[number] = None
                continue
            self.let_go.pop(number, None)
            entry = self.entries.pop(number, None)
            if self.cancelled:
                self.cancelled.pop(number, None)
            if type(entry) is not list:
                continue
            for each in entry[4]:
                self.users[each] -= 1
                if not self.users[each]:
                    del self.users[each]
                    if each in self.let_go:
                        stack.append(each)

    def words(self, at_once: int, unsent: Callable[[int], bool], unreleased: Callable[[int], bool]) -> Iterator[Any]:
        """Say everything again, at most `at_once` tasks in a message, but for what was cancelled or not yet sent.

        A function leaves with the first task that uses it, or before it where that one is not yet sent.
        """
        known: dict[bytes, None] = {}
        functions: list[Any] = []
        tasks: list[Any] = []
        needed: set[int] = set()
        for number, entry in list(self.entries.items()):
            if number in self.cancelled:
                continue
            if type(entry) is list:
                digest = entry[2]
                if digest not in known:
                    known[digest] = None
                    functions.append(self._functions[digest])
            if unsent(number):
                # What it needs is released after it, by what waits behind it.
                needed.update(entry[4] if type(entry) is list else ())
                continue
            if type(entry) is list:
                tasks.append(entry)
            if tasks and (len(tasks) == at_once or type(entry) is not list):
                yield messages.Submission(functions, tasks)
                functions, tasks = [], []
            if type(entry) is Datum:
                yield messages.Reclaim([[number, entry.key, entry.nbytes]])
            elif type(entry) is str:
                yield messages.Wish([[number, entry]])
        if tasks or functions:
            yield messages.Submission(functions, tasks)
        let_go = [
            number for number in self.let_go if number not in needed and not unsent(number) and not unreleased(number)
        ]
        if let_go:
            yield messages.Release(let_go)
        self._functions = {digest: self._functions[digest] for digest in known}

    def knows(self, digest: bytes) -> bool:
        """Tell whether a function was said to the scheduler."""
        return digest in self._functions
