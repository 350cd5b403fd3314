"""Locks and the like: the machine alone, and on real processes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distributed_core import Client, Event, Future, Lock, MultiLock, Queue, Semaphore, Variable, get_worker
from distributed_core.errors import UsageError
from distributed_core.machines.coordination import (
    Answer,
    Asked,
    CoordinationMachine,
    ForgetValue,
    HolderLost,
    RequestDropped,
)
from tests.distributed_core.launching import Launcher

NAMES = ["a", "b", "c"]


class LocksUnderChaos(RuleBasedStateMachine):
    """Locks and semaphores against a model that knows who should have what."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = CoordinationMachine()
        self.requests = 0
        self.waiting: dict[int, tuple[int, str, list[str]]] = {}
        self.granted: dict[str, tuple[int, list[str]]] = {}
        self.order: deque[int] = deque()
        self.tokens: dict[int, None] = {}
        self.alive: dict[int, None] = dict.fromkeys([1, 2, 3])

    def feed(self, event: Any) -> list[Any]:
        out = self.machine.handle(event)
        for each in out:
            if isinstance(each, Answer) and each.request in self.waiting:
                holder, lease, names = self.waiting.pop(each.request)
                assert holder in self.alive
                if each.well:
                    self.granted[lease] = (holder, names)
            elif isinstance(each, ForgetValue):
                del self.tokens[each.token]
        return out

    @rule(holder=st.integers(1, 3), names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    def acquire(self, holder: int, names: list[str]) -> None:
        if holder in self.alive:
            self.requests += 1
            lease = f"lease-{self.requests}"
            self.waiting[self.requests] = (holder, lease, names)
            arguments = {"names": names, "count": len(names), "lease": lease}
            self.feed(Asked(self.requests, holder, "lock_acquire", names[0], arguments))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.granted:
            lease = data.draw(st.sampled_from(sorted(self.granted)))
            holder, _ = self.granted.pop(lease)
            self.requests += 1
            out = self.feed(Asked(self.requests, holder, "lock_release", "", {"lease": lease}))
            assert out[0].well

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            request = data.draw(st.sampled_from(sorted(self.waiting)))
            del self.waiting[request]
            self.feed(RequestDropped(request))

    @rule(holder=st.integers(1, 3))
    def die(self, holder: int) -> None:
        if holder in self.alive:
            del self.alive[holder]
            self.waiting = {each: facts for each, facts in self.waiting.items() if facts[0] != holder}
            self.granted = {lease: facts for lease, facts in self.granted.items() if facts[0] != holder}
            self.feed(HolderLost(holder))

    @rule(holder=st.integers(1, 3))
    def come(self, holder: int) -> None:
        self.alive[holder] = None

    @rule(holder=st.integers(1, 3), most=st.integers(0, 2))
    def put(self, holder: int, most: int) -> None:
        if holder in self.alive:
            self.requests += 1
            self.tokens[self.requests] = None
            self.feed(Asked(self.requests, holder, "queue_put", "q", {"most": most, "token": self.requests}))

    @rule(holder=st.integers(1, 3), batch=st.integers(-1, 2))
    def take(self, holder: int, batch: int) -> None:
        if holder in self.alive:
            self.requests += 1
            for each in self.feed(Asked(self.requests, holder, "queue_get", "q", {"most": 0, "batch": batch})):
                if isinstance(each, Answer) and isinstance(each.value, list):
                    for token in each.value:
                        del self.tokens[token]

    @invariant()
    def nobody_shares_a_lock_and_nobody_waits_for_free_ones(self) -> None:
        held = [name for _, names in self.granted.values() for name in names]
        assert len(held) == len(set(held))
        assert set(self.machine.leases) == set(self.granted)
        first = next(iter(self.waiting.values()), None)
        if first is not None:
            assert set(first[2]) & set(held), "the first in line waits for locks that are free"


TestLocksUnderChaos = LocksUnderChaos.TestCase
TestLocksUnderChaos.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_first_come_first_served() -> None:
    machine = CoordinationMachine()
    answers = []
    for request in (1, 2, 3):
        lease = {"names": ["x"], "count": 1, "lease": str(request)}
        answers += machine.handle(Asked(request, request, "lock_acquire", "x", lease))
    assert [each.request for each in answers if isinstance(each, Answer)] == [1]
    assert machine.handle(HolderLost(1)) == [Answer(2, True)]
    assert machine.handle(RequestDropped(3)) == []
    assert machine.handle(HolderLost(2)) == []
    assert not machine.locked


def test_those_who_took_part_of_a_queues_values_leave_the_rest() -> None:
    machine = CoordinationMachine()
    for token in (1, 2, 3):
        machine.handle(Asked(token, 7, "queue_put", "q", {"most": 0, "token": token}))
    assert machine.handle(Asked(9, 7, "queue_get", "q", {"most": 0, "batch": 2})) == [Answer(9, [1, 2])]
    assert machine.handle(HolderLost(7)) == [ForgetValue(3)]
    assert not machine.lines


# --- on real processes ----------------------------------------------------------------------------


def inc(x: int) -> int:
    return x + 1


def add_under_lock(path: str, lock: Lock) -> int:
    with lock:
        value = int(Path(path).read_text())
        time.sleep(0.002)
        Path(path).write_text(str(value + 1))
    return value


def die_with_lock(name: str, path: str) -> str:
    if os.path.exists(path + "-died"):
        return "ran again"
    Lock(name).acquire()
    Path(path).touch()
    while os.path.exists(path):
        time.sleep(0.01)
    Path(path + "-died").touch()
    os._exit(1)


def count_in(semaphore: Semaphore, path: str) -> int:
    with semaphore:
        marker = Path(path) / f"{os.getpid()}-{threading.get_ident()}"
        marker.touch()
        inside = len(list(Path(path).iterdir()))
        time.sleep(0.01)
        marker.unlink()
    return inside


def produce(name: str, count: int) -> None:
    queue = Queue(name)
    for number in range(count):
        queue.put(number)


def wait_for(event: Event) -> str:
    return f"{event.wait()} on {get_worker().name}"


@pytest.mark.process
def test_a_lock_excludes(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    lock = Lock("counter")
    assert sorted(client.gather(client.map(add_under_lock, [str(path)] * 20, lock=lock))) == list(range(20))
    assert not lock.locked()
    assert lock.acquire(timeout=5)
    other = Lock("counter")
    assert other.locked()
    assert not other.acquire(blocking=False)
    assert not other.acquire(timeout=0.01)
    with pytest.raises(UsageError, match="not held"):
        other.release()
    with pytest.raises(UsageError, match="held already"):
        lock.acquire()
    lock.release()
    with pytest.raises(UsageError, match="timeout"):
        lock.acquire(blocking=False, timeout=1)
    with pytest.raises(UsageError, match="text"):
        Lock(3)  # type: ignore[arg-type]


@pytest.mark.process
def test_a_lock_is_free_when_its_holder_dies(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(1, timeout=30)
        mark = tmp_path / "held"
        future = client.submit(die_with_lock, "precious", str(mark))
        while not mark.exists():
            time.sleep(0.01)
        lock = Lock("precious", client)
        assert not lock.acquire(timeout=0.01)
        mark.unlink()
        assert lock.acquire(timeout=30)
        assert future.result(timeout=30) == "ran again"


@pytest.mark.process
def test_multilocks(client: Client) -> None:
    both, one = MultiLock(["x", "y"]), Lock("x")
    assert both.acquire(timeout=5)
    assert not one.acquire(timeout=0.01)
    both.release()
    with one:
        assert not both.acquire(timeout=0.01)
        assert both.acquire(timeout=5, num_locks=1)
        both.release()
    with pytest.raises(UsageError, match="names"):
        MultiLock([])


@pytest.mark.process
def test_semaphores(client: Client, tmp_path: Path) -> None:
    semaphore = Semaphore(1, "s")
    assert max(client.gather(client.map(lambda _: count_in(semaphore, str(tmp_path)), range(10)))) == 1
    assert semaphore.get_value() == 0
    assert semaphore.acquire(timeout=5)
    assert not semaphore.acquire(timeout=0.01)
    assert semaphore.get_value() == 1
    semaphore.release()
    with pytest.raises(UsageError, match="no lease"):
        semaphore.release()
    with pytest.raises(UsageError, match="has 1 leases, not 2"):
        Semaphore(2, "s").acquire()
    semaphore.close()
    with pytest.raises(UsageError, match="max_leases"):
        Semaphore(0)


@pytest.mark.process
def test_events(client: Client) -> None:
    event = Event("go")
    waiting = client.map(lambda _: wait_for(event), range(4))
    assert not event.is_set()
    assert not event.wait(timeout=0.01)
    event.set()
    assert all(each.startswith("True on ") for each in client.gather(waiting))
    assert event.wait(timeout=5)
    event.clear()
    assert not event.is_set()


@pytest.mark.process
def test_queues_of_values_and_of_futures(client: Client, cluster: str) -> None:
    queue = Queue("work", maxsize=3)
    producer = client.submit(produce, "numbers", 5)
    numbers = Queue("numbers")
    assert [numbers.get(timeout=20) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert producer.result(timeout=20) is None
    with pytest.raises(TimeoutError, match="numbers"):
        numbers.get(timeout=0.01)
    future = client.submit(inc, 10)
    queue.put([future, "and a word"])
    key = future.key
    del future
    with Client(cluster, timeout=20, set_as_default=False) as other:
        taken, word = Queue("work", other).get(timeout=20)
        assert isinstance(taken, Future)
        assert (taken.key, word) == (key, "and a word")
        assert taken.result(timeout=20) == 11
    for value in range(3):
        queue.put(value)
    assert queue.qsize() == 3
    with pytest.raises(TimeoutError, match="no room"):
        queue.put(3, timeout=0.01)
    assert queue.get(batch=2) == [0, 1]
    assert queue.get(batch=True) == [2]
    assert queue.get(batch=True) == []
    queue.close()


@pytest.mark.process
def test_variables(client: Client, cluster: str) -> None:
    variable = Variable("v")
    with pytest.raises(TimeoutError, match="no value"):
        variable.get(timeout=0.01)
    variable.set(client.submit(inc, 1))
    with Client(cluster, timeout=20, set_as_default=False) as other:
        assert Variable("v", other).get(timeout=20).result(timeout=20) == 2
    assert variable.get().result(timeout=20) == 2
    variable.set({"plain": [1, 2]})
    assert client.submit(lambda: Variable("v").get()).result(timeout=20) == {"plain": [1, 2]}
    variable.delete()
    with pytest.raises(TimeoutError):
        variable.get(timeout=0.01)


@pytest.mark.process
def test_in_asyncio(cluster: str) -> None:
    async def main() -> None:
        async with Client(cluster, asynchronous=True, timeout=20) as client:
            async with Lock("async", client) as lock:
                assert await lock.locked()
            queue = Queue("async", client)
            await queue.put(1)
            assert await queue.get() == 1
            event = Event("async", client)
            waiting = asyncio.ensure_future(event.wait())
            await event.set()
            assert await waiting

    asyncio.run(main())


@pytest.mark.process
def test_nothing_is_left_at_the_scheduler(client: Client, cluster: str) -> None:
    with Client(cluster, timeout=20, set_as_default=False) as other:
        Queue("left", other).put(other.submit(inc, 1))
        other.publish_dataset(kept=other.submit(inc, 2))
    # The queue went with the only client that used it, the dataset stays.
    assert client.get_dataset("kept").result(timeout=20) == 3
    client.unpublish_dataset("kept")
    while any(worker["held"] for worker in client.scheduler_info()["workers"].values()):
        time.sleep(0.01)
