"""What users may ask of a task beside running it: real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from distributed_core import Client, Future, Reschedule, wait
from distributed_core.errors import (
    ConnectError,
    KilledWorker,
    ResultTooLarge,
    TaskCancelled,
    TaskInterrupted,
    TaskTimeout,
    UsageError,
)
from tests.distributed_core.launching import Launcher, launcher

pytestmark = pytest.mark.process


def inc(x: int) -> int:
    return x + 1


def here(*_: Any) -> int:
    return os.getpid()


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "through"


def say_and_hang(folder: str, *, stubborn: bool = False) -> None:
    """Tell that it runs, then go on until it is interrupted; say so in a file."""
    Path(folder, "pid").write_text(str(os.getpid()))
    Path(folder, "pid").rename(Path(folder, "started"))
    while True:
        try:
            while True:
                time.sleep(0.01)
        except TaskInterrupted:
            Path(folder, "interrupted").touch()
            if not stubborn:
                raise


def raise_until(path: str, times: int) -> str:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        raise ValueError("not yet")
    return "at last"


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def await_path(path: Path) -> str:
    while not path.exists():
        time.sleep(0.005)
    return path.read_text()


def held_by_name(client: Client) -> dict[str, int]:
    return {worker["name"]: worker["held"] for worker in client.scheduler_info()["workers"].values()}


@pytest.fixture(scope="module")
def nannied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two nannies, whose workers have two threads each."""
    with launcher(tmp_path_factory.mktemp("nannied")) as made:
        _, address = made.scheduler()
        made.worker(address, "--nthreads", "2", "--name", "small")
        made.worker(address, "--nthreads", "2", "--name", "big")
        yield address


@pytest.fixture
def pair(nannied: str) -> Iterator[Client]:
    with Client(nannied, timeout=20) as client:
        client.wait_for_workers(2, timeout=30)
        yield client


def test_a_cancelled_run_is_interrupted(pair: Client, tmp_path: Path) -> None:
    future = pair.submit(say_and_hang, str(tmp_path))
    await_path(tmp_path / "started")
    future.cancel(reason="enough of it")
    await_path(tmp_path / "interrupted")
    with pytest.raises(TaskCancelled, match="enough of it"):
        future.result(timeout=10)
    assert pair.submit(inc, 1).result(timeout=10) == 2


def test_an_interruption_reaches_its_own_run_only(pair: Client) -> None:
    for _ in range(20):
        doomed = pair.map(time.sleep, [0.001] * 20)
        kept = pair.map(inc, range(50))
        pair.cancel(doomed)
        assert pair.gather(kept) == list(range(1, 51))


def test_a_stubborn_run_ends_with_its_process_and_its_neighbours_run_again(pair: Client, tmp_path: Path) -> None:
    future = pair.submit(say_and_hang, str(tmp_path), stubborn=True, workers="small")
    pid = int(await_path(tmp_path / "started"))
    neighbour = pair.submit(wait_for_file, str(tmp_path / "go"), workers="small")
    future.cancel()
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.02)
    (tmp_path / "go").touch()
    assert neighbour.result(timeout=30) == "through"


def test_a_task_has_its_time(pair: Client, tmp_path: Path) -> None:
    future = pair.submit(say_and_hang, str(tmp_path), timeout=0.1)
    with pytest.raises(TaskTimeout, match=r"0\.1 s"):
        future.result(timeout=20)
    assert (tmp_path / "interrupted").exists()
    assert pair.submit(inc, 1, timeout=60).result(timeout=20) == 2
    for wrong in (0, -1, "soon"):
        with pytest.raises(UsageError, match="timeout"):
            pair.submit(inc, 1, timeout=wrong)  # type: ignore[arg-type]


def test_retries(pair: Client, tmp_path: Path) -> None:
    assert pair.submit(raise_until, str(tmp_path / "a"), 2, retries=2).result(timeout=20) == "at last"
    future = pair.submit(raise_until, str(tmp_path / "b"), 2, retries=1)
    with pytest.raises(ValueError, match="not yet"):
        future.result(timeout=20)
    after = pair.submit(inc, pair.submit(len, future))
    with pytest.raises(ValueError, match="not yet"):
        after.result(timeout=20)
    pair.retry([after])
    assert after.result(timeout=20) == len("at last") + 1
    assert future.result(timeout=20) == "at last"
    with pytest.raises(UsageError, match="retries"):
        pair.submit(inc, 1, retries=-1)


