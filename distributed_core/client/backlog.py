"""What waits in a client's process because its window at the scheduler is full, and who waits for that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from distributed_core.client.cells import Cells
from distributed_core.context import away
from distributed_core.errors import ConnectionLost
from distributed_core.machines.client import ClientMachine

#: Where more bytes of tasks wait in this process, whoever submits waits too.
BACKLOG_BYTES_MAX = 64 << 20
#: Until this part of it has left. Small: who waits releases nothing meanwhile, and what ends is held by everybody.
ROOM_FRACTION = 1 / 8


class Backlog:
    """The part of a `Session` that holds work back.

    Attributes
    ----------
    window
        What is at the scheduler, and what waits for room there; it belongs to the loop.
    """

    closed: bool
    _wake: Callable[[], None]

    def __init__(self, cells: Cells, machine: ClientMachine) -> None:
        self.window = machine.window
        self._machine = machine
        self._lock = cells.lock
        self._cells = cells
        self._room_waiters: list[Callable[[], None]] = []
        self._late: list[tuple[int, asyncio.Future[None]]] = []
        self._thread = 0

    @property
    def backlog_bytes(self) -> int:
        """How many bytes of tasks wait in this process, about."""
        return self._machine.posted_bytes - self.window.gone_bytes

    def _tell_of_room(self) -> None:
        """Wake who waited for what has happened by now."""
        if self._room_waiters and self.backlog_bytes <= BACKLOG_BYTES_MAX * (1 - ROOM_FRACTION):
            self._make_room()
        if self._late:
            first = self.window.first_waiting
            late, self._late = self._late, []
            for number, waiter in late:
                if first is not None and first <= number:
                    self._late.append((number, waiter))
                elif not waiter.done():
                    waiter.set_result(None)

    def _make_room(self) -> None:
        with self._lock:
            waiters, self._room_waiters = self._room_waiters, []
        for wake in waiters:
            wake()
        if self.closed:
            late, self._late = self._late, []
            for _, waiter in late:
                if not waiter.done():
                    waiter.set_exception(ConnectionLost("the connection to the scheduler is closed"))

    def _wants_room(self, wake: Callable[[], None]) -> bool:
        """Let `wake` be called when there is room again; return False where there is some now."""
        if self.backlog_bytes <= BACKLOG_BYTES_MAX:
            return False
        with self._lock:
            if self.closed:
                return False
            self._room_waiters.append(wake)
        # What is posted already may have left meanwhile: the loop looks once more.
        self._wake()
        return True

    def wait_for_room(self) -> None:
        """Block this thread while too much waits in this process; never the loop's, nor a seat of a worker.

        Who submits calls it before it takes a lock or numbers a task.
        """
        if self.backlog_bytes <= BACKLOG_BYTES_MAX or threading.get_ident() == self._thread:
            return
        event = threading.Event()
        if self._wants_room(event.set):
            with away():
                event.wait()

    async def room(self) -> None:
        """Return when not too much waits in this process; for who submits on the loop."""
        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        if self._wants_room(wake):
            await event.wait()

    async def caught_up(self) -> None:
        """Return when all that was submitted until now is at the scheduler.

        Raises
        ------
        ConnectionLost
            The connection ended before that.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._late.append((self._cells.last_number, waiter))
        await waiter
