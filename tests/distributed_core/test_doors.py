"""What comes through a door that should not: at each server, before and after the greeting. Others go on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest

from distributed_core import Client
from distributed_core.comm import credential
from distributed_core.comm.address import Address, parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import ConnectError, ConnectionLost, CredentialRefused
from distributed_core.protocol.framing import MAGIC
from distributed_core.servers.scheduler import Scheduler
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
BROWSER = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n\r\n"


def inc(x: int) -> int:
    return x + 1


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE_S))


def stranger(address: str, kind: str, folder: Path) -> int:
    """Knock as somebody who has nothing to do there; return the port that it came from."""
    with socket.create_connection(parse_address(address), timeout=DEADLINE_S) as peer:
        mine = int(peer.getsockname()[1])
        if kind in ("no certificate", "a foreign certificate"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if kind == "a foreign certificate":
                credential.write_new(folder / "foreign")
                context.load_cert_chain(folder / "foreign")
            with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(peer) as wrapped:
                wrapped.sendall(MAGIC)
                assert wrapped.recv(4096) == b""
        else:
            peer.sendall(BROWSER if kind == "a browser" else MAGIC + b"\0\0\0\1" + b"\0" * 8)
            with contextlib.suppress(OSError):
                while peer.recv(4096):
                    pass
    return mine


KINDS = ["no certificate", "a foreign certificate", "a browser", "clear text of this protocol"]


def test_strangers_at_every_server(launch: Launcher, tmp_path: Path) -> None:
    """Scheduler, worker and nanny: each drops each with one line, and tasks run as before."""
    scheduler, address = launch.scheduler()
    nanny = launch.worker(address, "--nthreads", "1")
    with Client(address) as client:
        ((worker, details),) = client.scheduler_info()["workers"].items()
        assert client.submit(inc, 1).result() == 2
        for place in (address, worker, details["nanny"]):
            for kind in KINDS:
                mine = stranger(place, kind, tmp_path)
                told = scheduler if place == address else nanny
                while f"dropped a peer at 127.0.0.1:{mine}: it does not hold this cluster's credential" not in (
                    said := told.errors()
                ):
                    assert client.submit(inc, mine).result(timeout=DEADLINE_S) == mine + 1
                assert len([line for line in said.splitlines() if f":{mine}:" in line]) == 1
    assert nanny.end() == 0
    assert scheduler.end() == 0
    assert len(scheduler.errors().splitlines()) == len(KINDS)
    assert len(nanny.errors().splitlines()) == 2 * len(KINDS)


def test_with_and_without_security(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TLS to a server without, and clear text to one with: each side says in one sentence what is wrong."""
    credential.write_new(tmp_path / "c.pem")
    mine = credential.load(tmp_path / "c.pem")

    async def main() -> None:
        secure = Scheduler(host="127.0.0.1", credential=mine.path)
        insecure = Scheduler(insecure=True)
        for server in (secure, insecure):
            server.start(0)
        with pytest.raises((CredentialRefused, ConnectError)) as caught:
            await open_channel(Address("127.0.0.1", insecure.port), mine, "client", {"id": "x"})
        assert "\n" not in str(caught.value)
        with pytest.raises(ConnectError, match="it probably wants a credential: pass --credential FILE"):
            await open_channel(Address("127.0.0.1", secure.port), None, "client", {"id": "x"})
        for server, held in ((secure, mine), (insecure, None)):
            channel, _ = await open_channel(Address("127.0.0.1", server.port), held, "rpc")
            channel.read_replies()
            assert await channel.call("ping", {}, 20) == "pong"
            channel.abort()
            await server.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    lines = sorted(re.sub(r".* dropped a peer at \S+ ", "", each.getMessage()) for each in caplog.records)
    assert len(lines) == 2, lines
    assert lines[0].startswith("it does not hold this cluster's credential (")
    assert lines[1] == "the peer does not speak this protocol"


# --- after the greeting ---------------------------------------------------------------------------


def packet(body: bytes, *frames: bytes) -> bytes:
    sizes = struct.pack(f">{1 + len(frames)}Q", len(body), *map(len, frames))
    return MAGIC + struct.pack(">I", 1 + len(frames)) + sizes + body + b"".join(frames)


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


