"""A handle on a task and on its result, wherever that is."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any

from distributed_core.client import cells as states
from distributed_core.context import away
from distributed_core.errors import UsageError
from distributed_core.protocol import payload as payloads

if TYPE_CHECKING:
    from distributed_core.client.cells import Cell
    from distributed_core.client.client import Client


class Future:
    """The result of a task that may not exist yet.

    While any `Future` of a task is alive, its result is kept on the cluster. It can be an argument of further tasks, at
    any depth in lists, dicts or other objects; its data then moves between workers and not through the client.

    Attributes
    ----------
    key
        The task's name.
    status
        `pending`, `finished`, `error`, `cancelled`, or `lost` where the scheduler is gone.
    client
        The client that it belongs to.

    Parameters
    ----------
    key
        The name of a task that exists at the scheduler, whoever made it; of an unknown one the future is cancelled.
    client
        By default `get_client()`.
    """

    __slots__ = ("__weakref__", "_cell", "_released", "client")

    def __init__(self, key: str, client: Client | None = None) -> None:
        if client is None:
            from distributed_core.client.client import get_client

            client = get_client()
        if not isinstance(key, str):
            raise UsageError(f"a Future is made from the key of a task, not from {type(key).__name__}")
        self.client = client
        self._released = False
        self._cell = client._adopt(key)

    @property
    def key(self) -> str:
        cell = self._cell
        return cell.key if cell.key is not None else f"{cell.name}-{self.client.id}-{cell.number}"

    @property
    def status(self) -> str:
        return self._cell.status

    def done(self) -> bool:
        """Tell whether there is a result, an exception or a cancellation."""
        return self._cell.status != states.PENDING

    def cancelled(self) -> bool:
        """Tell whether the task was cancelled."""
        return self._cell.status == states.CANCELLED

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it; with an asynchronous client, return a coroutine.

        Parameters
        ----------
        timeout
            Seconds to wait at most.

        Raises
        ------
        TimeoutError
            It was not there in time.
        TaskCancelled, DataLost, DataUnreachable, KilledWorker, SchedulerLost
            There will be no result; each says why.
        Exception
            What the task raised, with its own traceback.
        """
        if self.client.asynchronous:
            return self._await_result(timeout)
        cell = self._cell
        if cell.status == states.PENDING:
            wait_here(self.client, cell, timeout)
        if cell.status == states.FINISHED and cell.payload is not None:
            return payloads.loads(cell.payload)
        return self.client.sync(self.client._result(cell, timeout))

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the task's exception, or None; with an asynchronous client, a coroutine.

        Raises
        ------
        TimeoutError, TaskCancelled
            As for `result`.
        """
        cell = self._cell
        if cell.status == states.FINISHED and not self.client.asynchronous:
            return None  # without a way to the loop and back
        return self.client._answer(self._exception(timeout))

    async def _exception(self, timeout: float | None) -> BaseException | None:
        cell = self._cell
        await asyncio.wait_for(self.client._session.settled([cell]), timeout)
        if cell.status == states.CANCELLED:
            raise cell.exception()
        return None if cell.status == states.FINISHED else cell.exception()

    def traceback(self, timeout: float | None = None) -> Any:
        """Wait for the end; return the traceback of the task's exception, or None (or a coroutine of it)."""
        return self.client._answer(self._traceback(timeout))

    async def _traceback(self, timeout: float | None) -> TracebackType | None:
        error = await self._exception(timeout)
        return None if error is None else error.__traceback__

    def cancel(self, reason: str | None = None, msg: str | None = None, *, force: bool = False) -> Any:
        """Take the task back, and what this client built on it; see `Client.cancel`."""
        return self.client.cancel([self], force=force, reason=reason, msg=msg)

    def retry(self) -> Any:
        """Run the task again if it failed; see `Client.retry`."""
        return self.client.retry([self])

    def add_done_callback(self, fn: Callable[[Future], Any]) -> None:
        """Call `fn` with this future when it is done, at once if it is.

        It is called in a thread for callbacks: a slow one holds up other callbacks of the client, and nothing else.
        What it raises is logged.
        """
        # While someone waits for its end, the future is held.
        self.client._session.cells.call_when_done(self._cell, lambda: self.client._session.call_back(fn, self))

    def release(self) -> None:
        """Let go of the task now instead of when this object goes; the future is of no more use."""
        if not self._released:
            self._released = True
            self.client._session.release(self._cell)

    @property
    def type(self) -> Any:
        """The type of the result, where it is here already; else None."""
        payload = self._cell.payload
        return None if payload is None or self.status != states.FINISHED else type(payloads.loads(payload))

    def bind_client(self, client: Client) -> None:
        """Accepted for the sake of dask's signature: a future is bound to its client from the beginning."""
        if client is not self.client:
            raise UsageError("this future belongs to another client; make one by Future(key, client)")

    def __await__(self) -> Generator[Any, None, Any]:
        return self._await_result(None).__await__()

    async def _await_result(self, timeout: float | None) -> Any:
        # A method, so that a future that nobody else keeps is not released while it is awaited.
        return await self.client._result(self._cell, timeout)

    def __del__(self) -> None:
        try:
            if not self._released:
                self.client._session.release(self._cell)
        except AttributeError:
            pass  # it was never made

    # --- inside collections of dask ---------------------------------------------------------------

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` finds beside the type: for dask, once it is there, a future is a reference to a key.

        A subclass of both cannot be, since each has slots, and would have dask imported by every client.
        """
        spec = sys.modules.get("dask._task_spec")
        return Future if spec is None else spec.TaskRef

    def substitute(self, subs: dict[Any, Any], key: Any = None) -> Any:
        """Do what dask's references to keys do when a graph is rewritten."""
        if self.key not in subs:
            return self
        return sys.modules["dask._task_spec"].TaskRef(self.key).substitute(subs, key)

    def __dask_tokenize__(self) -> Any:
        return "Future", self.key

    def __reduce__(self) -> Any:
        if payloads.collecting():
            return payloads.reference(self, self._cell)
        return Future, (self.key,)

    def __repr__(self) -> str:
        return f"<Future: {self.status}, key: {self.key}>"


def future_of(client: Any, cell: Cell) -> Future:
    """Return a future of `cell`, whose references the caller has counted."""
    future = Future.__new__(Future)
    future.client = client
    future._cell = cell
    future._released = False
    return future


def wait_here(client: Client, cell: Cell, timeout: float | None) -> None:
    """Block this thread until the cell is no longer pending."""
    client._refuse_own_loop()
    event = threading.Event()
    if not client._session.cells.watch(cell, event.set):
        return
    came = False
    try:
        with away():
            came = event.wait(timeout)
    finally:
        if not came:  # too late, or Ctrl-C
            client._session.cells.unwatch(cell, event.set)
    if not came:
        raise TimeoutError(f"{cell.name} was not done within {timeout:g} s")


def content_key(name: str, digest: bytes, frames: payloads.Frames, references: list[Any]) -> str:
    """Return the name of a task by its function and arguments, the same in every process."""
    content = blake2b(digest, digest_size=16)
    for frame in [frames] if isinstance(frames, bytes) else frames:
        content.update(frame if isinstance(frame, bytes) else frame.view)
    for future in references:
        content.update(future.key.encode())
    return f"{name}-{content.hexdigest()}"


def flat_futures(data: Any) -> list[Future]:
    """Return the futures in nested lists, tuples, sets and dicts, in order."""
    found: list[Future] = []
    _collect(data, found)
    return found


def _collect(data: Any, found: list[Future]) -> None:
    if isinstance(data, Future):
        found.append(data)
    elif isinstance(data, (list, tuple, set, frozenset)):
        for each in data:
            _collect(each, found)
    elif isinstance(data, dict):
        for each in data.values():
            _collect(each, found)
