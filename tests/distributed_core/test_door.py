"""Strangers at the door of a real dscheduler: dropped at a deadline, said once, and nobody else is held up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import select
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from distributed_core import Client
from distributed_core.comm import credential, tcp
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import open_channel
from distributed_core.errors import ConnectionLost
from distributed_core.protocol.framing import MAGIC
from distributed_core.servers import door
from distributed_core.servers.scheduler import Scheduler
from tests.distributed_core.fuzzing import FACTOR
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

DEADLINE_S = 60.0


def inc(x: int) -> int:
    return x + 1


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE_S))


class Dripping:
    """A peer that sends a byte at a time, for ever, and notes when it is dropped."""

    def __init__(self, port: int, content: bytes, wrap: ssl.SSLContext | None = None) -> None:
        self.content, self.port, self.wrap = content, port, wrap

    async def drip(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.wrap, server_hostname=None)
        ended = asyncio.ensure_future(reader.read())
        place = 0
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(self.content[place : place + 1] or b"\0")
                await writer.drain()
            place += 1
            await asyncio.wait([ended], timeout=0.02)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await ended
        writer.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> credential.Credential:
    """Deadlines of half a second, and a credential."""
    monkeypatch.setattr(tcp, "HANDSHAKE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(door, "GREETING_TIMEOUT_S", 0.5)
    credential.write_new(tmp_path / "c.pem")
    return credential.load(tmp_path / "c.pem")


@pytest.mark.parametrize("where", ["before the handshake", "after the handshake", "a greeting that never ends"])
def test_a_byte_at_a_time(short: credential.Credential, caplog: pytest.LogCaptureFixture, where: str) -> None:
    async def main() -> None:
        scheduler = Scheduler(host="127.0.0.1", credential=short.path)
        scheduler.start(0)
        hello = b"\x16\x03\x01\x40\x00" if where.startswith("before") else MAGIC + b"\0\0\0\1" + b"\0\0\0\0\0\x0f\0\0"
        if where.startswith("a greeting"):
            hello += b"\xdd\x00\x01\x00\x00" + b"\xc0" * 10_000
        peer = Dripping(scheduler.port, hello, None if where.startswith("before") else short.client_context())
        dripping = asyncio.ensure_future(peer.drip())
        # Others go on meanwhile.
        while not dripping.done():
            channel, _ = await open_channel(parse_address(scheduler.address), short, "rpc")
            channel.read_replies()
            assert await channel.call("ping", {}, 10) == "pong"
            channel.abort()
            await asyncio.wait([dripping], timeout=0.05)
        await dripping
        assert scheduler._strangers == {}
        await scheduler.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    (line,) = warnings(caplog)
    assert re.search(
        r"dropped a peer at 127\.0\.0\.1:\d+: it did not (finish the TLS handshake|greet) (in|within) 0\.5 s", line
    )


def test_complaints_are_counted_not_repeated(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "INTERVAL_S", 1.0)

    async def main() -> None:
        scheduler = Scheduler(insecure=True)
        scheduler.start(0)
        for _ in range(door.LINES_MAX + 25):
            reader, writer = await asyncio.open_connection("127.0.0.1", scheduler.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        while not any("more lines" in text for text in warnings(caplog)):
            await asyncio.sleep(0.01)
        await scheduler.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    lines = warnings(caplog)
    assert len(lines) == door.LINES_MAX + 1
    assert lines[-1].startswith("25 more lines like this one within 1 s: ")
    assert "does not speak this protocol" in lines[-1]


def test_there_is_room_for_some_strangers(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STRANGERS_MAX", 5)

    async def main() -> None:
        scheduler = Scheduler(insecure=True)
        scheduler.start(0)
        peers = [await asyncio.open_connection("127.0.0.1", scheduler.port) for _ in range(8)]
        for reader, _ in peers[:3]:
            assert await reader.read() == b""
        assert len(scheduler._strangers) == 5
        channel, _ = await open_channel(parse_address(scheduler.address), None, "rpc")
        channel.abort()
        for _, writer in peers:
            writer.close()
        await scheduler.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "others need its place" in warnings(caplog)[0]


@pytest.mark.parametrize("kind", ["none", "foreign", "plain HTTP", "garbage"])
def test_one_line_names_the_stranger(launch: Launcher, tmp_path: Path, kind: str) -> None:
    scheduler, address = launch.scheduler()
    host, port = parse_address(address)
    with socket.create_connection((host, port), timeout=DEADLINE_S) as peer:
        mine = peer.getsockname()[1]
        if kind in ("none", "foreign"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if kind == "foreign":
                credential.write_new(tmp_path / "foreign")
                context.load_cert_chain(tmp_path / "foreign")
            with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(peer) as wrapped:
                wrapped.sendall(MAGIC)
                wrapped.recv(4096)
        else:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if kind == "plain HTTP" else bytes(range(256)) * 10)
            with contextlib.suppress(OSError):
                while peer.recv(4096):
                    pass
    with Client(address) as client:
        assert client.scheduler_info()["address"] == address
    assert scheduler.end() == 0
    lines = scheduler.errors().splitlines()
    assert len(lines) == 1, lines
    assert f"dropped a peer at 127.0.0.1:{mine}: it does not hold this cluster's credential (" in lines[0]


CROWD = """
import resource, socket, ssl, sys, select
host, port, count, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
context = None
if path:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_cert_chain(path)
    context.load_verify_locations(path)
