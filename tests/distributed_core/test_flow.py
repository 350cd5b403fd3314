"""Queues between peers are bounded: a flood of submits, and peers that do not read."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from distributed_core import Client, Variable
from distributed_core.client import backlog
from distributed_core.client.blocking import LoopThread
from distributed_core.client.cells import Cells
from distributed_core.machines.client import ClientMachine
from distributed_core.machines.scheduler import instructions
from distributed_core.machines.scheduler.tasks import Erred, Held
from distributed_core.messages import Failed, Finished, Reply, Request
from distributed_core.servers.scheduler import Scheduler
from distributed_core.settings import SchedulerSettings
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

WINDOW = 300


class Counting(Scheduler):
    """Remembers the most tasks of a client that it ever had which were not done, where it is to count."""

    counts = False
    peak = 0

    def feed(self, event: Any) -> None:
        super().feed(event)
        if self.counts:
            for client in self.machine.ledger.clients.values():
                tasks = client.tasks.values()
                self.peak = max(self.peak, sum(type(each.state) not in (Held, Erred) for each in tasks))


@pytest.fixture
def narrow(launch: Launcher) -> Iterator[Counting]:
    """A scheduler in this process that lets a client have few tasks, and a worker process."""
    thread = LoopThread("scheduler")
    settings = SchedulerSettings(client_tasks_max=WINDOW)

    async def make() -> Counting:
        made = Counting(host="127.0.0.1", settings=settings)
        made.start(0)
        return made

    scheduler = thread.run(make())
    launch.worker(scheduler.address, "--nthreads", "1", "--no-nanny")
    yield scheduler
    thread.run(scheduler.close())
    thread.stop()


def double(value: int) -> int:
    return 2 * value


def test_a_flood_loses_nothing_and_the_scheduler_never_has_more_than_the_window(narrow: Counting) -> None:
    count = 20_000
    narrow.counts = True
    with Client(narrow.address, timeout=20) as client:
        held: deque[Any] = deque()
        total = 0
        for number in range(count):
            held.append(client.submit(double, number))
            while held and held[0].done():
                total += held.popleft().result()
        while held:
            total += held.popleft().result(timeout=60)
        assert total == count * (count - 1)
        assert client._session.window.peak <= WINDOW
        assert client._session.window.waiting == 0
    assert 0 < narrow.peak <= WINDOW


def test_inputs_that_nobody_holds_reach_their_users_through_a_full_window(narrow: Counting) -> None:
    with Client(narrow.address, timeout=20) as client:
        last = client.submit(double, 1)
        for _ in range(3 * WINDOW):
            last = client.submit(max, last, 0)
        assert last.result(timeout=60) == 2
        assert client._session.window.peak <= WINDOW


def test_a_future_that_waits_can_be_handed_on(narrow: Counting) -> None:
    with Client(narrow.address, timeout=20) as client:
        futures = client.map(double, range(5 * WINDOW))
        handed = Variable("handed", client=client)
        handed.set(futures[-1])
        assert handed.get().result(timeout=60) == 2 * (5 * WINDOW - 1)


def test_submit_waits_where_too_much_waits_already(narrow: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES_MAX", 1_000_000)
    with Client(narrow.address, timeout=20) as client:
        session = client._session
        most = 0
        futures = []
        for number in range(5_000):
            futures.append(client.submit(double, number))
            most = max(most, session.backlog_bytes)
        assert most < 1_000_000 + 2_000
        assert sum(client.gather(futures)) == 5_000 * 4_999


def test_who_waits_for_room_goes_on_when_a_small_part_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It releases nothing while it waits: all that ends meanwhile is held, here and at the scheduler."""
    monkeypatch.setattr(backlog, "BACKLOG_BYTES_MAX", 8_000)
    made = backlog.Backlog(Cells(), ClientMachine({}))
    made.closed, made._wake = False, lambda: None
    woken: list[int] = []
    made._machine.posted_bytes = 8_001
    assert made._wants_room(lambda: woken.append(1))
    for gone, expected in ((1_000, []), (1_001, [1])):
        made.window.gone_bytes = gone
        made._tell_of_room()
        assert woken == expected
    assert not made._wants_room(lambda: None)