BOMBS = {
    "another magic": b"DC1\x01" + bytes(12),
    "HTTP": BROWSER,
    "no frames": MAGIC + bytes(4),
    "too many frames": MAGIC + struct.pack(">I", 2**32 - 1),
    "too large a body": MAGIC + struct.pack(">IQ", 1, 2**62),
    "too large a frame": MAGIC + struct.pack(">IQQ", 2, 10, 2**63),
    "too large a packet": MAGIC + struct.pack(">IQQQ", 3, 10, 2**40, 2**40),
    "an empty body": packet(b""),
    "nested": packet(nested(1030)),
    "nested a hundred thousand times": packet(nested(100_000)),
    "a list of four thousand million": packet(b"\xdd\xff\xff\xff\xff"),
    "a list of lists of that": packet(b"\xdd\xff\xff\xff\xff" * 200),
    "a map of as many": packet(b"\xdf\xff\xff\xff\xff"),
    "a text of as many": packet(b"\x91\xdb\xff\xff\xff\xff"),
    "no list": packet(msgpack.packb({"a": 1})),
    "a word that there is not": packet(msgpack.packb([[99, 1]])),
    "a word of another side": packet(msgpack.packb([[1, 2, 3]])),
    "a frame that nobody names": packet(msgpack.packb([]), b"more"),
    "one frame named twice": packet(msgpack.packb([[msgpack.ExtType(1, b"\0\0\0\1")] * 2]), b"x"),
}


async def among_others(server: Scheduler, action: Callable[[Channel], Awaitable[None]]) -> None:
    """Let a peer that has greeted do something; somebody else is served all the time."""
    address = Address("127.0.0.1", server.port)
    honest, _ = await open_channel(address, None, "rpc")
    honest.read_replies()
    hostile, _ = await open_channel(address, None, "client", {"id": "hostile"})
    acting = asyncio.ensure_future(action(hostile))
    while not acting.done():
        assert await honest.call("ping", {}, 20) == "pong"
    await acting
    honest.abort()
    hostile.abort()


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_from_one_that_has_greeted(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is dropped with one line; the scheduler takes next to no memory for what was announced."""

    async def throw(hostile: Channel) -> None:
        hostile.stream._io.write(BOMBS[kind])  # type: ignore[attr-defined]
        with pytest.raises(ConnectionLost):
            while True:
                await hostile.read()

    async def main() -> None:
        scheduler = Scheduler(insecure=True)
        scheduler.start(0)
        before = psutil.Process().memory_info().rss
        await among_others(scheduler, throw)
        assert psutil.Process().memory_info().rss - before < 20 << 20
        assert [each for each in scheduler.machine.ledger.clients if each > 0] == []
        await scheduler.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    (line,) = [each.getMessage() for each in caplog.records]
    assert re.search(r"dropped a peer at 127\.0\.0\.1:\d+: (the peer|it) ", line), line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("announced", "sent"),
    [
        (MAGIC + struct.pack(">I", 1 << 20), b"\0" * 1000),
        (MAGIC + struct.pack(">IQ", 1, 2 << 30), b"\x91" * 100_000),
        (MAGIC + struct.pack(">IQQ", 2, 1, 1 << 37), b"\x90" + b"x" * 100_000),
    ],
    ids=["the header", "the words", "a frame"],
)
def test_one_that_stops_in_the_middle_of_a_packet(launch: Launcher, announced: bytes, sent: bytes) -> None:
    """Many announce gigabytes each and send 100 kB: what came is kept, and no more, until they go."""
    scheduler, address = launch.scheduler("--insecure")
    process = psutil.Process(scheduler.process.pid)
    host, port = parse_address(address)
    count = 50

    async def main() -> None:
        channels = []
        for number in range(count):
            channel, _ = await open_channel(Address(host, port), None, "client", {"id": f"c{number}"})
            channels.append(channel)
        before = process.memory_info().rss
        for channel in channels:
            channel.stream._io.write(announced + sent)  # type: ignore[attr-defined]
        honest, _ = await open_channel(Address(host, port), None, "rpc")
        honest.read_replies()
        for _ in range(100):
            assert await honest.call("ping", {}, 20) == "pong"
        taken = process.memory_info().rss - before
        assert taken < 2 * count * len(sent) + (16 << 20)
        identity = await honest.call("identity", {}, 20)
        assert identity["pid"] == scheduler.process.pid
        for channel in channels:
            channel.abort()
        honest.abort()

    run(main())
    assert scheduler.end() == 0
    assert "Traceback" not in scheduler.errors()