kept = []
for number in range(count):
    try:
        made = socket.create_connection((host, port), timeout=60)
        kept.append(context.wrap_socket(made) if context else made)
    except OSError:
        pass
print(len(kept), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["silent", "greets with TLS only"])
def test_ten_thousand_that_say_nothing(launch: Launcher, tmp_path: Path, how: str) -> None:
    """10,000 connections before the handshake; or 2,000 with the right credential and no greeting (10,000 where
    `FUZZ_EXAMPLES` is 5: each costs both sides a handshake). What the scheduler takes stays bounded."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 12_000
    begin = time.monotonic()
    count, secret = (10_000, "") if how == "silent" else (int(2_000 * min(FACTOR, 5)), str(tmp_path / "c.pem"))
    credential.write_new(tmp_path / "c.pem")
    chosen = ("--credential", str(tmp_path / "c.pem"))
    scheduler, address = launch.scheduler(*chosen)
    launch.worker(address, "--nthreads", "1", "--no-nanny", *chosen)
    process = psutil.Process(scheduler.process.pid)
    host, port = parse_address(address)
    with Client(address, credential=tmp_path / "c.pem") as client:
        assert client.submit(inc, 1).result() == 2
        before = process.memory_info().rss
        most = number = 0
        argv = [sys.executable, "-c", CROWD, host, str(port), str(count), secret]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout is not None
            while not select.select([crowd.stdout], [], [], 0)[0]:
                number += 1
                assert client.submit(inc, number, key=f"k{number}").result(timeout=DEADLINE_S) == number + 1
                most = max(most, process.memory_info().rss - before)
                assert process.num_fds() < door.STRANGERS_MAX + 100
            made = int(crowd.stdout.readline())
            with Client(address, credential=tmp_path / "c.pem", timeout=DEADLINE_S) as another:
                assert another.submit(inc, 7).result(timeout=DEADLINE_S) == 8
            crowd.kill()
        print(f"{how}: {made} connections, {number} tasks meanwhile, at most {most >> 20} MiB more")
        assert made >= 0.9 * count
        assert most < 200 << 20
    assert scheduler.end() == 0
    intervals = (time.monotonic() - begin) / door.INTERVAL_S
    assert len(scheduler.errors().splitlines()) <= (door.LINES_MAX + 1) * (intervals + 2)
    assert "Traceback" not in scheduler.errors()


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from distributed_core.cli.dscheduler import main
sys.argv = ["dscheduler", "--host", "127.0.0.1", "--port", "0", "--insecure"]
main()
"""


def test_no_descriptor_left(tmp_path: Path) -> None:
    """It is said once, the process does not spin, strangers make room, and service goes on."""
    log = tmp_path / "log"
    with open(log, "wb") as file:
        scheduler = subprocess.Popen([sys.executable, "-c", FEW_FILES], stdout=subprocess.PIPE, stderr=file, text=True)
    held = []
    try:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().split()[-1]
        host, port = parse_address(address)
        with Client(address, insecure=True) as client:
            for _ in range(150):
                held.append(socket.create_connection((host, port), timeout=DEADLINE_S))
            deadline = time.monotonic() + DEADLINE_S
            while "no connection can be accepted" not in log.read_text():
                assert time.monotonic() < deadline
                assert client.scheduler_info()["address"] == address
            spent = psutil.Process(scheduler.pid).cpu_times()
            time.sleep(1.0)  # how much it does in a second
            now = psutil.Process(scheduler.pid).cpu_times()
            assert now.user + now.system - spent.user - spent.system < 0.7
            with Client(address, insecure=True, timeout=DEADLINE_S) as another:
                assert another.scheduler_info()["address"] == address
    finally:
        for each in held:
            each.close()
        scheduler.terminate()
        assert scheduler.wait(20) == 0
        assert scheduler.stdout is not None
        scheduler.stdout.close()
    text = log.read_text()
    assert text.count("no connection can be accepted for now") <= door.LINES_MAX
    assert "ulimit -n" in text
    assert "Traceback" not in text


def test_a_channel_that_ended_says_so(short: credential.Credential) -> None:
    async def main() -> None:
        scheduler = Scheduler(host="127.0.0.1", credential=short.path)
        scheduler.start(0)
        stream = await tcp.connect(parse_address(scheduler.address), short, 20)
        with pytest.raises(ConnectionLost):
            await stream.receive()  # never greeted
        await scheduler.close()

    run(main())
