"""What a client knows of each of its futures.

A cell is shared by the futures of one key. User threads read it and the loop writes it; `Cells.lock` guards what both
touch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from distributed_core import errors
from distributed_core.machines.client import machine
from distributed_core.machines.client.futures import CANCELLED, ERROR, FINISHED, LOST, PENDING, FutureRecord
from distributed_core.protocol import payload as payloads

__all__ = ["CANCELLED", "ERROR", "FINISHED", "LOST", "PENDING", "Cell", "Cells"]


class Cell(FutureRecord):
    """One future of the client, with what the machine need not know of it.

    Attributes
    ----------
    name
        The function's name, from which the key is made where the user gave none.
    waiters
        Called, without arguments, when it is no longer pending.
    refs
        How many `Future` objects there are of it.
    """

    __slots__ = ("key", "name", "refs", "task", "waiters")

    def __init__(self, number: int, name: str, key: str | None) -> None:
        # Not by a call of the parent's: one is made for each task.
        self.number = number
        self.name = name
        self.key = key
        self.status = PENDING
        self.payload: payloads.Frames | None = None
        self.nbytes = 0
        self.reason: tuple[str, str, payloads.Frames | None] | None = None
        self.waiters: list[Callable[[], None]] | None = None
        self.refs = 0
        self.task: tuple[int, str] | None = None

    def exception(self) -> BaseException:
        """Return, anew each time, the exception that stands for the failure."""
        if self.status == CANCELLED:
            text = self.reason[1] if self.reason else "the client cancelled it"
            return errors.TaskCancelled(f"{self.name} was cancelled: {text}")
        if self.status == LOST or self.reason is None:
            text = self.reason[1] if self.reason else "the connection to the scheduler ended"
            return errors.SchedulerLost(
                f"the result of {self.name} is lost: {text}; connect a new Client and submit again"
            )
        kind, text, frames = self.reason
        if kind == "exception" and frames is not None:
            return payloads.loads_exception(frames)
        made = getattr(errors, kind, None)
        if isinstance(made, type) and issubclass(made, errors.TaskError):
            return made(text)
        return errors.TaskError(f"{kind}: {text}")


class Cells:
    """All cells of a client, by number and by key."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_number: dict[int, Cell] = {}
        self.by_key: dict[str, Cell] = {}
        self._count = 0

    def new(self, name: str, key: str | None) -> Cell:
        """Return a new cell; the caller holds the lock."""
        self._count += 1
        cell = Cell(self._count, name, key)
        self.by_number[cell.number] = cell
        if key is not None:
            self.by_key[key] = cell
        return cell

    @property
    def last_number(self) -> int:
        """The newest number."""
        return self._count

    def reserve(self, count: int) -> int:
        """Return the first of `count` numbers that follow each other and have no cells; the caller holds the lock."""
        first = self._count + 1
        self._count += count
        return first

    def put(self, cell: Cell) -> None:
        """Take a cell of a reserved number; the caller holds the lock."""
        self.by_number[cell.number] = cell
        if cell.key is not None:
            self.by_key[cell.key] = cell

    def of_own_name(self, key: str, client_id: str) -> Cell | None:
        """Return the cell whose name was made from its number, if `key` is such a name; the caller holds the lock."""
        head, _, number = key.rpartition("-")
        if not head.endswith("-" + client_id) or not number.isdecimal():
            return None
        return self.by_number.get(int(number))

    def finish(self, cell: Cell, status: str) -> None:
        """Give the cell its status and wake who waits for it."""
        cell.status = status
        self.settle(cell)

    def settle(self, cell: Cell) -> None:
        """The cell has its status: wake who waits for it.

        Whoever begins to wait afterwards sees the status, and who did before is among the waiters.
        """
        with self.lock:
            waiters, cell.waiters = cell.waiters, None
        for wake in waiters or ():
            wake()

    def reopen(self, cell: Cell) -> None:
        """The failed task is tried again."""
        with self.lock:
            machine.reopen(cell)

    def watch(self, cell: Cell, wake: Callable[[], None]) -> bool:
        """Let `wake` be called when the cell is no longer pending; return False if that is so already."""
        with self.lock:
            if cell.status != PENDING:
                return False
            if cell.waiters is None:
                cell.waiters = [wake]
            else:
                cell.waiters.append(wake)
            return True

    def call_when_done(self, cell: Cell, wake: Callable[[], None]) -> None:
        """Call `wake` when the cell is no longer pending: on the loop, or here and now if that is so already."""
        if not self.watch(cell, wake):
            wake()

    def unwatch(self, cell: Cell, wake: Callable[[], None]) -> None:
        """Take back `watch`."""
        with self.lock:
            if cell.waiters and wake in cell.waiters:
                cell.waiters.remove(wake)

    def drop(self, cell: Cell) -> bool:
        """One `Future` of the cell is gone; return True if it was the last. The caller holds the lock."""
        cell.refs -= 1
        if cell.refs > 0:
            return False
        self.by_number.pop(cell.number, None)
        if cell.key is not None and self.by_key.get(cell.key) is cell:
            del self.by_key[cell.key]
        return True
