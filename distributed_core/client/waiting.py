"""Waiting for several futures: `wait`, `as_completed`."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from distributed_core.client.future import Future, flat_futures
from distributed_core.context import away

ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[Future]
    not_done: set[Future]


def wait(futures: Future | Iterable[Future], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> Any:
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
    futures = [futures] if isinstance(futures, Future) else list(futures)
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


def fire_and_forget(obj: Any) -> None:
    """Let tasks run to their end although nobody holds their futures, and although their client leaves.

    Parameters
    ----------
    obj
        A future, or futures in lists, dicts and the like.
    """
    by_client: dict[int, list[Future]] = {}
    for future in flat_futures(obj):
        by_client.setdefault(id(future.client), []).append(future)
    for futures in by_client.values():
        futures[0].client.fire_and_forget(futures)


class as_completed:
    """Iterate over futures in the order in which they are done; `async for` works as well.

    Parameters
    ----------
    futures
        What to wait for; `add` may bring more while it runs.
    loop
        Accepted for the sake of dask's signature.
    with_results
        Yield (future, result) instead of the future.
    raise_errors
        With results: raise what a failed task raised; else its exception stands in place of the result.
    timeout
        Seconds that the whole iteration may take.

    Raises
    ------
    TimeoutError
        While iterating: the time is over.
    """

    def __init__(
        self,
        futures: Iterable[Future] | None = None,
        loop: Any = None,
        with_results: bool = False,
        raise_errors: bool = True,
        *,
        timeout: float | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._left: dict[int, Future] = {}
        self._with_results = with_results
        self._raise_errors = raise_errors
        self._deadline = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._wakers: list[Any] = []
        self.update(futures or ())

    def add(self, future: Future) -> None:
        """Wait for this future too."""
        with self._lock:
            self._left[id(future)] = future
        future.client._session.cells.call_when_done(future._cell, partial(self._take, future))

    def update(self, futures: Iterable[Future]) -> None:
        """Wait for these futures too."""
        for future in futures:
            self.add(future)

    def clear(self) -> None:
        """Wait for nothing more."""
        with self._lock:
            self._left.clear()

    def count(self) -> int:
        """Return how many futures were not handed out yet."""
        return len(self._left)

    def has_ready(self) -> bool:
        """Tell whether a future can be handed out at once."""
        return not self._done.empty()

    def is_empty(self) -> bool:
        """Tell whether all futures were handed out."""
        return not self._left

    def next_batch(self, block: bool = True) -> list[Any]:
        """Return all that are done, at least one unless `block` is false.

        Raises
        ------
        StopIteration
            All were handed out.
        """
        batch = [next(self)] if block else []
        while self._left and not self._done.empty():
            future = self._done.get_nowait()
            if self._hand_out(future):
                batch.append(self._shown(future))
        return batch

    def batches(self) -> Iterator[list[Any]]:
        """Iterate over what is done in batches: as much as there is each time."""
        while self._left:
            yield self.next_batch()

    def _take(self, future: Future) -> None:
        self._done.put(future)
        with self._lock:
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def _hand_out(self, future: Future) -> bool:
        """Note that a future is handed out; return False for one that was taken back by `clear`."""
        with self._lock:
            return self._left.pop(id(future), None) is not None

    def _shown(self, future: Future) -> Any:
        if not self._with_results:
            return future
        try:
            return future, future.result()
        except BaseException as error:
            if self._raise_errors or not isinstance(error, Exception):
                raise
            return future, error

    def _left_s(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while self._left:
            try:
                future = self._take_next()
            except queue.Empty:
                raise TimeoutError(f"{len(self._left)} futures were not done within {self._timeout:g} s") from None
            if self._hand_out(future):
                return self._shown(future)
        raise StopIteration

    def _take_next(self) -> Future:
        try:
            return self._done.get_nowait()
        except queue.Empty:
            with away():
                return self._done.get(timeout=self._left_s())

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while self._left:
            future = await asyncio.wait_for(self._next_here(), self._left_s())
            if not self._hand_out(future):
                continue
            if not self._with_results:
                return future
            try:
                return future, await future
            except Exception as error:
                if self._raise_errors:
                    raise
                return future, error
        raise StopAsyncIteration

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
