"""The results of a worker in memory and on disk."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_core.protocol import payload as payloads
from distributed_core.protocol.codec import Buffer
from distributed_core.servers import spilling
from distributed_core.servers import store as stores
from distributed_core.servers.spilling import (
    FOLDER_PREFIX,
    Spilled,
    SpillFolder,
    file_memory,
    remove_leftovers,
    spill_base,
)
from distributed_core.servers.store import Store

KB = 1000


def run(folder: Path, work: Callable[[Store], Awaitable[None]], **options: Any) -> None:
    """Do `work` with a store, on a loop."""

    async def main() -> None:
        store = Store(str(folder), **{"bytes_min": KB, **options})
        try:
            await work(store)
        finally:
            store.close()

    asyncio.run(main())


def filled(store: Store, count: int) -> list[Any]:
    """Keep arrays of 8 kB as the tasks 1, 2, ..."""
    arrays = [np.full(1000, task, float) for task in range(1, count + 1)]
    for task, array in enumerate(arrays, 1):
        store.keep(task, array, array.nbytes)
    return arrays


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def settled(store: Store) -> None:
    """Wait until the thread of the disk did all that it was told."""
    await store._in_thread(lambda: None)


def test_the_least_recently_used_goes_first_and_comes_back(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        arrays = filled(store, 4)
        store.used([1])
        assert await store.spill(9 * KB) == 16 * KB
        assert [task for task, value in store.items() if type(value) is Spilled] == [2, 3]
        assert list(store.spilled) == [2, 3] and list(store.large) == [4, 1]
        assert (store.held_bytes, store.spilled_bytes) == (16 * KB, 16 * KB)
        assert np.array_equal(store[2].read(), arrays[1])
        assert payloads.loads(store[3].frames())[0] == 3

    run(tmp_path, work)
    assert list(tmp_path.iterdir()) == []


def test_memory_of_a_file_leaves_no_file(tmp_path: Path) -> None:
    memory = file_memory(str(tmp_path / "1"), 10_000)
    memory[9_999] = 7
    assert (len(memory), memory[9_999], list(tmp_path.iterdir())) == (10_000, 7, [])
    for nbytes in (1 << 60, shutil.disk_usage(tmp_path).free):
        with pytest.raises(OSError, match="No space left"):
            file_memory(str(tmp_path / "2"), nbytes)
        assert list(tmp_path.iterdir()) == []


def test_files_are_private(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        filled(store, 1)
        await store.spill(1)
        (file,) = files(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    old = os.umask(0)
    try:
        run(tmp_path, work)
    finally:
        os.umask(old)


def test_an_array_is_mapped_and_may_be_written_to(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        filled(store, 1)
        await store.spill(1)
        found = store[1].read()
        found[0] = 99
        assert store[1].read()[0] == 1
        assert type(store[1]) is Spilled, "an array costs nothing to map again"

    run(tmp_path, work)


def test_what_had_to_be_built_anew_stays_and_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: Store) -> None:
        value = [f"text {number}" for number in range(1000)]
        store.keep(1, value, 50 * KB)
        await store.spill(1)
        assert await asyncio.to_thread(store[1].read) == value
        await asyncio.sleep(0)
        assert type(store[1]) is list
        assert (store.held_bytes, store.spilled_bytes) == (50 * KB, 0)
        monkeypatch.setattr(stores, "write_frames", None)
        assert await store.spill(1) == 50 * KB
        assert store[1].read() == value

    run(tmp_path, work)


def test_what_is_read_back_drives_nothing_else_out(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        store.keep(1, ["text"], 50 * KB)
        await store.spill(1)
        store.keep(2, ["text"], 60 * KB)
        assert await asyncio.to_thread(store[1].read) == ["text"]
        await asyncio.sleep(0)
        assert type(store[1]) is Spilled and store.held_bytes == 60 * KB

    run(tmp_path, work, room_bytes=100 * KB)


def test_files_go_with_their_results(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        filled(store, 3)
        await store.spill(1000 * KB)
        assert len(files(tmp_path)) == 3
        still_read = store[1]
        store.discard([1, 2])
        store.keep(3, "small", 5)
        await settled(store)
        assert len(files(tmp_path)) == 1, "who still refers to it may read it"
        assert still_read.read()[0] == 1
        del still_read
        await settled(store)
        assert files(tmp_path) == []
        assert (store.held_bytes, store.spilled_bytes, store.large, store.spilled) == (0, 0, {}, {})

    run(tmp_path, work)


def test_what_cannot_be_pickled_stays(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        store.keep(1, threading.Lock(), 100 * KB)
        filled(store, 2)
        store.keep(1, threading.Lock(), 100 * KB)
        assert await store.spill(1000 * KB) == 8 * KB
        assert store.spillable_bytes == 0 and store.held_bytes == 100 * KB
        store.discard([1])
        assert store.held_bytes == 0 and not store.stuck

    run(tmp_path, work)


def test_a_full_disk_loses_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) > 100:
            write(handle, data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    async def work(store: Store) -> None:
        filled(store, 2)
        with monkeypatch.context() as patched:
            patched.setattr(spilling.os, "write", full)
            for _ in range(2):
                assert await store.spill(1) == 0
        assert [type(value) for value in store.values()] == [np.ndarray, np.ndarray]
        assert files(tmp_path) == []
        assert store.spillable_bytes == 0, "not at once again"
        store._retry_at = 0.0
        assert await store.spill(1) == 8 * KB

    run(tmp_path, work)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in line and "--local-directory" in line and "\n" not in line


def test_a_folder_that_cannot_be_made_is_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def work(store: Store) -> None:
        filled(store, 1)
        assert await store.spill(1) == 0
        assert store[1][0] == 1

    run(tmp_path / "file" / "folder", work)


def test_what_is_let_go_while_it_is_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    write_frames = stores.write_frames

    def slowly(path: str, frames: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        write_frames(path, frames)

    monkeypatch.setattr(stores, "write_frames", slowly)

    async def work(store: Store) -> None:
        filled(store, 1)
        spill = asyncio.ensure_future(store.spill(1))
        # The loop goes on while the disk is slow.
        await asyncio.to_thread(begun.wait, 30)
        store.discard([1])
        go_on.set()
        assert await spill == 0
        await settled(store)
        assert files(tmp_path) == [] and store.held_bytes == store.spilled_bytes == 0

    run(tmp_path, work)


def test_a_file_that_is_gone_is_an_error_not_a_wrong_value(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        filled(store, 2)
        await store.spill(1000 * KB)
        os.unlink(store[1].path)
        with pytest.raises(OSError):
            store[1].read()
        os.truncate(store[2].path, 100)
        with pytest.raises(OSError, match="shorter"):
            store[2].frames()

    run(tmp_path, work)


LEAVES_SOMETHING = """
import sys
from distributed_core.servers.spilling import SpillFolder
folder = SpillFolder(sys.argv[1])
open(folder.next_file(), 'w').close()
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_is_cleaned_up_after_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LEAVES_SOMETHING, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        (tmp_path / "mine").mkdir()
        assert remove_leftovers(str(tmp_path)) == 0
        assert len(files(path)) == 1
        other.send_signal(signal.SIGKILL)
        other.wait(30)
        assert remove_leftovers(str(tmp_path)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / f"{FOLDER_PREFIX}x").symlink_to(tmp_path / "precious")
    assert remove_leftovers(str(tmp_path / "base")) == 0
    assert (tmp_path / "precious").is_dir()


def test_folders_of_a_user_lie_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    base = spill_base(None)
    folder = SpillFolder(base)
    assert folder.next_file().startswith(f"{tmp_path}/distributed_core-{os.getuid()}/{FOLDER_PREFIX}")
    assert stat.S_IMODE(os.stat(base).st_mode) == 0o700
    folder.close()


def test_large_byte_strings_travel_without_a_copy() -> None:
    value = os.urandom(2 << 20)
    head, part = payloads.dumps(value)
    assert len(head) < 200 and isinstance(part, Buffer)
    assert np.shares_memory(np.frombuffer(part.view, np.uint8), np.frombuffer(value, np.uint8))
    back = payloads.loads([head, part])
    assert type(back) is bytes and back == value
