"""The client against real processes: what users of futures rely on."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import traceback
from typing import Any

import numpy as np
import pytest

from distributed_core import Client, as_completed, get_client, wait
from distributed_core.errors import (
    ClientClosed,
    DataLost,
    NotEnoughWorkers,
    NotSerializable,
    SchedulerLost,
    TaskCancelled,
    UsageError,
)
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process


def inc(x: int) -> int:
    return x + 1


def total(*args: Any, **kwargs: Any) -> Any:
    return sum(args) + sum(kwargs.values())


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "through"


def divide(x: float, y: float) -> float:
    return x / y


class Picky(Exception):
    """Pickles, but does not open again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raise_picky() -> None:
    raise Picky(1, 2)


def test_submit_map_gather(client: Client) -> None:
    assert client.submit(inc, 1).result(timeout=20) == 2
    futures = client.map(inc, range(1000))
    assert client.gather(futures) == list(range(1, 1001))
    assert client.gather({"a": futures[0], "b": [futures[1], 7]}) == {"a": 1, "b": [2, 7]}
    assert client.gather(client.map(total, [1, 2], [10, 20], extra=100)) == [111, 122]


def test_functions_of_this_script_travel_by_value(client: Client) -> None:
    factor = 7
    assert client.gather(client.map(lambda x: x * factor, range(3))) == [0, 7, 14]


def test_futures_are_arguments_at_any_depth(client: Client) -> None:
    a, b, c = client.map(inc, [1, 2, 3])
    assert client.submit(total, a, b, extra=c).result() == 9
    assert client.submit(sum, [a, b, c]).result() == 9
    assert client.submit(lambda d: d["x"][0]["y"] + d["x"][1], {"x": [{"y": a}, b]}).result() == 5
    assert client.submit(lambda x, y: x is y, a, a).result() is True


def test_a_long_chain_and_a_tree(client: Client) -> None:
    future = client.submit(inc, 0)
    for _ in range(500):
        future = client.submit(inc, future)
    assert future.result() == 501
    layer = client.map(inc, range(256))
    while len(layer) > 1:
        layer = [client.submit(total, *layer[i : i + 2]) for i in range(0, len(layer), 2)]
    assert layer[0].result() == sum(range(1, 257))