def test_workers_by_name_and_address(pair: Client) -> None:
    small = pair.submit(here, workers="small", key="s").result(timeout=20)
    big = pair.submit(here, workers=["big"], key="b").result(timeout=20)
    assert small != big
    for address, worker in pair.scheduler_info()["workers"].items():
        pid = pair.submit(here, workers=address, key=f"at {address}").result(timeout=20)
        assert pid == worker["pid"]
    assert set(pair.gather(pair.map(here, range(20), workers="small"))) == {small}
    assert pair.submit(inc, 1, workers="nobody", allow_other_workers=True).result(timeout=20) == 2
    for wrong in ([], 3.5, [""]):
        with pytest.raises(UsageError, match="workers"):
            pair.submit(inc, 1, workers=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="allow_other_workers"):
        pair.submit(inc, 1, allow_other_workers=True)


def test_a_restriction_that_nobody_meets_waits_and_warns(
    pair: Client, nannied: str, launch: Launcher, caplog: pytest.LogCaptureFixture
) -> None:
    future = pair.submit(inc, 1, workers="carol")
    while "carol" not in caplog.text:
        time.sleep(0.01)
    assert not future.done()
    launch.worker(nannied, "--name", "carol", "--nthreads", "1")
    assert future.result(timeout=30) == 2
    pair.retire_workers("carol")


def test_annotations_of_dask_count(pair: Client) -> None:
    with dask.annotate(workers="big", retries=1):
        pids = set(pair.gather(pair.map(here, range(5))))
    assert pids == {pair.submit(here, workers="big").result(timeout=20)}


def test_the_culprit_alone_fails(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "4", "--name", "only")
    with Client(address, timeout=20) as client:
        innocents = client.map(inc, range(200))
        culprit = client.submit(die)
        more = client.map(inc, range(200, 400))
        with pytest.raises(KilledWorker, match="signal 11") as told:
            culprit.result(timeout=60)
        assert "die" in str(told.value)
        assert "MiB" in str(told.value)
        assert client.gather(innocents + more) == list(range(1, 401))


def test_replicas_and_balance(pair: Client) -> None:
    blocks = pair.map(np.ones, [100_000] * 8, workers="small")
    wait(blocks)
    pair.replicate(blocks[0], n=2)
    assert held_by_name(pair) == {"small": 8, "big": 1}
    pair.rebalance(blocks)
    held = held_by_name(pair)
    assert abs(held["small"] - held["big"]) <= 2
    assert sum(each.sum() for each in pair.gather(blocks)) == 800_000
    with pytest.raises(UsageError, match="nobody"):
        pair.replicate(blocks, workers="nobody")


def test_scatter_where_and_how_often(pair: Client) -> None:
    data = {"a": np.arange(1000), "b": [1, 2]}
    futures = pair.scatter(data, workers="big")
    assert set(futures) == {"a", "b"}
    assert pair.submit(here, futures["a"]).result(timeout=20) == pair.submit(here, workers="big").result(timeout=20)
    everywhere = pair.scatter([1, 2, 3], broadcast=True)
    held = held_by_name(pair)
    assert held["small"] >= 3
    assert held["big"] >= 3
    assert pair.gather(everywhere) == [1, 2, 3]
    first, second = pair.scatter(b"same", hash=True), pair.scatter(b"same", hash=True)
    assert first.key == second.key
    assert pair.gather([first, second]) == [b"same", b"same"]
    assert type(pair.scatter((1, 2))) is tuple


