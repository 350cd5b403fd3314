"""Data that a peer does not give: one that accepts and never answers, one that stops in the middle, and a slow one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from distributed_core import LocalCluster, messages
from distributed_core.client import bulk
from distributed_core.comm.address import Address, parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import RemoteError
from distributed_core.machines.worker import WorkerMachine, events, instructions, invariants
from distributed_core.servers.shell import Server
from distributed_core.servers.transfers import Transfers
from distributed_core.settings import WorkerSettings

pytestmark = pytest.mark.process

DEADLINE_S = 30.0
SILENCE_S = 0.8
LARGE = 7


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE_S))


class Giver(Server):
    """A server that gives data, after `busy_s` seconds in which its loop is free, or spent in one go."""

    kind = "Giver"
    busy_s = 0.0
    nbytes = 1

    def __init__(self) -> None:
        super().__init__(insecure=True)
        #: What a large task's data waits for; and whether it was asked for.
        self.before_large: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.handlers |= {"get_data": self._handle_get_data, "fail": self._handle_fail}

    async def _handle_get_data(self, tasks: list[int]) -> list[Any]:
        await asyncio.sleep(self.busy_s)
        if LARGE in tasks and self.before_large is not None:
            self.asked.set()
            await self.before_large.wait()
        return [[task, [bytes(self.nbytes)], None] for task in tasks]

    async def _handle_fail(self) -> None:
        raise ValueError("no")


class Between:
    """Passes bytes on between who connects and a server, until it is told to stop, or at a rate."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        #: Bytes that still pass towards who connected; below 0 it is no limit.
        self.left = -1
        self.piece_bytes = 1 << 16
        self.pause_s = 0.0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, back, False), self._pass(there, writer, True))
        back.close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool) -> None:
        while data := await reader.read(self.piece_bytes):
            if counted and self.left >= 0:
                data = data[: self.left]
                self.left -= len(data)
            writer.write(data)
            await writer.drain()
            if counted and self.pause_s:
                await asyncio.sleep(self.pause_s)


@contextlib.asynccontextmanager
async def given(giver: Giver) -> AsyncIterator[tuple[Between, Channel]]:
    giver.start(0)
    between = Between(giver.port)
    server = await between.start()
    channel, _ = await open_channel(Address("127.0.0.1", between.port), None, "rpc")
    channel.read_replies()
    try:
        yield between, channel
    finally:
        channel.abort()
        server.close()
        await giver.close()


async def ask(channel: Channel) -> Any:
    return await channel.call("get_data", {"tasks": [1]}, silence_max_s=SILENCE_S)


def test_a_peer_that_is_silent_or_stops_in_the_middle_is_given_up() -> None:
    async def main() -> None:
        for left, nbytes in ((0, 1), (30 << 20, 60 << 20)):
            giver = Giver()
            giver.nbytes = nbytes
            async with given(giver) as (between, channel):
                between.left = left
                begun_s = time.monotonic()
                with pytest.raises(TimeoutError, match="gave no sign of life"):
                    await ask(channel)
                assert SILENCE_S <= time.monotonic() - begun_s < SILENCE_S + 4.0
                assert channel.stream.closed
                assert between.left == 0

    run(main())


def test_a_peer_that_takes_its_time_or_is_slow_is_waited_for() -> None:
    async def main() -> None:
        giver = Giver()
        giver.busy_s = 3 * SILENCE_S
        async with given(giver) as (_, channel):
            assert await ask(channel) == [[1, [bytes(1)], None]]
        giver = Giver()
        giver.nbytes = 4 << 20
        async with given(giver) as (between, channel):
            between.pause_s, between.piece_bytes = 0.05, 1 << 16
            begun_s = time.monotonic()
            assert len((await ask(channel))[0][1][0]) == 4 << 20
            assert time.monotonic() - begun_s > 2 * SILENCE_S
            # All is over: nobody looks any more, and errors are those of ever.
            with pytest.raises(RemoteError, match="no"):
                await channel.call("fail", silence_max_s=SILENCE_S)
            assert not channel._impatient

    run(main())


