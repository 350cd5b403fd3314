"""Waiting for futures in all its ways."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distributed_core import Client, as_completed, fire_and_forget, wait
from distributed_core.client import cells as states
from distributed_core.client.session import Session
from distributed_core.comm.address import Address
from distributed_core.errors import NotSerializable, TaskCancelled

pytestmark = pytest.mark.process


def inc(x: int) -> int:
    return x + 1


def fail(x: int) -> int:
    raise ValueError(x)


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "through"


def leave_mark(go: str, path: str) -> None:
    wait_for_file(go)
    Path(path).touch()


def test_as_completed_with_results_and_errors(client: Client) -> None:
    futures = client.map(inc, range(5))
    assert sorted(result for _, result in as_completed(futures, with_results=True)) == [1, 2, 3, 4, 5]
    bad = client.submit(fail, 7)
    with pytest.raises(ValueError, match="7"):
        list(as_completed([bad], with_results=True))
    ((future, error),) = as_completed([bad], with_results=True, raise_errors=False)
    assert future is bad
    assert isinstance(error, ValueError)


def test_as_completed_in_batches_and_with_more_on_the_way(client: Client) -> None:
    waiting = as_completed(client.map(inc, range(10)))
    seen = 0
    for batch in waiting.batches():
        seen += len(batch)
        if seen < 15:
            waiting.update(client.map(inc, range(20, 25)))
    assert seen >= 15
    assert waiting.is_empty()
    with pytest.raises(StopIteration):
        waiting.next_batch()
    assert waiting.next_batch(block=False) == []
    assert waiting.count() == 0


def test_as_completed_in_time_and_cleared(client: Client, tmp_path: Path) -> None:
    stuck = client.submit(wait_for_file, str(tmp_path / "go"))
    waiting = as_completed([stuck], timeout=0.05)
    assert not waiting.has_ready()
    assert waiting.next_batch(block=False) == []
    with pytest.raises(TimeoutError, match="1 futures"):
        next(waiting)
    waiting.clear()
    assert list(waiting) == []
    (tmp_path / "go").touch()
    assert wait(stuck).done == {stuck}


def test_as_completed_in_asyncio(cluster: str) -> None:
    async def main() -> list[int]:
        async with Client(cluster, asynchronous=True, timeout=20) as client:
            found = [result async for _, result in as_completed(client.map(inc, range(5)), with_results=True)]
            bad = client.submit(fail, 1)
            async for _, error in as_completed([bad], with_results=True, raise_errors=False):
                assert isinstance(error, ValueError)
            return sorted(found)

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


def test_callbacks_have_a_thread_of_their_own(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    done, go = threading.Event(), threading.Event()
    names = []

    def slow(future: object) -> None:
        names.append(threading.current_thread().name)
        go.wait(20)
        done.set()

    future = client.submit(inc, 1)
    future.add_done_callback(slow)
    # The callback has not ended, and the client goes on.
    assert client.submit(inc, 2).result(timeout=20) == 3
    go.set()
    assert done.wait(20)
    assert "callback" in names[0]
    told = threading.Event()
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: told.set())
    assert told.wait(20)
    assert "ZeroDivisionError" in caplog.text


def test_fire_and_forget_outlives_its_future_and_its_client(cluster: str, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    marks = [tmp_path / name for name in ("released", "left")]
    with Client(cluster, timeout=20) as client:
        kept = client.submit(inc, 1)
        assert kept.result(timeout=20) == 2
        fire_and_forget(kept)
        first = client.submit(leave_mark, go, str(marks[0]))
        fire_and_forget(first)
        del first
        gc.collect()
        fire_and_forget([client.submit(leave_mark, go, str(marks[1]))])
    Path(go).touch()
    while not all(mark.exists() for mark in marks):
        time.sleep(0.01)
    with Client(cluster, timeout=20) as client:
        while any(worker["held"] or worker["assigned"] for worker in client.scheduler_info()["workers"].values()):
            time.sleep(0.01)


def test_release_and_type(client: Client) -> None:
    future = client.submit(inc, 1)
    assert future.result(timeout=20) == 2
    assert future.type is int
    future.bind_client(client)
    future.release()
    future.release()
    while client.who_has([future])[future.key]:
        time.sleep(0.01)


def test_many_threads_at_once(client: Client) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for turn in range(10):
                futures = client.map(inc, range(turn, turn + 20))
                doomed = client.submit(time.sleep, 0.001)
                doomed.cancel()
                assert client.gather(futures) == list(range(turn + 1, turn + 21))
                assert client.submit(inc, number).result(timeout=60) == number + 1
                assert len(list(as_completed(futures))) == 20
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert failures == []


def test_a_blocking_client_inside_a_running_loop_as_in_notebooks(cluster: str) -> None:
    async def cell() -> int:
        with Client(cluster, timeout=20) as client:
            return int(client.submit(inc, 1).result(timeout=20)) + sum(client.gather(client.map(inc, range(3))))

    assert asyncio.run(cell()) == 8


class Pair(NamedTuple):
    first: Any
    second: Any


def test_gather_of_whatever_holds_futures(client: Client) -> None:
    futures = {"a": client.submit(inc, 1), "b": client.submit(inc, 2)}
    assert client.gather(futures.values()) == [2, 3]
    assert client.gather(each for each in futures.values()) == [2, 3]
    assert client.gather(Pair(futures["a"], [futures["b"]])) == Pair(2, [3])
    bad = client.submit(fail, 1)
    assert client.gather(bad, errors="skip") is None
    assert client.gather([futures["a"], bad, (bad, futures["b"])], errors="skip") == [2, (3,)]


def test_a_call_that_could_not_be_sent_does_not_spoil_the_next(client: Client) -> None:
    def first_seen_here(x: Any) -> Any:
        return x

    with pytest.raises(NotSerializable):
        client.submit(first_seen_here, threading.Lock())
    assert client.submit(first_seen_here, 3).result(timeout=20) == 3


def test_who_waits_for_what_another_thread_releases_hears_of_it(client: Client, tmp_path: Path) -> None:
    future = client.submit(wait_for_file, str(tmp_path / "go"))
    heard: list[BaseException] = []

    def wait_for_it() -> None:
        try:
            future.result(timeout=20)
        except BaseException as error:
            heard.append(error)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    while not future._cell.waiters:
        time.sleep(0.001)
    future.release()
    thread.join(20)
    (tmp_path / "go").touch()
    assert [type(error) for error in heard] == [TaskCancelled]


def test_waiting_for_several_waits_again_for_what_was_lost_meanwhile() -> None:
    async def wait_for_both() -> list[str]:
        session = Session(Address("127.0.0.1", 1), None, None)
        one, other = session.cells.new("f", None), session.cells.new("f", None)
        waiting = asyncio.ensure_future(session.settled([one, other]))
        await asyncio.sleep(0)
        session.cells.finish(one, states.FINISHED)
        session.cells.reopen(one)
        session.cells.finish(other, states.FINISHED)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        session.cells.finish(one, states.FINISHED)
        await waiting
        return [one.status, other.status]

    assert asyncio.run(wait_for_both()) == [states.FINISHED] * 2
