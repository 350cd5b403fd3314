"""The results that a worker holds: a dict by task, in which large ones that were not used lately are on disk.

A value on disk is a `Spilled` in the dict. A task's own thread reads it when the task starts, and who sends it to
others sends the file: the loop never waits for a disk, and a lookup costs what a lookup in a dict costs.

Why no library: `zict`, which dask uses, would write and read in the thread that asks, knows files of bytes only (an
array would be copied before it is written), leaves the mode of files to the umask, and says nothing to a full disk.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from distributed_core.errors import NotSerializable
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.actors import ActorBox
from distributed_core.servers.spilling import DiskThread, Spilled, SpillFolder, write_frames

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class Store(dict[int, Any]):
    """Values by task.

    Parameters
    ----------
    base
        The folder in which its own is made, once something is written.
    bytes_min
        Results from this size on are in its books and may go to disk; `sys.maxsize` is none.
    room_bytes
        What is read back stays in memory only while large values take no more than this.
    retry_s
        After a failed write, the next is tried so many seconds later.

    Attributes
    ----------
    large
        Values in memory that may go to disk, with their bytes; the least recently used first.
    stuck
        Large ones that cannot be pickled, with their bytes.
    spilled
        Those on disk, with the bytes that they take in memory.
    held_bytes, spilled_bytes
        What the large values in memory take, and what those on disk took there.
    """

    def __init__(
        self, base: str, bytes_min: int = sys.maxsize, room_bytes: int = sys.maxsize, retry_s: float = 10.0
    ) -> None:
        super().__init__()
        self.folder = SpillFolder(base)
        self.bytes_min = bytes_min
        self.large: dict[int, int] = {}
        self.stuck: dict[int, int] = {}
        self.spilled: dict[int, int] = {}
        self.held_bytes = 0
        self.spilled_bytes = 0
        self._room_bytes = room_bytes
        self._retry_s = retry_s
        self._retry_at = 0.0
        self._warned = False
        #: Files of values that were read back, so that the next time nothing has to be written.
        self._copies: dict[int, Spilled] = {}
        self._disk = DiskThread()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what comes and goes, on the loop ---------------------------------------------------------

    def keep(self, task: int, value: Any, nbytes: int) -> None:
        """Hold a value, in place of an older one."""
        if self.large or self.spilled or self.stuck:
            self._strike(task)
        self[task] = value
        if nbytes >= self.bytes_min and type(value) is not ActorBox:
            self.large[task] = nbytes
            self.held_bytes += nbytes

    def discard(self, tasks: Iterable[int]) -> None:
        """Let values go, and their files."""
        booked = bool(self.large or self.spilled or self.stuck)
        for task in tasks:
            self.pop(task, None)
            if booked:
                self._strike(task)

    def used(self, tasks: Iterable[int]) -> None:
        """These were used just now."""
        large = self.large
        for task in tasks:
            nbytes = large.pop(task, None)
            if nbytes is not None:
                large[task] = nbytes

    def clear(self) -> None:
        """Let all values go."""
        super().clear()
        for book in (self.large, self.stuck, self.spilled, self._copies):
            book.clear()
        self.held_bytes = self.spilled_bytes = 0

    def _strike(self, task: int) -> None:
        """Strike a task from the books."""
        nbytes = self.large.pop(task, None) or self.stuck.pop(task, None)
        if nbytes is not None:
            self.held_bytes -= nbytes
            self._copies.pop(task, None)
        nbytes = self.spilled.pop(task, None)
        if nbytes is not None:
            self.spilled_bytes -= nbytes

    # --- to disk and back -------------------------------------------------------------------------

    @property
    def spillable_bytes(self) -> int:
        """What could go to disk now; nothing for a while after a write failed."""
        if self._retry_at and self._loop is not None and self._loop.time() < self._retry_at:
            return 0
        return self.held_bytes - sum(self.stuck.values())

    async def spill(self, nbytes: int) -> int:
        """Write the least recently used values to disk until `nbytes` are free; return how many are.

        What cannot be pickled stays in memory, and so does everything if the disk is full.
        """
        self._loop = asyncio.get_running_loop()
        self._disk.start()
        freed = 0
        while freed < nbytes and self.large:
            task, size = next(iter(self.large.items()))
            value = self[task]
            copy = self._copies.pop(task, None)
            try:
                copy = copy or await self._in_thread(partial(self._write, task, value, size))
            except OSError as error:
                self._complain(error)
                break
            except Exception as error:
                if not isinstance(error, NotSerializable):
                    logger.debug("a result stays in memory: %s", error)
                if self.get(task) is value and task in self.large:
                    self.stuck[task] = self.large.pop(task)
                continue
            if self.get(task) is value and task in self.large:
                del self.large[task]
                self[task] = copy
                self.spilled[task] = size
                self.spilled_bytes += size
                self.held_bytes -= size
                freed += size
            del value, copy
        await self._in_thread(_trim)
        return freed

    def _write(self, task: int, value: Any, nbytes: int) -> Spilled:
        frames = payloads.dumps(value)
        path = self.folder.next_file()
        write_frames(path, frames)
        return Spilled(task, path, frames, nbytes, self._disk.remove, self._reread)

    def _complain(self, error: OSError) -> None:
        assert self._loop is not None
        self._retry_at = self._loop.time() + self._retry_s
        if not self._warned:
            self._warned = True
            logger.warning(
                "results cannot be written to %s (%s), so they stay in memory; free space there, or name another "
                "folder with --local-directory",
                self.folder.path or self.folder.base,
                error.strerror or error,
            )

    def _reread(self, spilled: Spilled, value: Any) -> None:
        """Called by a thread that read a value back for which much had to be built."""
        if self._loop is not None and self._has_room(spilled):
            try:
                self._loop.call_soon_threadsafe(self._restore, spilled, value)
            except RuntimeError:
                logger.debug("a result was read after the loop was closed")

    def _has_room(self, spilled: Spilled) -> bool:
        return self.held_bytes + spilled.nbytes <= self._room_bytes

    def _restore(self, spilled: Spilled, value: Any) -> None:
        task = spilled.task
        if self.get(task) is spilled and self._has_room(spilled):
            self[task] = value
            size = self.spilled.pop(task)
            self.spilled_bytes -= size
            self.large[task] = size
            self.held_bytes += size
            self._copies[task] = spilled

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the thread of the disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()

        def settle(value: Any, error: Exception | None) -> None:
            if not done.done():
                done.set_result((value, error))

        def job() -> None:
            value, problem = None, None
            try:
                value = work()
            except Exception as error:
                problem = error
            try:
                loop.call_soon_threadsafe(settle, value, problem)
            except RuntimeError:
                logger.debug("a result was written after the loop was closed")

        self._disk.put(job)
        value, problem = await done
        if problem is not None:
            raise problem
        return value

    def close(self) -> None:
        """Remove the folder; what is in memory stays readable."""
        self._disk.close()
        self._disk.join(CLOSE_TIMEOUT_S)
        self.folder.close()


def _trim() -> None:
    """Give memory that is free inside the process back to the system, where the allocator can."""
    if sys.platform == "linux" and not os.environ.get("LD_PRELOAD"):
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            pass  # not the allocator of glibc