class Asking:
    """As much of a worker as its transfers need."""

    def __init__(self) -> None:
        self.settings = WorkerSettings(transfer_silence_max_s=SILENCE_S)
        self.credential = None
        self.registration = 1
        self.id = "worker"
        self.fed: list[Any] = []
        self.memory = self

    def feed(self, event: Any) -> None:
        self.fed.append(event)

    def noted(self) -> None:
        pass

    place = None


def test_a_worker_hears_that_a_peer_is_unreachable_when_it_accepts_and_never_greets() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            worker = Asking()
            transfers = Transfers(worker)  # type: ignore[arg-type]
            begun_s = time.monotonic()
            await transfers.fetch(instructions.Fetch(address, [1, 2], small=True), 1)
            assert time.monotonic() - begun_s < SILENCE_S + 3.0
            assert worker.fed == [events.PeerUnreachable(address, [1, 2], small=True)]

    run(main())


def text(x: int) -> str:
    return "x" * x


def test_a_client_asks_the_scheduler_for_what_a_silent_worker_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TRANSFER_SILENCE_MAX_S", SILENCE_S)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False) as cluster, cluster.client() as client:
        future = client.submit(text, 100_000)
        client.wait(future)
        (address,) = client.scheduler_info()["workers"]

        async def part() -> Between:
            between = Between(parse_address(address).port)
            server = await between.start()
            channel, _ = await open_channel(Address("127.0.0.1", between.port), client._session.credential, "rpc")
            channel.read_replies()
            client._session.bulk._workers[address, False] = channel
            between.left = 0
            assert server.sockets
            return between

        client.sync(part())
        begun_s = time.monotonic()
        assert future.result(20) == "x" * 100_000
        assert SILENCE_S <= time.monotonic() - begun_s < 10.0
        assert list(client._session.bulk._unreachable) == [address]


def test_small_data_does_not_wait_behind_large_data_of_the_same_peer() -> None:
    """On the machine: one request of each kind is under way to a peer, and what is queued behind one goes after it."""
    machine = WorkerMachine()
    machine.handle(events.Instructed([messages.FunctionBody(1, "f", b"body")]), 0.0)

    def assign(run: int, *sizes: int) -> list[Any]:
        inputs = [[run * 10 + place, nbytes, ["a:1"]] for place, nbytes in enumerate(sizes)]
        out = machine.handle(events.Instructed([messages.Assignment(run, run, 1, b"", inputs, 0.0)]), 0.0)
        invariants.check(machine)
        return [each for each in out if type(each) is instructions.Fetch]

    assert assign(1, 300 << 20) == [instructions.Fetch("a:1", [10])]
    assert assign(2, 100, 200) == [instructions.Fetch("a:1", [20, 21], small=True)]
    assert assign(3, 50, 60 << 20) == []
    out = machine.handle(events.DataFetched("a:1", [(20, 100), (21, 200)], [], small=True), 0.0)
    assert [each.run for each in out if type(each) is instructions.Execute] == [2]
    assert instructions.Fetch("a:1", [30], small=True) in out
    out = machine.handle(events.PeerUnreachable("a:1", [10]), 0.0)
    assert instructions.Fetch("a:1", [31]) in out
    invariants.check(machine)


def test_small_data_overtakes_large_data_over_sockets() -> None:
    async def main() -> None:
        giver = Giver()
        giver.start(0)
        address = f"127.0.0.1:{giver.port}"
        worker = Asking()
        transfers = Transfers(worker)  # type: ignore[arg-type]
        release = asyncio.Event()
        giver.before_large = release
        large = asyncio.ensure_future(transfers._ask_peer((address, False), [LARGE]))
        # The large one is in preparation; the small one comes at once.
        await giver.asked.wait()
        assert await transfers._ask_peer((address, True), [1]) == [[1, [bytes(1)], None]]
        assert not large.done()
        release.set()
        assert (await large)[0][0] == LARGE
        transfers.close()
        await giver.close()

    run(main())
