"""Actors: objects that live on workers."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from typing import Any

import pytest

from distributed_core import Actor, Client, wait
from distributed_core.errors import ActorLost, UsageError
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process


class Counter:
    """A count that others may raise."""

    kind = "counter"

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.seen: list[int] = []

    def add(self, by: int) -> int:
        self.count += by
        self.seen.append(by)
        return self.count

    def order(self) -> list[int]:
        return self.seen

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("a counter may fail")

    async def add_slowly(self, by: int) -> int:
        await asyncio.sleep(0)
        self.count += by
        return self.count


class Boss:
    """An actor that uses another one."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def work(self) -> int:
        return int(self.other.add(100).result(timeout=20))


def add_here(counter: Any, by: int) -> int:
    return int(counter.add(by).result(timeout=20))


def test_methods_attributes_and_errors(client: Client) -> None:
    counter = client.submit(Counter, 5, actor=True).result(timeout=20)
    assert isinstance(counter, Actor)
    future = counter.add(2)
    assert future.result(timeout=20) == 7
    assert future.done()
    assert counter.count == 7
    assert counter.kind == "counter"
    assert counter.add_slowly(3).result(timeout=20) == 10
    with pytest.raises(ValueError, match="may fail") as told:
        counter.fail().result(timeout=20)
    assert any(entry.name == "fail" for entry in told.traceback)
    with pytest.raises(AttributeError, match="nothing"):
        _ = counter.nothing
    assert "add" in dir(counter)
    assert "Counter" in repr(counter)


def test_calls_keep_their_order(client: Client) -> None:
    counter = client.submit(Counter, actor=True).result(timeout=20)
    futures = [counter.add(number) for number in range(200)]
    assert futures[-1].result(timeout=20) == sum(range(200))
    assert counter.order().result(timeout=20) == list(range(200))


def test_actors_in_tasks_and_in_other_actors(client: Client) -> None:
    future = client.submit(Counter, actor=True)
    assert sorted(client.gather([client.submit(add_here, future, 1, key=f"add-{each}") for each in range(6)])) == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
    counter = future.result(timeout=20)
    assert client.submit(add_here, counter, 4).result(timeout=20) == 10
    boss = client.submit(Boss, counter, actor=True).result(timeout=20)
    assert boss.work().result(timeout=20) == 110


def test_an_actor_lives_as_long_as_somebody_holds_it(client: Client) -> None:
    counter = client.submit(Counter, actor=True).result(timeout=20)
    gc.collect()
    assert counter.add(1).result(timeout=20) == 1
    del counter
    gc.collect()
    while any(worker["held"] for worker in client.scheduler_info()["workers"].values()):
        time.sleep(0.01)


def test_an_actor_dies_with_its_worker_and_says_so(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(1, timeout=30)
        future = client.submit(Counter, actor=True)
        counter = future.result(timeout=20)
        os.kill(counter.pid().result(timeout=20), signal.SIGKILL)
        with pytest.raises(ActorLost, match="make a new"):
            while True:
                counter.add(1).result(timeout=20)
        wait(client.submit(len, [1]))
        with pytest.raises(ActorLost):
            future.result(timeout=20)


def test_in_asyncio(cluster: str) -> None:
    async def main() -> None:
        async with Client(cluster, asynchronous=True, timeout=20) as client:
            counter = await client.submit(Counter, actor=True)
            assert await counter.add(1) == 1
            assert await counter.count == 1

    asyncio.run(main())


def test_misuse(client: Client) -> None:
    with pytest.raises(UsageError, match="map makes no actors"):
        client.map(Counter, [1], actor=True)
