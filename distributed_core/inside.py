"""For code that runs inside a task: its worker, its client, and its thread's seat."""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distributed_core.client.client import Client, get_client
from distributed_core.context import context
from distributed_core.errors import UsageError

if TYPE_CHECKING:
    from distributed_core.servers.worker import Worker


def get_worker() -> Worker:
    """Return the worker that runs the calling task.

    Raises
    ------
    UsageError
        The caller is no task.
    """
    if context.worker is None or not context.run:
        raise UsageError("get_worker() is for code inside a task; here is none")
    worker: Worker = context.worker
    return worker


def secede() -> None:
    """Leave this task's seat among the worker's threads to others, for tasks that wait or run very long.

    The task goes on in a thread beside the others. Waiting for futures inside a task does this by itself, for the time
    of the wait.

    Raises
    ------
    UsageError
        The caller is no task.
    """
    get_worker()
    context.threads.secede()


def rejoin() -> None:
    """Wait until this task, which had seceded, has a seat among the worker's threads again.

    Raises
    ------
    UsageError
        The caller is no task.
    """
    get_worker()
    context.threads.rejoin()


@contextmanager
def worker_client(timeout: float | None = None, separate_thread: bool = True) -> Iterator[Client]:
    """Have the worker's own client inside a task.

    Parameters
    ----------
    timeout
        Accepted for the sake of dask's signature: the client is there or made at once.
    separate_thread
        Leave this task's seat to others meanwhile.

    Examples
    --------
    >>> def fan_out(numbers):
    ...     with worker_client() as client:
    ...         return sum(client.gather(client.map(abs, numbers)))
    """
    get_worker()
    client = get_client()
    if separate_thread:
        secede()
    try:
        yield client
    finally:
        if separate_thread:
            rejoin()


def print(
    *args: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
) -> None:  # the name that users know
    """Print like the built-in, and inside a task at the clients too.

    Parameters
    ----------
    file
        `sys.stdout` (or None) and `sys.stderr` reach the clients; any other file is written here only.
    """
    builtins.print(*args, sep=sep, end=end, file=file, flush=flush)
    if context.run and file in (None, sys.stdout, sys.stderr):
        said = {
            "args": tuple(str(each) for each in args),
            "sep": sep,
            "end": end,
            "file": "stderr" if file is sys.stderr and file is not None else "stdout",
            "flush": flush,
        }
        get_worker().log_event("print", said)


def warn(message: str | Warning, category: type[Warning] | None = UserWarning, stacklevel: int = 1) -> None:
    """Warn like `warnings.warn`, and inside a task at the clients too."""
    warnings.warn(message, category, stacklevel=stacklevel + 1)
    if context.run:
        get_worker().log_event("warn", {"message": message, "category": category})
