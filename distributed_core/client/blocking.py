"""The bridge from other threads to a loop: one generic way, and no second client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from distributed_core.comm.loops import new_event_loop
from distributed_core.context import away, context

T = TypeVar("T")

#: A task that asks its client for less than this keeps its seat.
SHORT_S = 0.01
#: What still runs on a loop that was stopped is cancelled, and has so long to end.
LAST_S = 1.0


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self, name: str) -> None:
        self.loop = new_event_loop()
        ready = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self.loop)
            self.loop.call_soon(ready.set)
            self.loop.run_forever()
            _end_tasks(self.loop)
            self.loop.close()

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()
        try:
            ready.wait()
        except BaseException:
            # Ctrl-C; whoever would stop it later does not get it.
            self.loop.call_soon_threadsafe(self.loop.stop)
            raise

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `work` on the loop and return its result.

        Raises
        ------
        TimeoutError
            It took longer than `timeout_s` seconds; it is cancelled.
        RuntimeError
            The caller is the loop itself, which would wait for itself for ever.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "a blocking call on the client's own loop would never return; use an asynchronous client"
            )
        future = asyncio.run_coroutine_threadsafe(_guarded(work), self.loop)
        try:
            value, fatal = _wait_for(future, timeout_s)
        except concurrent.futures.TimeoutError:
            # Raised by the work itself, or by our waiting for it: the same to the caller.
            future.cancel()
            raise
        except BaseException:
            # Ctrl-C here must not leave the work running there.
            future.cancel()
            raise
        if fatal is not None:
            raise fatal
        return value  # type: ignore[return-value]

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs: somebody may wait for it in another thread, and nobody shall complain of it later."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=LAST_S))


def _wait_for(future: concurrent.futures.Future[T], timeout_s: float | None) -> T:
    """Wait for the loop's answer; a task that waits for long leaves its seat to others meanwhile."""
    if not context.run or (timeout_s is not None and timeout_s <= SHORT_S):
        return future.result(timeout_s)
    try:
        return future.result(SHORT_S)
    except concurrent.futures.TimeoutError:
        if future.done():
            # It ended just now, or with a TimeoutError of its own.
            return future.result()
    with away():
        return future.result(None if timeout_s is None else timeout_s - SHORT_S)


async def _guarded(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """Carry a task's SystemExit or KeyboardInterrupt past the loop, which would end with it, to who asked."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error
