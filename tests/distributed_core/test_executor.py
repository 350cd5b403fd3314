"""`client.get_executor()` as a `concurrent.futures.Executor`: what CPython asks of its own, where it applies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from operator import add, truediv
from pathlib import Path

import pytest

from distributed_core import Client
from distributed_core.client.executing import ClientExecutor
from distributed_core.errors import NotSerializable, UsageError

pytestmark = pytest.mark.process


def capture(*args: object, **kwargs: object) -> tuple[object, object]:
    return args, kwargs


def fail(text: str) -> None:
    raise ValueError(text)


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "through"


@pytest.fixture
def executor(client: Client) -> Iterator[ClientExecutor]:
    with client.get_executor() as made:
        yield made


# --- submit ---------------------------------------------------------------------------------------


def test_submit(executor: ClientExecutor) -> None:
    assert executor.submit(pow, 2, 8).result(timeout=20) == 256


def test_submit_with_keywords_that_are_options_elsewhere(executor: ClientExecutor) -> None:
    found = executor.submit(capture, 1, self=2, fn=3, key=4, workers=5, timeout=6).result(timeout=20)
    assert found == ((1,), {"self": 2, "fn": 3, "key": 4, "workers": 5, "timeout": 6})
    with pytest.raises(TypeError):
        executor.submit(fn=capture, arg=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit(arg=1)  # type: ignore[call-arg]


def test_what_cannot_be_sent_is_said_at_once(executor: ClientExecutor) -> None:
    with pytest.raises(NotSerializable):
        executor.submit(capture, threading.Lock())


def test_exceptions_come_back_with_their_traceback(executor: ClientExecutor) -> None:
    future = executor.submit(fail, "no")
    error = future.exception(timeout=20)
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match="no") as told:
        future.result(timeout=20)
    assert any(entry.name == "fail" for entry in told.traceback)


def test_results_are_let_go(executor: ClientExecutor, client: Client) -> None:
    future = executor.submit(capture)
    assert future.result(timeout=20) == ((), {})
    gone = weakref.ref(future)
    del future
    while gone() is not None:
        time.sleep(0.01)
    while any(worker["held"] for worker in client.scheduler_info()["workers"].values()):
        time.sleep(0.01)


# --- map ------------------------------------------------------------------------------------------


def test_map(executor: ClientExecutor) -> None:
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(5), range(5), chunksize=100)) == list(map(pow, range(5), range(5)))


def test_map_raises_where_the_call_did(executor: ClientExecutor) -> None:
    results = executor.map(truediv, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == 0.5
    assert next(results) == 1 / 3
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_in_time(executor: ClientExecutor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    results = []
    with pytest.raises(concurrent.futures.TimeoutError):
        for result in executor.map(wait_for_file, [str(tmp_path), str(go)], timeout=0.5):
            results.append(result)
    assert results == ["through"]
    go.touch()


def test_map_chunksize(executor: ClientExecutor) -> None:
    for wrong in (-1, 0):
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(pow, range(3), range(3), chunksize=wrong)


# --- futures --------------------------------------------------------------------------------------


def test_wait(executor: ClientExecutor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    slow, quick, bad = executor.submit(wait_for_file, str(go)), executor.submit(add, 1, 2), executor.submit(fail, "x")
    done, pending = concurrent.futures.wait([slow, quick], return_when=FIRST_COMPLETED, timeout=20)
    assert (done, pending) == ({quick}, {slow})
    done, pending = concurrent.futures.wait([slow, bad], return_when=FIRST_EXCEPTION, timeout=20)
    assert (done, pending) == ({bad}, {slow})
    assert concurrent.futures.wait([slow], timeout=0.05).not_done == {slow}
    go.touch()
    done, pending = concurrent.futures.wait([slow, quick, bad], return_when=ALL_COMPLETED, timeout=20)
    assert (done, pending) == ({slow, quick, bad}, set())


def test_as_completed(executor: ClientExecutor) -> None:
    futures = [executor.submit(add, number, 1) for number in range(10)]
    assert sorted(each.result() for each in concurrent.futures.as_completed(futures, timeout=20)) == list(range(1, 11))
    duplicates = list(concurrent.futures.as_completed([futures[0]] * 5, timeout=20))
    assert duplicates == [futures[0]]


def test_cancel(executor: ClientExecutor, tmp_path: Path) -> None:
    future = executor.submit(wait_for_file, str(tmp_path / "never"))
    told = []
    future.add_done_callback(told.append)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert told == [future]
    with pytest.raises(CancelledError):
        future.result(timeout=20)
    done = executor.submit(add, 1, 1)
    assert done.result(timeout=20) == 2
    assert not done.cancel()
    # The thread is free again.
    assert executor.submit(add, 2, 2).result(timeout=20) == 4


def test_states(executor: ClientExecutor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    future = executor.submit(wait_for_file, str(go))
    assert not future.done()
    assert not future.cancelled()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0.01)
    go.touch()
    assert future.result(timeout=20) == "through"
    assert future.done()
    assert future.exception() is None


def test_callbacks(executor: ClientExecutor) -> None:
    told: list[object] = []
    enough = threading.Event()
    future = executor.submit(add, 1, 2)
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda done: (told.append(done.result()), enough.set()))
    assert enough.wait(20)
    assert told == [3]
    future.add_done_callback(lambda done: told.append("late"))
    assert told == [3, "late"]


def test_in_asyncio(executor: ClientExecutor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = [asyncio.wrap_future(executor.submit(add, number, 1)) for number in range(3)]
        return [*await asyncio.gather(*wrapped), await loop.run_in_executor(executor, add, 10, 10)]

    assert asyncio.run(main()) == [1, 2, 3, 20]


# --- shutdown -------------------------------------------------------------------------------------


def test_after_shutdown_nothing_is_taken_and_what_was_taken_is_done(client: Client) -> None:
    executor = client.get_executor()
    futures = [executor.submit(add, number, 1) for number in range(20)]
    executor.shutdown()
    assert all(each.done() for each in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1, 1)
    executor.shutdown()
    # The client is not the executor's to close.
    assert client.submit(add, 1, 1).result(timeout=20) == 2


def test_shutdown_that_does_not_wait(client: Client, tmp_path: Path) -> None:
    executor = client.get_executor()
    go = tmp_path / "go"
    future = executor.submit(wait_for_file, str(go))
    executor.shutdown(wait=False)
    assert not future.done()
    go.touch()
    assert future.result(timeout=20) == "through"


def test_shutdown_that_cancels(client: Client, tmp_path: Path) -> None:
    executor = client.get_executor()
    futures = [executor.submit(wait_for_file, str(tmp_path / "never")) for _ in range(10)]
    executor.shutdown(cancel_futures=True)
    assert all(each.cancelled() for each in futures)


def test_options(client: Client) -> None:
    with client.get_executor(pure=True, priority=3, retries=1) as executor:
        assert executor.submit(add, 3, 4).result(timeout=20) == 7
    with pytest.raises(UsageError, match="colour"):
        client.get_executor(colour="red")
