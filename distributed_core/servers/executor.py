"""The threads that run user code.

Threads take from one queue and leave what they got done in another; the loop is woken once for a batch, not once for a
task. A run that is taken back and a thread that starts it race for one entry of a dict, so that exactly one wins.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import logging
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Any, NamedTuple

from distributed_core.context import context
from distributed_core.errors import NotSerializable, Reschedule, ResultTooLarge, TaskInterrupted
from distributed_core.machines.worker.events import (
    RunDeclined,
    RunFailed,
    RunFinished,
    RunReport,
    RunReturned,
    RunSeceded,
    RunStarted,
    RunStarved,
    WorkerEvent,
)
from distributed_core.messages import Payload
from distributed_core.protocol import payload as payloads
from distributed_core.protocol import programs
from distributed_core.protocol.actors import ActorBox
from distributed_core.servers.spilling import Spilled

logger = logging.getLogger(__name__)

#: How often a thread that waits for a coroutine looks whether it is to be interrupted.
AWAIT_INTERVAL_S = 0.1


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
    payload: Payload
    inputs: list[Any]
    timed: bool


class Seat:
    """What a thread without a seat waits for; whichever thread takes it from the queue gives its own."""

    __slots__ = ("free", "wanted")

    def __init__(self) -> None:
        self.free = threading.Event()
        self.wanted = True


class Threads:
    """`nthreads` daemon threads.

    Parameters
    ----------
    worker
        What code inside a task finds as its worker.
    report
        Called on the loop with a list of (report, value): `RunFinished` with the value, or `RunFailed` with None.
    moved
        Called on the loop with `RunStarted` of a run that has a time limit, with `RunSeceded` and `RunReturned`.
    inline_bytes_max
        Results up to this size are serialized at once and travel inside their report.
    result_bytes_max
        Larger results are errors; 0 is no limit.
    """

    def __init__(
        self,
        worker: Any,
        nthreads: int,
        report: Callable[[list[tuple[RunReport, Any]]], None],
        moved: Callable[[WorkerEvent], None],
        inline_bytes_max: int,
        result_bytes_max: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._worker = worker
        self._report = report
        self._moved = moved
        self._inline_bytes_max = inline_bytes_max
        self._result_bytes_max = result_bytes_max or sys.maxsize
        self._loop = loop
        self._queue: queue.SimpleQueue[Work | Seat | None] = queue.SimpleQueue()
        self._pending: dict[int, None] = {}
        self._reports: deque[tuple[RunReport, Any]] = deque()
        #: What each thread is at, by the thread's id. Who interrupts holds the lock, and so does a thread that leaves a
        #: run: so an exception never reaches the next run.
        self.running: dict[int, Work] = {}
        self._guard = threading.Lock()
        self._interrupted: dict[int, None] = {}
        self._waking = False
        self.nthreads = nthreads
        self._thread_count = 0
        for _ in range(nthreads):
            self._start_thread()

    def submit(self, work: Work) -> None:
        """Let a thread run `work`, after what was submitted before."""
        self._pending[work.run] = None
        self._queue.put(work)

    def abandon(self, run: int) -> bool:
        """Take a run back; return False if a thread has it already."""
        return self._pending.pop(run, self) is None

    def interrupt(self, run: int) -> None:
        """Raise `TaskInterrupted` in the thread that is at this run, if one is."""
        with self._guard:
            for thread, work in self.running.items():
                if work.run == run:
                    self._interrupted[run] = None
                    _raise_in(thread, TaskInterrupted)

    def secede(self) -> None:
        """Called by a task's thread: give up its seat; another thread takes it, and this one ends with its run."""
        if context.seceded:
            return
        context.seceded = True
        self._start_thread()
        self._loop.call_soon_threadsafe(self._moved, RunSeceded(context.run))

    def rejoin(self, timeout_s: float | None = None) -> None:
        """Called by a thread that seceded: wait until another one gives it a seat, or go on without one in the end."""
        if not context.seceded:
            return
        seat = Seat()
        self._queue.put(seat)
        if not seat.free.wait(timeout_s):
            with self._guard:
                if not seat.free.is_set():
                    seat.wanted = False
                    return
        context.seceded = False
        self._loop.call_soon_threadsafe(self._moved, RunReturned(context.run))

    def _start_thread(self) -> None:
        self._thread_count += 1
        threading.Thread(target=self._loop_forever, name=f"task-{self._thread_count}", daemon=True).start()

    def close(self) -> None:
        """Let the threads end after what they are running; they are daemons and hold up nobody."""
        self._pending.clear()
        for _ in range(self.nthreads):
            self._queue.put(None)

    def _loop_forever(self) -> None:
        take, claim = self._queue.get, self._pending.pop
        context.worker, context.threads = self._worker, self
        here = threading.get_ident()
        while True:
            work = take()
            if work is None:
                return
            if isinstance(work, Seat):
                # A run that had left its seat wants to go on: this thread's is its own now.
                with self._guard:
                    if work.wanted:
                        work.free.set()
                        return
                continue
            if claim(work.run, self) is not None:
                continue
            self._done(self._attempt(work, here))
            if context.seceded:
                return
            # Do not keep the last values alive while waiting for more work.
            del work

    def _attempt(self, work: Work, here: int) -> tuple[RunReport, Any]:
        """Run `work` where it can be interrupted, and only there; `here` is this thread's id."""
        outcome: tuple[RunReport, Any] | None = None
        try:
            self.running[here] = work
            if work.timed:
                self._loop.call_soon_threadsafe(self._moved, RunStarted(work.run))
            outcome = self._run(work)
            self._leave(here)
        except TaskInterrupted as error:
            # It came after the user's code and before this thread had left the run.
            self._leave(here)
            outcome = outcome or (RunFailed(work.run, *describe(error), 0.0), None)
        if work.run in self._interrupted:
            del self._interrupted[work.run]
            _raise_in(here, None)
        return outcome

    def _leave(self, here: int) -> None:
        with self._guard:
            self.running.pop(here, None)

    def _run(self, work: Work) -> tuple[RunReport, Any]:
        context.run, context.task, context.seceded, context.away_s = work.run, work.task, False, 0.0
        start = perf_counter()
        try:
            function = work.body.function
            if function is None:
                function = work.body.function = payloads.loads_function(work.body.body)
            for place, value in enumerate(work.inputs):
                if type(value) is Unsendable:
                    raise NotSerializable(value.text)
                if type(value) is ActorBox:
                    work.inputs[place] = value.proxy()
                elif type(value) is Spilled:
                    try:
                        work.inputs[place] = value.read()
                    except OSError as error:
                        logger.warning("a result that was on disk is lost: %s", error)
                        return RunStarved(work.run, (value.task,)), None
            args, kwargs = payloads.loads_call(work.payload, work.inputs)
            value = function(*args, **kwargs)
            if type(value) is CoroutineType:
                value = self._await(value)
            duration_s = perf_counter() - start - context.away_s
            nbytes = payloads.sizeof(value)
            if nbytes > self._result_bytes_max:
                raise ResultTooLarge(
                    f"the result of {work.body.name} takes {nbytes} bytes, more than the {self._result_bytes_max} that "
                    "its worker may take (dworker --memory-limit); let the task return less, or in parts"
                )
            small = None
            if nbytes <= self._inline_bytes_max and payloads.small_plain(value):
                small = payloads.dumps(value)
            return RunFinished(work.run, nbytes, duration_s, small), value
        except Reschedule:
            return RunDeclined(work.run), None
        except BaseException as error:
            # SystemExit and KeyboardInterrupt of a task are its own failure, not the worker's end.
            duration_s = perf_counter() - start - context.away_s
            frames, text = describe(error)
            return RunFailed(work.run, frames, text, duration_s), None

    def _await(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine function's coroutine on the worker's loop; this thread waits, and can be interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(AWAIT_INTERVAL_S)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        # It ended just now, or with a TimeoutError of its own.
                        return future.result()
        except BaseException:
            future.cancel()
            raise

    def _done(self, report: tuple[RunReport, Any]) -> None:
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


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let `error` be raised in a thread at its next step of Python code, or take back what was not raised yet."""
    target = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)


def describe(error: BaseException) -> tuple[Payload, str]:
    """Return an exception as it travels: the opaque frames, and one line for people."""
    try:
        text = f"{type(error).__name__}: {error}"[:500]
    except Exception:
        text = type(error).__name__
    return payloads.dumps_exception(error, skip_files=(__file__, programs.__file__)), text
