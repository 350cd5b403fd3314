"""Workers with a memory limit, as processes: more results than memory, large tasks, a pause, what stays on disk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_core import Client, wait
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

MB = 1_000_000


def array(number: int, megabytes: int = 20) -> Any:
    return np.full(megabytes * MB // 8, float(number))


def text(number: int) -> list[str]:
    """About 10 MB that pickle builds piece by piece."""
    return [f"{number} {place:0180}" for place in range(45_000)]


def total(values: Any) -> float:
    return float(values.sum())


def totals(*arrays: Any) -> list[float]:
    return [float(each[-1]) for each in arrays]


def metrics(client: Client) -> list[dict[str, Any]]:
    workers = client.scheduler_info()["workers"].values()
    return [{**worker["metrics"], "paused": worker["paused"], "pid": worker["pid"]} for worker in workers]


def until(fact: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait until `fact()` is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := fact()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


def spill_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("distributed_core-spill-*/*") if path.is_file()]


def test_a_worker_holds_more_results_than_it_has_memory(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    folder = tmp_path / "local"
    worker = launch.worker(address, "--nthreads", "2", "--memory-limit", "300MB", "--local-directory", str(folder))
    with Client(address, timeout=20) as client:
        (before,) = metrics(client)
        futures = client.map(array, range(50))
        wait(futures, timeout=90)
        (found,) = until(lambda: [each for each in metrics(client) if each.get("spilled_count", 0) >= 35])
        assert found["spilled_bytes"] >= 700 * MB and found["memory_limit_bytes"] == 300 * MB
        assert len(spill_files(folder)) >= 35
        # To the client, and to a task that needs all of them at once.
        for number, future in enumerate(futures):
            assert future.result(timeout=30)[-1] == number
        assert client.submit(totals, *futures).result(timeout=60) == list(map(float, range(50)))
        (after,) = metrics(client)
        assert after["pid"] == before["pid"], "it was killed"
        del futures, future
        until(lambda: not spill_files(folder))
    assert worker.end() == 0
    assert list(folder.iterdir()) == []


def test_results_that_are_no_arrays_come_back(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--memory-limit", "300MB", "--local-directory", str(tmp_path / "local"))
    with Client(address, timeout=20) as client:
        (before,) = metrics(client)
        futures = client.map(text, range(40))
        wait(futures, timeout=90)
        ends = client.map(lambda lines: lines[-1], futures)
        assert client.gather(ends) == [f"{number} {44_999:0180}" for number in range(40)]
        (after,) = until(lambda: [each for each in metrics(client) if each.get("spilled_count")])
        assert after["pid"] == before["pid"], "it was killed"


def test_many_large_tasks_with_reductions_stay_within_memory(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    folder = tmp_path / "local"
    launch.worker(address, "--nthreads", "2", "--memory-limit", "400MB", "--local-directory", str(folder))
    with Client(address, timeout=20) as client:
        (before,) = metrics(client)
        roots = client.map(array, range(100))
        sums = client.map(total, roots)
        del roots
        most = spilled = 0
        deadline = time.monotonic() + 90
        while not all(future.done() for future in sums):
            assert time.monotonic() < deadline
            (found,) = metrics(client)
            most = max(most, found.get("memory_bytes", 0))
            spilled = max(spilled, found.get("spilled_count", 0))
            time.sleep(0.02)
        assert client.gather(sums) == [number * 2.5 * MB for number in range(100)]
        (after,) = metrics(client)
        assert after["pid"] == before["pid"], "it was killed"
        assert most < 400 * MB
        assert spilled <= 10, "nearly everything can be reduced before it has to be spilled"


def test_a_paused_worker_leaves_tasks_to_others_and_comes_back(launch: Launcher) -> None:
    def take() -> None:
        import sys

        sys.ballast = bytearray(290 * MB)  # type: ignore[attr-defined]
        sys.ballast[::4096] = bytes(len(sys.ballast[::4096])).replace(b"\0", b"x")  # type: ignore[attr-defined]

    def give_back() -> None:
        import sys

        del sys.ballast  # type: ignore[attr-defined]

    def where(number: int) -> int:
        return os.getpid()

    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--memory-limit", "380MB", "--name", "alice")
    launch.worker(address, "--nthreads", "1", "--memory-limit", "380MB", "--name", "bob")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(2, timeout=30)
        info = client.scheduler_info()["workers"]
        pids = {worker["name"]: worker["pid"] for worker in info.values()}
        alice = next(address for address, worker in info.items() if worker["name"] == "alice")
        client.run(take, workers=[alice])
        until(lambda: any(each["paused"] and each["pid"] == pids["alice"] for each in metrics(client)))
        assert set(client.gather(client.map(where, range(50)))) == {pids["bob"]}
        bound = client.submit(where, 0, workers=["alice"])
        client.run(give_back, workers=[alice])
        assert bound.result(timeout=30) == pids["alice"]
        until(lambda: not any(each["paused"] for each in metrics(client)))


def test_what_a_killed_worker_left_on_disk_is_removed_and_computed_again(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    folder = tmp_path / "local"
    launch.worker(address, "--nthreads", "1", "--memory-limit", "300MB", "--local-directory", str(folder))
    with Client(address, timeout=20) as client:
        futures = client.map(array, range(15))
        wait(futures, timeout=60)
        (left,) = until(lambda: list(folder.glob("distributed_core-spill-*")))
        os.kill(metrics(client)[0]["pid"], signal.SIGKILL)
        until(lambda: not left.exists())
        assert [future.result(timeout=60)[0] for future in futures] == list(map(float, range(15)))


def test_a_file_that_somebody_removed_is_computed_again(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    folder = tmp_path / "local"
    launch.worker(address, "--nthreads", "1", "--memory-limit", "300MB", "--local-directory", str(folder))
    with Client(address, timeout=20) as client:
        futures = client.map(array, range(15))
        wait(futures, timeout=60)
        for path in until(lambda: spill_files(folder)):
            path.unlink()
        assert client.gather(client.map(total, futures)) == [number * 2.5 * MB for number in range(15)]
        assert [future.result(timeout=60)[0] for future in futures] == list(map(float, range(15)))


def test_a_result_larger_than_memory_moves_in_pieces(launch: Launcher, tmp_path: Path) -> None:
    """From a worker to one that has half as much memory as the result takes, and from a client to that one."""
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--name", "large", "--memory-limit", "0")
    folder = tmp_path / "local"
    options = ("--memory-limit", "160MB", "--local-directory", str(folder))
    launch.worker(address, "--nthreads", "1", "--name", "small", *options)
    with Client(address) as client:
        client.wait_for_workers(2, timeout=30)
        pid = client.submit(os.getpid, workers=["small"]).result(timeout=30)
        made = client.submit(array, 3, 240, workers=["large"])
        assert client.submit(total, made, workers=["small"]).result(timeout=100) == 3.0 * 240 * MB / 8
        (brought,) = client.scatter([array(4, 240)], workers=["small"])
        assert client.submit(total, brought, workers=["small"]).result(timeout=100) == 4.0 * 240 * MB / 8
        assert client.submit(os.getpid, workers=["small"], pure=False).result(timeout=30) == pid
        # What came is a result like others: it goes to disk, and from there to whoever wants it.
        assert client.submit(total, brought, workers=["large"]).result(timeout=100) == 4.0 * 240 * MB / 8
        del made, brought
        until(lambda: not spill_files(folder))
        assert client.submit(os.getpid, workers=["small"], pure=False).result(timeout=30) == pid
