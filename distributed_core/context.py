"""Which task this thread runs, so that code inside a task finds its worker and its client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any


class Context(threading.local):
    """Set by the worker's threads.

    Attributes
    ----------
    worker
        The `Worker` whose thread this is, or None outside of tasks.
    run, task
        The run that the thread is at, and the task that it is of; 0 between tasks.
    threads
        The executor that the thread belongs to.
    seceded
        Whether it gave its seat to others for the rest of this run.
    away_s
        How long this run waited for other tasks without a seat.
    """

    worker: Any = None
    run: int = 0
    task: int = 0
    threads: Any = None
    seceded: bool = False
    away_s: float = 0.0


context = Context()

#: A task that waited for others goes on without a seat after so long.
SEAT_WAIT_S = 1.0


@contextmanager
def away() -> Iterator[None]:
    """Leave this thread's seat to other tasks while the block waits for some of them; elsewhere, do nothing.

    So one thread is enough for tasks that wait for tasks. Afterwards it waits for a seat, but not for ever: who has one
    may wait for what this task holds, such as a lock of the process.
    """
    threads = context.threads
    if threads is None or not context.run or context.seceded:
        yield
        return
    start = perf_counter()
    threads.secede()
    try:
        yield
    finally:
        threads.rejoin(SEAT_WAIT_S)
        context.away_s += perf_counter() - start
