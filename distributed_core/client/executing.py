"""The client behind the interface of `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from distributed_core.client.future import Future
from distributed_core.errors import UsageError

if TYPE_CHECKING:
    from distributed_core.client.tasks import TaskCalls

_OPTIONS = ("workers", "resources", "retries", "priority", "allow_other_workers", "pure", "timeout")


class ExecutorFuture(concurrent.futures.Future[Any]):
    """A `concurrent.futures.Future` of a task on the cluster.

    `cancel` works on tasks that run as well: those are interrupted. `running` is false until it is done, since the
    client does not hear of each start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._task: Future | None = None

    def cancel(self) -> bool:
        """Take the task back; return False if it was done already."""
        task = self._task
        if not super().cancel():
            return False
        if task is not None:
            self._task = None
            # This tells those who wait for it.
            self.set_running_or_notify_cancel()
            task.cancel()
        return True

    def deliver(self, task: Future) -> None:
        """The task is done: take over what became of it."""
        if self._task is None or task.cancelled():
            self.cancel()
            return
        try:
            value = task.result()
        except BaseException as error:
            outcome = partial(self.set_exception, error)
        else:
            outcome = partial(self.set_result, value)
        # The cluster needs to hold it no longer.
        self._task = None
        try:
            outcome()
        except concurrent.futures.InvalidStateError:
            pass  # cancelled meanwhile


class ClientExecutor(concurrent.futures.Executor):
    """Runs what is submitted on the cluster; `Client.get_executor` makes one.

    Parameters
    ----------
    client
        A blocking client. Shutting the executor down does not close it.
    options
        `workers`, `resources`, `retries`, `priority`, `allow_other_workers`, `pure`, `timeout` for all tasks, as in
        `Client.submit`.

    Raises
    ------
    UsageError
        The client is asynchronous, or there is no such option.
    """

    def __init__(self, client: TaskCalls, **options: Any) -> None:
        if client.asynchronous:
            raise UsageError("an executor blocks, and an asynchronous client does not; make a blocking one for it")
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise UsageError(f"get_executor knows no option {', '.join(unknown)}; it has {', '.join(_OPTIONS)}")
        self._client = client
        self._options = options
        self._lock = threading.Lock()
        self._shut_down = False
        self._futures: weakref.WeakSet[ExecutorFuture] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ExecutorFuture:
        """Run `fn(*args, **kwargs)` on the cluster.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        NotSerializable
            The function or an argument cannot be sent.
        """
        with self._lock:
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            made = ExecutorFuture()
            task = made._task = self._client._submit_call(fn, args, kwargs, **self._options)
            self._futures.add(made)
        task.add_done_callback(made.deliver)
        return made

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Run `fn` on each element, and iterate over the results in order.

        Parameters
        ----------
        timeout
            Seconds from now in which each result is to be there; else `TimeoutError` is raised while iterating.
        chunksize
            Calls that go into one task.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = _chunked(zip(*iterables, strict=False), chunksize)
        return chain.from_iterable(super().map(partial(_call_each, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new.

        Parameters
        ----------
        wait
            Return once all is done.
        cancel_futures
            Take back what is not done.
        """
        with self._lock:
            self._shut_down = True
            futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            concurrent.futures.wait(futures)


def _chunked(calls: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    calls = iter(calls)
    while chunk := list(islice(calls, size)):
        yield chunk


def _call_each(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [fn(*args) for args in chunk]
