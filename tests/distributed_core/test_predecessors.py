"""A worker whose name or address another one has: one that lives, or one whose machine is gone without a word."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from distributed_core.comm.address import Address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import Refused
from distributed_core.servers.scheduler import Scheduler
from distributed_core.servers.worker import Worker
from distributed_core.settings import SchedulerSettings

pytestmark = pytest.mark.process

DEADLINE_S = 30.0


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE_S))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def silent(scheduler: Scheduler, name: str, address: str) -> Channel:
    """Register as a worker that never says anything more, and whose end never reaches the scheduler."""
    details = {"address": address, "name": name, "nthreads": 1, "id": "of a process that is gone"}
    channel, _ = await open_channel(Address("127.0.0.1", scheduler.port), None, "worker", details)
    return channel


async def registered(worker: Worker) -> None:
    come = asyncio.get_running_loop().create_future()
    worker.on_registered = lambda _: come.set_result(None)
    over = asyncio.ensure_future(worker.finished())
    await asyncio.wait([come, over], return_when=asyncio.FIRST_COMPLETED)
    assert come.done(), worker.failure


@pytest.mark.parametrize("same", ["name", "address"])
def test_a_worker_takes_the_place_of_one_that_is_silent(same: str) -> None:
    async def main() -> None:
        scheduler = Scheduler(insecure=True, settings=SchedulerSettings(predecessor_silence_max_s=4.0))
        scheduler.start(0)
        port = free_port()
        here = f"127.0.0.1:{port}"
        before = await silent(scheduler, *(("alice", "127.0.0.1:9") if same == "name" else ("bob", here)))
        worker = Worker("127.0.0.1", scheduler.port, insecure=True, name="alice", nthreads=1)
        begun_s = time.monotonic()
        worker.start(port)
        await registered(worker)
        assert 4.0 < time.monotonic() - begun_s < 12.0
        assert [(each.name, each.address) for each in scheduler.machine.ledger.workers.values()] == [("alice", here)]
        before.abort()
        await worker.close()
        await scheduler.close()

    run(main())


def test_a_worker_that_lives_keeps_its_place_and_the_other_hears_so_soon() -> None:
    async def main() -> None:
        scheduler = Scheduler(insecure=True, settings=SchedulerSettings(predecessor_silence_max_s=1.0))
        scheduler.start(0)
        first = Worker("127.0.0.1", scheduler.port, insecure=True, name="alice", nthreads=1)
        first.start(0)
        await registered(first)
        second = Worker("127.0.0.1", scheduler.port, insecure=True, name="alice", nthreads=1)
        begun_s = time.monotonic()
        second.start(0)
        assert await second.finished() == 1
        assert time.monotonic() - begun_s < 6.0
        assert isinstance(second.failure, Refused)
        assert "a worker named alice is registered already" in str(second.failure)
        assert [each.address for each in scheduler.machine.ledger.workers.values()] == [first.address]
        await first.close()
        await scheduler.close()

    run(main())
