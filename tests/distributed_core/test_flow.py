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
from distributed_core.machines.scheduler import instructions
from distributed_core.messages import Failed, Finished
from distributed_core.servers.scheduler import Scheduler
from distributed_core.settings import SchedulerSettings
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

WINDOW = 300


class Counting(Scheduler):
    """Remembers the most tasks that it ever had which were not done."""

    peak = 0

    def feed(self, event: Any) -> None:
        super().feed(event)
        clients = self.machine.ledger.clients.values()
        self.peak = max([self.peak, *(len(each.tasks) for each in clients)])


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
        # What is finished, but not released yet, is there beside the window.
        assert client._session.window.waiting == 0
    assert narrow.peak > 0


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


def test_who_waits_for_room_is_told_when_the_scheduler_goes(narrow: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES_MAX", -1)
    with Client(narrow.address, timeout=20) as client:
        session = client._session
        waiting = threading.Thread(target=session.wait_for_room, daemon=True)
        waiting.start()
        client.sync(_close(session))
        waiting.join(30)
        assert not waiting.is_alive()


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
