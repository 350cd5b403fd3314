"""Results on disk: the folder that they lie in, and one file for each.

A file is the result's frames, one after the other, each where an array may begin. Reading maps the file: an array that
comes back takes memory only where it is written to, and what is sent to others goes from the file to the socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import queue
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from distributed_core.protocol import payload as payloads
from distributed_core.protocol.codec import Buffer

logger = logging.getLogger(__name__)

FOLDER_PREFIX = "distributed_core-spill-"
ALIGNMENT_BYTES = 64
WRITE_BYTES = 8 << 20


# --- the folder -----------------------------------------------------------------------------------


def spill_base(local_directory: str | None) -> str:
    """Return the folder in which workers make folders for their results."""
    if local_directory is not None:
        return os.path.abspath(local_directory)
    return os.path.join(tempfile.gettempdir(), f"distributed_core-{os.getuid()}")


class SpillFolder:
    """A worker's own folder under `base`, made when it is first needed; mode 0700, files in it 0600.

    The process holds a lock on the folder while it lives, however it ends: a folder without one is a dead process's.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.path: str | None = None
        self._lock = -1
        self._count = 0
        #: The thread of the disk and the loop both want files.
        self._turn = threading.Lock()

    def next_file(self) -> str:
        """Return the path of a file that is not there yet.

        Raises
        ------
        OSError
            The folder cannot be made.
        """
        with self._turn:
            if self.path is None:
                self._make()
            assert self.path is not None
            self._count += 1
            return os.path.join(self.path, str(self._count))

    def _make(self) -> None:
        base = self.base
        os.makedirs(base, mode=0o700, exist_ok=True)
        found = os.lstat(base)
        if base.startswith(tempfile.gettempdir() + os.sep) and found.st_uid != os.getuid():
            # Somebody else was first with that name in a folder for all: nothing of ours goes there.
            base = tempfile.gettempdir()
        while True:
            path = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.stat(path)
            except (BlockingIOError, FileNotFoundError):
                # Who looks for leftovers was quicker than our lock.
                os.close(lock)
                continue
            except OSError as error:
                logger.debug("no lock on %s: %s", path, error)
            self.path, self._lock = path, lock
            return

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self.path, self._lock = None, -1


def remove_leftovers(base: str) -> int:
    """Remove the folders of processes that were killed; return how many there were."""
    removed = 0
    try:
        names = [name for name in os.listdir(base) if name.startswith(FOLDER_PREFIX)]
    except OSError:
        return 0
    for name in names:
        path = os.path.join(base, name)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            found = os.fstat(lock)
            if found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        except OSError:
            pass  # it is somebody's, who lives
        finally:
            os.close(lock)
    return removed


# --- the files ------------------------------------------------------------------------------------


class Spilled:
    """In place of a result: where it is on disk. The file goes with the last reference to it.

    Parameters
    ----------
    remove
        Called with the path in the end, from any thread.
    reread
        Called with this and the value after it was read, from any thread, where reading is dear: where the value was
        built anew, and not mapped.
    """

    __slots__ = ("_lengths", "_remove", "_reread", "_single", "nbytes", "path", "task")

    def __init__(
        self,
        task: int,
        path: str,
        frames: payloads.Frames,
        nbytes: int,
        remove: Callable[[str], None],
        reread: Callable[[Spilled, Any], None],
    ) -> None:
        self.task = task
        self.path = path
        self.nbytes = nbytes
        self._single = isinstance(frames, bytes)
        self._lengths = [len(view) for view in _views(frames)]
        self._remove = remove
        self._reread = reread

    def frames(self, *, writable: bool = False) -> payloads.Frames:
        """Return the frames as they were written; an array on `writable` ones may be written to, which nobody sees.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = sum(map(_padded, self._lengths))
            if os.fstat(handle).st_size < size:
                raise OSError(f"{self.path} is shorter than what was written")
            mapped = mmap.mmap(handle, 0, access=access)
        finally:
            os.close(handle)
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_WILLNEED)
        whole = memoryview(mapped)
        parts = []
        start = 0
        for length in self._lengths:
            parts.append(whole[start : start + length])
            start += _padded(length)
        if self._single:
            return bytes(parts[0])
        return [Buffer(part) for part in parts]

    def read(self) -> Any:
        """Return the value.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        value = payloads.loads(self.frames(writable=True))
        if 2 * self._lengths[0] > sum(self._lengths):
            self._reread(self, value)
        return value

    def __del__(self) -> None:
        self._remove(self.path)


def write_frames(path: str, frames: payloads.Frames) -> None:
    """Write a file that was not there; after an error it is not there again.

    Raises
    ------
    OSError
        It cannot be written, for example because the disk is full.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for view in _views(frames):
            for start in range(0, len(view), WRITE_BYTES):
                part = view[start : start + WRITE_BYTES]
                while len(part):
                    part = part[os.write(handle, part) :]
            os.write(handle, bytes(_padded(len(view)) - len(view)))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(handle)


def file_memory(path: str, nbytes: int) -> memoryview:
    """Return memory whose pages are those of a new file, which goes with the memory: the system can take them back.

    Raises
    ------
    OSError
        The file cannot be made as large.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        found = os.fstatvfs(handle)
        if nbytes > found.f_bavail * found.f_frsize // 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # What is not there when it is written to would end the process.
        os.posix_fallocate(handle, 0, nbytes)
        return memoryview(mmap.mmap(handle, nbytes))
    finally:
        os.close(handle)


def _views(frames: payloads.Frames) -> list[memoryview]:
    if isinstance(frames, bytes):
        return [memoryview(frames)]
    return [memoryview(part.view if isinstance(part, Buffer) else part).cast("B") for part in frames]


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class DiskThread:
    """One daemon thread for what may take long on a disk; jobs run in their order.

    `put` may be called from any thread, also by the garbage collector.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: Callable[[], None]) -> None:
        """Run `job` after those before it."""
        self._jobs.put(job)

    def start(self) -> None:
        """Begin, if it has not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spill", daemon=True)
            self._thread.start()

    def remove(self, path: str) -> None:
        """Remove a file, sometime."""

        def job() -> None:
            with contextlib.suppress(OSError):
                os.unlink(path)

        self._jobs.put(job)

    def close(self) -> None:
        """End after the jobs that are queued."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            try:
                job()
            except Exception:
                logger.exception("a job on the disk failed")
            del job