def test_errors_arrive_with_the_users_own_traceback(client: Client) -> None:
    future = client.submit(divide, 1, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert "divide" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert future.status == "error"
    assert isinstance(future.exception(), ZeroDivisionError)
    names = [frame.name for frame in traceback.extract_tb(future.traceback())]
    assert names[0] == "divide"
    below = client.submit(inc, client.submit(inc, future))
    with pytest.raises(ZeroDivisionError):
        below.result()
    assert client.gather([future, client.submit(inc, 1)], errors="skip") == [2]
    with pytest.raises(ZeroDivisionError):
        client.gather([client.submit(inc, 1), future])


def test_an_exception_that_cannot_be_opened_keeps_its_name(client: Client) -> None:
    with pytest.raises(Exception, match=r"1 and 2") as caught:
        client.submit(raise_picky).result()
    assert "Picky" in repr(caught.value)


def test_sysexit_in_a_task_is_its_own_failure(client: Client) -> None:
    with pytest.raises(SystemExit):
        client.submit(exec, "raise SystemExit(3)").result()
    assert client.submit(inc, 1).result() == 2


def test_what_cannot_travel_is_refused_by_name(client: Client) -> None:
    with pytest.raises(NotSerializable, match="lock"):
        client.submit(inc, threading.Lock())
    lock = threading.Lock()
    with pytest.raises(NotSerializable, match="lock"):
        client.submit(lambda: lock)
    with pytest.raises(NotSerializable, match="lock"):
        client.submit(threading.Lock).result()
    with pytest.raises(UsageError, match="something to call"):
        client.submit(3)  # type: ignore[arg-type]


def test_data_stays_on_the_workers_and_moves_between_them(client: Client) -> None:
    arrays = [client.submit(np.full, 200_000, value) for value in range(8)]
    joined = client.submit(lambda parts: int(sum(part.sum() for part in parts)), arrays)
    assert joined.result() == 200_000 * sum(range(8))
    back = client.gather(arrays)
    assert all(back[value][0] == value for value in range(8))
    back[3][0] = 99  # what was gathered is the caller's own, and writable
    assert client.submit(lambda part: int(part[0]), arrays[3]).result() == 3


def test_many_large_results_are_gathered_in_parts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed_core.client import bulk

    monkeypatch.setattr(bulk, "FETCH_BYTES", 1_000_000)
    monkeypatch.setattr(bulk, "FETCH_TASKS", 3)
    futures = client.map(bytes, [200_000] * 20)
    assert [len(each) for each in client.gather(futures)] == [200_000] * 20


@pytest.mark.parametrize("direct", [True, False])
def test_scatter(cluster: str, direct: bool) -> None:
    with Client(cluster, direct=direct) as client:
        array = np.arange(300_000)
        future = client.scatter(array)
        assert client.submit(np.sum, future).result() == array.sum()
        assert (future.result() == array).all()
        ones = client.scatter([1, "two", None])
        assert client.gather(ones) == [1, "two", None]
        named = client.scatter({"a": 1, "b": b"x" * 100_000})
        assert client.gather(named) == {"a": 1, "b": b"x" * 100_000}
        assert client.scatter([]) == []


def test_explicit_keys_are_shared_and_run_once(cluster: str, client: Client, tmp_path: Any) -> None:
    counter = tmp_path / "count"

    def count_up(path: str) -> int:
        with open(path, "a") as file:
            file.write("x")
        return 5

    first = client.submit(count_up, str(counter), key="count-up-1")
    assert first.result() == 5
    with Client(cluster) as other:
        second = other.submit(count_up, str(counter), key="count-up-1")
        assert second.result() == 5
        assert second.key == "count-up-1"
    assert counter.read_text() == "x"


def test_pure_calls_have_one_key(client: Client) -> None:
    first, second = client.submit(inc, 3, pure=True), client.submit(inc, 3, pure=True)
    assert first.key == second.key != client.submit(inc, 4, pure=True).key
    assert client.submit(inc, 3).key != client.submit(inc, 3).key
    assert second.result() == 4


def test_cancel_leaves_other_clients_alone(cluster: str, client: Client, tmp_path: Any) -> None:
    gate = tmp_path / "gate"

    with Client(cluster) as other:
        mine = client.submit(wait_for_file, str(gate), key="gate-1")
        theirs = other.submit(wait_for_file, str(gate), key="gate-1")
        built = client.submit(len, mine)
        client.cancel(mine)
        assert mine.cancelled()
        with pytest.raises(TaskCancelled):
            mine.result()
        with pytest.raises(TaskCancelled):
            built.result(timeout=20)
        gate.write_text("open")
        assert theirs.result(timeout=20) == "through"


def test_wait_and_as_completed(client: Client) -> None:
    futures = client.map(inc, range(20))
    done, not_done = wait(futures, timeout=20)
    assert done == set(futures)
    assert not not_done
    assert sorted(future.result() for future in as_completed(futures)) == list(range(1, 21))
    assert sorted(result for _, result in as_completed(futures, with_results=True)) == list(range(1, 21))


def test_waiting_ends_in_time(client: Client, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    blocked = client.submit(wait_for_file, gate)
    quick = client.submit(inc, 1)
    with pytest.raises(TimeoutError):
        wait([blocked], timeout=0.05)
    with pytest.raises(TimeoutError):
        blocked.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        list(as_completed([blocked], timeout=0.05))
    done, not_done = wait([blocked, quick], return_when="FIRST_COMPLETED", timeout=20)
    assert done == {quick}
    assert not_done == {blocked}
    (tmp_path / "gate").touch()
    assert blocked.result(timeout=20) == "through"


def test_done_callbacks(client: Client) -> None:
    heard: list[Any] = []
    event = threading.Event()

    def callback(future: Any) -> None:
        heard.append(future)
        event.set()

    future = client.submit(inc, 1)
    future.add_done_callback(callback)
    assert event.wait(20)
    assert heard == [future]


def test_released_futures_are_forgotten(client: Client) -> None:
    futures = client.map(inc, range(100))
    client.gather(futures)
    held = sum(worker["held"] for worker in client.scheduler_info()["workers"].values())
    assert held >= 100
    del futures
    gc.collect()
    held_now = sum(worker["held"] for worker in client.scheduler_info()["workers"].values())
    assert held_now <= held - 100


def test_many_threads_use_one_client(client: Client) -> None:
    results: list[int] = []

    def use(number: int) -> None:
        results.append(sum(client.gather(client.map(inc, range(number, number + 50)))))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [sum(range(number + 1, number + 51)) for number in range(8)]


def test_asynchronous(cluster: str) -> None:
    async def use() -> None:
        async with Client(cluster, asynchronous=True) as client:
            future = client.submit(inc, 1)
            assert await future == 2
            assert await future.result() == 2
            assert await client.gather(client.map(inc, range(3))) == [1, 2, 3]
            assert [await each async for each in as_completed([future])] == [2]
            assert await client.gather(await client.scatter([1, 2])) == [1, 2]
            failed = client.submit(divide, 1, 0)
            assert isinstance(await failed.exception(), ZeroDivisionError)
            await client.wait_for_workers(2, timeout=20)
            assert Client.current() is client
        client = await Client(cluster, asynchronous=True)
        await client.close()

    asyncio.run(use())


def test_current_client(client: Client) -> None:
    assert Client.current() is client
    assert get_client() is client


def test_a_closed_client_says_so(cluster: str) -> None:
    client = Client(cluster)
    future = client.submit(inc, 1)
    assert future.result() == 2
    client.close()
    client.close()
    for call in (lambda: client.submit(inc, 1), lambda: client.map(inc, [1]), client.scheduler_info):
        with pytest.raises(ClientClosed, match="make a new one"):
            call()


def test_waiting_for_workers_that_never_come(client: Client) -> None:
    with pytest.raises(NotEnoughWorkers, match="2 of 99 workers"):
        client.wait_for_workers(99, timeout=0.1)


def test_scattered_data_dies_with_its_worker_and_results_do_not(launch: Launcher) -> None:
    _, address = launch.scheduler()
    first = launch.worker(address, "--nthreads", "1", "--no-nanny")
    with Client(address) as client:
        scattered = client.scatter("precious")
        computed = client.submit(list, "abc" * 1000)
        assert len(computed.result()) == 3000
        launch.worker(address, "--nthreads", "1", "--no-nanny")
        first.process.kill()
        first.wait()
        with pytest.raises(DataLost, match="scatter"):
            client.submit(len, scattered).result(timeout=30)
        assert len(client.submit(list, computed).result(timeout=30)) == 3000


def test_without_workers_scatter_says_so(launch: Launcher) -> None:
    _, address = launch.scheduler()
    with Client(address) as client, pytest.raises(Exception, match="no worker"):
        client.scatter(1)


def test_a_lost_scheduler_is_named(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    client = Client(address, reconnect_timeout=0)
    waiting = client.submit(inc, 1)
    scheduler.process.kill()
    with pytest.raises(SchedulerLost, match="is gone"):
        waiting.result(timeout=30)
    assert waiting.status == "lost"
    with pytest.raises(ClientClosed, match="is gone"):
        client.submit(inc, 1)
    client.close()