def test_who_waits_for_room_is_told_when_the_scheduler_goes(narrow: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES_MAX", -1)
    with Client(narrow.address, timeout=20) as client:
        session = client._session
        waiting = threading.Thread(target=session.wait_for_room, daemon=True)
        waiting.start()
        client.sync(_close(session))
        waiting.join(30)
        assert not waiting.is_alive()


def test_an_asynchronous_client_is_not_held_up_and_can_wait(narrow: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES_MAX", 100_000)

    async def flood() -> None:
        async with Client(narrow.address, asynchronous=True, timeout=20) as client:
            futures = [client.submit(double, number) for number in range(2_000)]
            assert client._session.backlog_bytes > 100_000
            await client.wait_for_room()
            assert client._session.backlog_bytes <= 100_000
            assert sum(await client.gather(futures)) == 2_000 * 1_999

    asyncio.run(flood())


async def _close(session: Any) -> None:
    await session.close()


class Slow:
    """Stands for the connection of a peer that left some bytes unread."""

    def __init__(self, pending_bytes: int) -> None:
        self.stream = self
        self.peer = ("127.0.0.1", 1)
        self.pending_bytes = pending_bytes
        self.closed = False
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def abort(self) -> None:
        self.closed = True


class Reader(Slow):
    """Takes a reply only when it is told to."""

    def __init__(self) -> None:
        super().__init__(0)
        self.bulk = asyncio.Lock()
        self.taken = asyncio.Event()

    def send(self, message: Any) -> None:
        super().send(message)
        self.taken.clear()

    async def drain(self) -> None:
        await self.taken.wait()


def test_data_for_a_slow_reader_is_prepared_when_it_took_the_last() -> None:
    async def check() -> None:
        scheduler = Scheduler(host="127.0.0.1", insecure=True)
        prepared: list[int] = []

        async def give(number: int) -> int:
            prepared.append(number)
            return number

        scheduler.handlers["get_data"] = give
        reader: Any = Reader()
        reader.taken.set()
        replies = [
            asyncio.ensure_future(scheduler._reply(reader, Request(number, "get_data", {"number": number}), {}))
            for number in (1, 2, 3)
        ]
        for count in (1, 2, 3):
            for _ in range(20):
                await asyncio.sleep(0)
            assert prepared == [1, 2, 3][:count]
            reader.taken.set()
            await replies[count - 1]
        assert reader.sent == [Reply(number, True, number) for number in (1, 2, 3)]

    asyncio.run(check())


def test_a_connection_that_ended_has_nothing_pending(narrow: Counting) -> None:
    with Client(narrow.address, timeout=20) as client:
        stream = client._session._channel.stream
        client.sync(_close(client._session))
        assert (stream.closed, stream.pending_bytes) == (True, 0)


@pytest.mark.parametrize(
    ("pending_bytes", "payload", "dropped"), [(10, b"x", False), (200, None, False), (2000, 0, True)]
)
def test_a_peer_that_does_not_read_gets_less_and_is_dropped_in_the_end(
    pending_bytes: int, payload: Any, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        settings = SchedulerSettings(peer_soft_bytes_max=100, peer_hard_bytes_max=1000)
        scheduler = Scheduler(host="127.0.0.1", insecure=True, settings=settings)
        slow: Any = Slow(pending_bytes)
        scheduler._peers[1] = slow
        failed = Failed(2, "exception", "", b"e")
        asked = [instructions.Send(1, [Finished(1, 1, b"x"), failed])]
        monkeypatch.setattr(scheduler.machine, "handle", lambda event, now: asked)
        event: Any = None
        scheduler.feed(event)
        assert slow.closed is dropped
        assert slow.sent == ([] if dropped else [Finished(1, 1, payload), failed])

    asyncio.run(check())