def test_retiring_loses_no_data(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--name", "first")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(1, timeout=30)
        kept = client.scatter([np.arange(50_000) for _ in range(4)])
        with pytest.raises(UsageError, match="no other worker"):
            client.retire_workers("first")
        second = launch.worker(address, "--nthreads", "1", "--name", "second")
        client.wait_for_workers(2, timeout=30)
        slow = client.submit(time.sleep, 0.3, workers="first")
        gone = client.retire_workers("first")
        assert [worker["name"] for worker in gone.values()] == ["first"]
        assert slow.result(timeout=30) is None
        assert list(held_by_name(client)) == ["second"]
        assert all((each == np.arange(50_000)).all() for each in client.gather(kept))
        assert second.process.poll() is None


def test_futures_of_others_by_their_keys(nannied: str, pair: Client) -> None:
    named = pair.submit(inc, 10, key="eleven")
    unnamed = pair.submit(inc, 20)
    wait([named, unnamed])
    with Client(nannied, timeout=20) as other:
        assert Future("eleven", other).result(timeout=20) == 11
        same = Future(unnamed.key, other)
        assert same.result(timeout=20) == 21
        del unnamed
        assert other.submit(inc, same).result(timeout=20) == 22
        with pytest.raises(TaskCancelled, match="no task is named"):
            Future("never heard of", other).result(timeout=20)


def test_a_task_says_why_it_waits(pair: Client, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    blocking = pair.map(wait_for_file, [go] * 2, workers="small")
    later = pair.submit(inc, 1, workers="small", key="later")
    after = pair.submit(inc, later, key="after")
    unmet = pair.submit(inc, 1, resources={"GPU": 1}, key="unmet")
    alone = pair.submit(inc, 1, workers="dora", key="alone")
    assert "small" in pair.explain(later) or "behind" in pair.explain("later")
    assert "waits for 1 of its 1 inputs: later" in pair.explain(after)
    assert "has 1 GPU" in pair.explain(unmet)
    assert "is called dora" in pair.explain(alone)
    running = [pair.explain(each) for each in blocking]
    assert all("runs on 127.0.0.1" in each for each in running)
    Path(go).touch()
    assert after.result(timeout=20) == 3
    assert "is done" in pair.explain("after")
    became = [became for _, became, _ in pair.story("later")["later"]]
    assert "Assigned" in became
    assert became[-1] == "Held"
    assert "was never submitted" in pair.explain("nothing of the kind")
    pair.dump_state(tmp_path / "state.json")
    state = json.loads((tmp_path / "state.json").read_text())
    assert {task["name"] for task in state["scheduler"]["tasks"].values()} >= {"after", "unmet", "alone"}
    assert all("runs" in worker for worker in state["workers"].values())


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def sleep_on(folder: str) -> None:
    Path(folder, "started").touch()
    try:
        await asyncio.sleep(3600)
    finally:
        Path(folder, "ended").touch()


def test_coroutine_functions_run_on_the_workers_loop(pair: Client, tmp_path: Path) -> None:
    assert pair.gather(pair.map(double, range(5))) == [0, 2, 4, 6, 8]
    future = pair.submit(sleep_on, str(tmp_path))
    await_path(tmp_path / "started")
    future.cancel()
    await_path(tmp_path / "ended")


def again_elsewhere(path: str) -> str:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise Reschedule
    return "third time"


def test_a_task_may_ask_to_be_run_again(pair: Client, tmp_path: Path) -> None:
    assert pair.submit(again_elsewhere, str(tmp_path / "a")).result(timeout=20) == "third time"


def test_a_result_larger_than_the_workers_memory(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--memory-limit", "500MB")
    with Client(address, timeout=20) as client:
        with pytest.raises(ResultTooLarge, match="memory-limit"):
            client.submit(np.zeros, 10**8).result(timeout=30)
        assert client.submit(inc, 1).result(timeout=20) == 2


def mark(folder: str, worker: Any) -> None:
    Path(folder, worker.name).touch()


def test_a_callback_on_each_worker_also_on_later_ones(
    pair: Client, nannied: str, launch: Launcher, tmp_path: Path
) -> None:
    pair.register_worker_callbacks(lambda dask_worker: mark(str(tmp_path), dask_worker))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["big", "small"]
    launch.worker(nannied, "--name", "late", "--nthreads", "1")
    await_path(tmp_path / "late")
    pair.retire_workers("late")


def test_a_client_with_more_weight(nannied: str) -> None:
    with Client(nannied, timeout=20, weight=2.5, set_as_default=False) as heavy:
        assert heavy.submit(inc, 1).result(timeout=20) == 2
        with pytest.raises(UsageError):
            Client.current()
    with pytest.raises(ConnectError, match="weight"):
        Client(nannied, timeout=5, weight=-1.0)


def test_what_is_built_on_a_cancelled_future_is_cancelled_and_the_client_goes_on(pair: Client) -> None:
    doomed = pair.submit(inc, 1)
    doomed.cancel()
    after = pair.submit(inc, pair.submit(inc, doomed))
    with pytest.raises(TaskCancelled, match="cancelled or released"):
        after.result(timeout=20)
    assert pair.submit(inc, 1).result(timeout=20) == 2
