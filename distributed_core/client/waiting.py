"""Waiting for several futures: `wait`, `as_completed`."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

from distributed_core.client.future import Future

ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[Future]
    not_done: set[Future]


def wait(futures: Iterable[Future], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> Any:
    """Wait until all futures are done, or one is.

    Parameters
    ----------
    timeout
        Seconds to wait at most.
    return_when
        `ALL_COMPLETED` or `FIRST_COMPLETED`.

    Returns
    -------
    DoneAndNotDone
        With an asynchronous client, a coroutine of it.

    Raises
    ------
    TimeoutError
        It took longer than `timeout`.
    ValueError
        No futures, or an unknown `return_when`.
    """
    futures = list(futures)
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED):
        raise ValueError(f"return_when is {ALL_COMPLETED} or {FIRST_COMPLETED}, not {return_when!r}")
    if not futures:
        return DoneAndNotDone(set(), set())
    return futures[0].client._answer(_wait(futures, timeout, return_when))


async def _wait(futures: list[Future], timeout: float | None, return_when: str) -> DoneAndNotDone:
    session = futures[0].client._session
    if return_when == ALL_COMPLETED:
        await asyncio.wait_for(session.settled([future._cell for future in futures]), timeout)
    elif not any(future.done() for future in futures):
        loop = asyncio.get_running_loop()
        first = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(first.set)

        for future in futures:
            if not session.cells.watch(future._cell, wake):
                first.set()
        try:
            await asyncio.wait_for(first.wait(), timeout)
        finally:
            for future in futures:
                session.cells.unwatch(future._cell, wake)
    done = {future for future in futures if future.done()}
    return DoneAndNotDone(done, set(futures) - done)


class as_completed:
    """Iterate over futures in the order in which they are done; `async for` works as well.

    Parameters
    ----------
    futures
        What to wait for; `add` may bring more while it runs.
    with_results
        Yield (future, result) instead of the future; a failed task raises.
    timeout
        Seconds that the whole iteration may take.

    Raises
    ------
    TimeoutError
        While iterating: the time is over.
    """

    def __init__(
        self, futures: Iterable[Future] = (), *, with_results: bool = False, timeout: float | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._left = 0
        self._with_results = with_results
        self._timeout = timeout
        self._wakers: list[Any] = []
        for future in futures:
            self.add(future)

    def add(self, future: Future) -> None:
        """Wait for this future too."""
        with self._lock:
            self._left += 1
        future.add_done_callback(self._take)

    def _take(self, future: Future) -> None:
        self._done.put(future)
        with self._lock:
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def count(self) -> int:
        """Return how many futures were not handed out yet."""
        return self._left

    def is_empty(self) -> bool:
        """Tell whether all futures were handed out."""
        return self._left == 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._left:
            raise StopIteration
        try:
            future = self._done.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"{self._left} futures were not done within {self._timeout:g} s") from None
        with self._lock:
            self._left -= 1
        return (future, future.result()) if self._with_results else future

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._left:
            raise StopAsyncIteration
        future = await asyncio.wait_for(self._next_here(), self._timeout)
        with self._lock:
            self._left -= 1
        return (future, await future) if self._with_results else future

    async def _next_here(self) -> Future:
        loop = asyncio.get_running_loop()
        some = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(some.set)

        while True:
            some.clear()
            with self._lock:
                self._wakers.append(wake)
            try:
                return self._done.get_nowait()
            except queue.Empty:
                await some.wait()
