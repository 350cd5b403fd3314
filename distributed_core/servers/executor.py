"""The threads that run user code.

Threads take from one queue and leave what they got done in another; the loop is woken once for a batch, not once for a
task. A run that is taken back and a thread that starts it race for one entry of a dict, so that exactly one wins.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from distributed_core.context import context
from distributed_core.errors import NotSerializable
from distributed_core.machines.worker.events import RunFailed, RunFinished
from distributed_core.protocol import payload as payloads
from distributed_core.protocol import programs

logger = logging.getLogger(__name__)


class Body:
    """A function that was sent here, opened by the first thread that needs it."""

    __slots__ = ("body", "function", "name")

    def __init__(self, name: str, body: bytes) -> None:
        self.name = name
        self.body = body
        self.function: Callable[..., Any] | None = None


class Unsendable(NamedTuple):
    """In place of data that could not be sent here, because its holder could not serialize it."""

    text: str


class Work(NamedTuple):
    """A run with all that its thread needs."""

    run: int
    task: int
    body: Body
    payload: list[Any]
    inputs: list[Any]


class Threads:
    """`nthreads` daemon threads.

    Parameters
    ----------
    worker
        What code inside a task finds as its worker.
    report
        Called on the loop with a list of (report, value): `RunFinished` with the value, or `RunFailed` with None.
    inline_bytes_max
        Results up to this size are serialized at once and travel inside their report.
    """

    def __init__(
        self,
        worker: Any,
        nthreads: int,
        report: Callable[[list[tuple[RunFinished | RunFailed, Any]]], None],
        inline_bytes_max: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._worker = worker
        self._report = report
        self._inline_bytes_max = inline_bytes_max
        self._loop = loop
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._pending: dict[int, None] = {}
        self._reports: deque[tuple[RunFinished | RunFailed, Any]] = deque()
        self._waking = False
        self.nthreads = nthreads
        for number in range(nthreads):
            threading.Thread(target=self._loop_forever, name=f"task-{number}", daemon=True).start()

    def submit(self, work: Work) -> None:
        """Let a thread run `work`, after what was submitted before."""
        self._pending[work.run] = None
        self._queue.put(work)

    def abandon(self, run: int) -> bool:
        """Take a run back; return False if a thread has it already."""
        return self._pending.pop(run, self) is None

    def close(self) -> None:
        """Let the threads end after what they are running; they are daemons and hold up nobody."""
        self._pending.clear()
        for _ in range(self.nthreads):
            self._queue.put(None)

    def _loop_forever(self) -> None:
        take, claim = self._queue.get, self._pending.pop
        context.worker = self._worker
        while True:
            work = take()
            if work is None:
                return
            if claim(work.run, self) is not None:
                continue
            self._done(self._run(work))
            # Do not keep the last values alive while waiting for more work.
            del work

    def _run(self, work: Work) -> tuple[RunFinished | RunFailed, Any]:
        context.run, context.task = work.run, work.task
        start = perf_counter()
        try:
            function = work.body.function
            if function is None:
                function = work.body.function = payloads.loads_function(work.body.body)
            for value in work.inputs:
                if type(value) is Unsendable:
                    raise NotSerializable(value.text)
            args, kwargs = payloads.loads_call(work.payload, work.inputs)
            value = function(*args, **kwargs)
            duration_s = perf_counter() - start
            nbytes = payloads.sizeof(value)
            small = None
            if nbytes <= self._inline_bytes_max and payloads.small_plain(value):
                small = payloads.dumps(value)
            return RunFinished(work.run, nbytes, duration_s, small), value
        except BaseException as error:
            # SystemExit and KeyboardInterrupt of a task are its own failure, not the worker's end.
            duration_s = perf_counter() - start
            frames, text = describe(error)
            return RunFailed(work.run, frames, text, duration_s), None

    def _done(self, report: tuple[RunFinished | RunFailed, Any]) -> None:
        self._reports.append(report)
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                logger.debug("a task ended after the worker's loop was closed")

    def _flush(self) -> None:
        # First the flag, then the queue: a thread in between wakes the loop once too often, never too seldom.
        self._waking = False
        batch = []
        reports = self._reports
        while reports:
            batch.append(reports.popleft())
        if batch:
            self._report(batch)


def describe(error: BaseException) -> tuple[list[Any], str]:
    """Return an exception as it travels: the opaque frames, and one line for people."""
    try:
        text = f"{type(error).__name__}: {error}"[:500]
    except Exception:
        text = type(error).__name__
    return payloads.dumps_exception(error, skip_files=(__file__, programs.__file__)), text
