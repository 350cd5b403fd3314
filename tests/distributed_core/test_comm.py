"""Streams and channels over real sockets: order, size, fairness, and every way a peer can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from distributed_core import messages
from distributed_core.comm import credential, tcp
from distributed_core.comm.address import Address
from distributed_core.comm.channel import Channel, greet, open_channel
from distributed_core.comm.credential import Credential
from distributed_core.comm.tcp import TCPStream, accept, bind, connect
from distributed_core.errors import (
    ConnectError,
    ConnectionLost,
    CredentialRefused,
    EngineError,
    NotSerializable,
    PortInUse,
    ProtocolError,
    RemoteError,
)
from distributed_core.protocol.codec import Buffer, encode
from distributed_core.protocol.framing import GREETING_LIMITS, MAGIC, encode_packet

DEADLINE_S = 60.0
Serve = Callable[[TCPStream], Awaitable[None]]


@pytest.fixture(scope="module", params=["TLS", "plain"])
def secret(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Credential | None:
    if request.param == "plain":
        return None
    path = tmp_path_factory.mktemp("credential") / "c.pem"
    credential.write_new(path)
    return credential.load(path)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE_S))


@contextlib.asynccontextmanager
async def serving(secret: Credential | None, serve: Serve) -> AsyncIterator[tuple[Address, asyncio.Queue[Any]]]:
    """A server on loopback that gives each stream to `serve`; its address, and how each stream ended."""
    ends: asyncio.Queue[Any] = asyncio.Queue()

    class Listening(TCPServer):
        async def handle_stream(self, iostream: IOStream, address: Any) -> None:
            stream = None
            try:
                stream = await accept(iostream)
                await serve(stream)
                ends.put_nowait(None)
            except EngineError as error:
                ends.put_nowait(error)
            finally:
                if stream is not None:
                    stream.abort()

    server = Listening(ssl_options=secret.server_context() if secret else None, max_buffer_size=1 << 40)
    sockets = bind("127.0.0.1", 0)
    server.add_sockets(sockets)
    try:
        yield Address("127.0.0.1", sockets[0].getsockname()[1]), ends
    finally:
        server.stop()


async def echo(stream: TCPStream) -> None:
    stream.widen()
    with contextlib.suppress(ConnectionLost):
        while True:
            for message in await stream.receive():
                stream.send(message)
            await stream.drain()


async def receive(stream: TCPStream, count: int) -> list[Any]:
    got: list[Any] = []
    while len(got) < count:
        got += await stream.receive()
    return got


def test_messages_keep_their_order_and_leave_together(secret: Credential | None) -> None:
    async def main() -> None:
        async with serving(secret, echo) as (address, _):
            stream = await connect(address, secret, 20)
            for number in range(3):
                stream.send(number)
            assert await stream.receive() == [0, 1, 2]  # one turn of the loop, one packet, one turn back
            sent: list[Any] = []
            for number in range(500):
                sent.append([number, "x" * number, Buffer(bytes(number * 500))])
                stream.send(sent[-1])
                if number % 7 == 0:
                    await asyncio.sleep(0)
            assert await receive(stream, 500) == sent
            await stream.close()
            with pytest.raises(ConnectionLost):
                await stream.receive()

    run(main())


def test_a_large_frame_leaves_the_loop_its_turns(secret: Credential | None) -> None:
    content = bytes(range(256)) * (40 << 12)  # 40 MB

    async def main() -> None:
        turns, loop = 0, asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        async with serving(secret, echo) as (address, _):
            stream = await connect(address, secret, 20)
            stream.send(["large", Buffer(content)])
            stream.send("small")
            turn()
            back = await receive(stream, 2)
            assert bytes(back[0][1].view) == content
            assert back[1] == "small"
            assert turns >= len(content) // tcp.PIECE_BYTES
            await stream.close()

    run(main())


def test_draining_and_closing_wait_for_what_is_queued(secret: Credential | None) -> None:
    async def main() -> None:
        gate, arrived = asyncio.Event(), asyncio.Queue[int]()

        async def slow(stream: TCPStream) -> None:
            stream.widen()
            await gate.wait()
            while True:
                for message in await stream.receive():
                    arrived.put_nowait(message.nbytes)

        async with serving(secret, slow) as (address, ends):
            stream = await connect(address, secret, 20)
            for _ in range(3):
                stream.send(Buffer(bytes(40 << 20)))
            draining = asyncio.ensure_future(stream.drain())
            await asyncio.sleep(0)
            assert stream.pending_bytes > tcp.QUEUE_BYTES_HIGH
            assert not draining.done()
            gate.set()
            await draining
            assert stream.pending_bytes <= tcp.QUEUE_BYTES_HIGH
            await stream.close()
            assert isinstance(await ends.get(), ConnectionLost)
            assert [arrived.get_nowait() for _ in range(3)] == [40 << 20] * 3

    run(main())


FLOOD = """
import socket, sys
packet = sys.stdin.buffer.read()
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    try:
        while True:
            peer.sendall(packet)
    except OSError:
        pass
"""


@pytest.mark.slow
def test_a_peer_that_floods_starves_nobody() -> None:
    packets = b"".join(map(bytes, encode_packet(encode([[1, 2, 3]])))) * 20_000

    async def main() -> None:
        flooded = asyncio.Event()

        async def count(stream: TCPStream) -> None:
            with contextlib.suppress(ConnectionLost):
                while True:
                    for message in await stream.receive():
                        if message == "hello":
                            stream.send("hello")
                        else:
                            flooded.set()

        async with serving(None, count) as (address, ends):
            argv = [sys.executable, "-c", FLOOD, str(address.port)]
            flood = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.PIPE)
            try:
                assert flood.stdin is not None
                flood.stdin.write(packets)
                flood.stdin.write_eof()
                await flooded.wait()
                for _ in range(20):
                    stream = await connect(address, None, 20)
                    stream.send("hello")
                    assert await stream.receive() == ["hello"]
                    stream.abort()
                    await ends.get()
                assert flood.returncode is None
            finally:
                flood.kill()
                await flood.wait()
            await ends.get()

    run(main())


def test_one_message_that_cannot_travel_takes_no_other_along(
    secret: Credential | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(secret, echo) as (address, _):
            stream = await connect(address, secret, 20)
            for message in (1, 2, object(), 3, 2**80, 4):
                stream.send(message)
            assert await receive(stream, 4) == [1, 2, 3, 4]
            await stream.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert len([record for record in caplog.records if "was dropped" in record.getMessage()]) == 2


def test_who_has_not_greeted_may_not_send_much(secret: Credential | None) -> None:
    async def main() -> None:
        async def read(stream: TCPStream) -> None:
            await stream.receive()

        async with serving(secret, read) as (address, ends):
            stream = await connect(address, secret, 20)
            stream.send(bytes(GREETING_LIMITS.body_bytes_max))
            with pytest.raises(ConnectionLost):
                await stream.receive()
            assert isinstance(await ends.get(), ProtocolError)

    run(main())


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", MAGIC + struct.pack(">IQ", 1, 1) + b"\xc1", MAGIC + b"\xff" * 8]
)
def test_noise_ends_the_connection(noise: bytes) -> None:
    async def main() -> None:
        async with serving(None, echo) as (address, ends):
            with socket.create_connection(address, DEADLINE_S) as peer:
                peer.sendall(noise)
                error = await ends.get()
                assert isinstance(error, ProtocolError)
                with contextlib.suppress(ConnectionResetError):
                    assert peer.recv(1) == b""

    run(main())


def test_who_says_nothing_is_told_apart_from_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_TIMEOUT_S", 0.2)
    secrets = []
    for name in ("ours", "theirs"):
        credential.write_new(tmp_path / name)
        secrets.append(credential.load(tmp_path / name))
    ours, theirs = secrets

    async def main() -> None:
        async with serving(ours, echo) as (address, ends):
            with socket.create_connection(address, DEADLINE_S):
                error = await ends.get()
            assert isinstance(error, CredentialRefused)
            assert "did not finish the TLS handshake" in str(error)
            monkeypatch.setattr(tcp, "HANDSHAKE_TIMEOUT_S", DEADLINE_S)
            with pytest.raises(CredentialRefused, match="copy the file from the scheduler's machine"):
                await connect(address, theirs, 20)
            error = await ends.get()
            assert isinstance(error, CredentialRefused)
            assert "does not hold this cluster's credential" in str(error)

    run(main())
    assert not [record for record in caplog.records if record.exc_info]


def test_who_dies_in_the_middle_of_a_handshake_refuses_no_credential(tmp_path: Path) -> None:
    credential.write_new(tmp_path / "c.pem")
    secret = credential.load(tmp_path / "c.pem")

    async def main() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            await reader.read(1 << 16)  # all of the greeting: with bytes unread it would be a reset
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            with pytest.raises(ConnectError, match="broke off the TLS handshake") as caught:
                await connect(Address(*server.sockets[0].getsockname()), secret, 20)
            assert type(caught.value) is ConnectError
        async with serving(secret, echo) as (address, ends):
            with socket.create_connection(address, DEADLINE_S):
                pass
            assert isinstance(await ends.get(), ConnectionLost)

    run(main())


def test_a_connection_that_ends_as_soon_as_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credential.write_new(tmp_path / "c.pem")
    secret = credential.load(tmp_path / "c.pem")
    wait_for_handshake = tcp.SSLIOStream.wait_for_handshake

    async def main() -> None:
        async with serving(secret, echo) as (address, _):

            async def and_end(stream: Any) -> Any:
                await wait_for_handshake(stream)
                if not stream.socket.server_side:
                    stream.close()
                return stream

            monkeypatch.setattr(tcp.SSLIOStream, "wait_for_handshake", and_end)
            with pytest.raises(ConnectError, match="after the TLS handshake"):
                await connect(address, secret, 20)

    run(main())


def test_servers_that_are_not_there_or_say_nothing(tmp_path: Path) -> None:
    credential.write_new(tmp_path / "c.pem")
    secret = credential.load(tmp_path / "c.pem")

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = Address(*mute.getsockname())
            with pytest.raises(ConnectError, match="did not answer the TLS handshake"):
                await connect(address, secret, 0.2)
            with pytest.raises(ConnectError, match="did not answer the greeting"):
                await open_channel(address, None, "rpc", timeout_s=0.2)
        with pytest.raises(ConnectError, match="Connection refused"):
            await connect(address, None, 20)

    run(main())


def test_ports_and_addresses_that_cannot_be_had() -> None:
    (taken,) = bind("127.0.0.1", 0)
    with taken:
        with pytest.raises(PortInUse, match="0 for any free one"):
            bind("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConnectError, match="cannot listen on"):
            bind("192.0.2.1", 0)


def test_calls_and_their_replies(secret: Credential | None) -> None:
    async def serve(stream: TCPStream) -> None:
        channel = Channel(stream)
        await greet(channel, lambda hello: messages.Welcome("Test", "id", 7, {"role": hello.role}))
        held: list[messages.Request] = []
        while True:
            for message in await channel.read():
                assert type(message) is messages.Request
                if message.op == "leave":
                    return
                held.append(message)
            if len(held) == 3:
                # The last one first: replies find their calls by number.
                for request in reversed(held):
                    ok = request.op == "double"
                    value = request.arguments["n"] * 2 if ok else "it failed"
                    channel.send(messages.Reply(request.id, ok, value))
                held.clear()

    async def main() -> None:
        async with serving(secret, serve) as (address, _):
            channel, welcome = await open_channel(address, secret, "rpc")
            assert welcome == messages.Welcome("Test", "id", 7, {"role": "rpc"})
            channel.read_replies()
            with pytest.raises(NotSerializable):
                await channel.call("double", {"n": object()})
            asked = [channel.call("double", {"n": 1}), channel.call("fail"), channel.call("double", {"n": 1 << 21})]
            got = await asyncio.gather(*asked, return_exceptions=True)
            assert got[0] == 2
            assert isinstance(got[1], RemoteError)
            assert str(got[1]) == "it failed"
            assert got[2] == 1 << 22
            with pytest.raises(TimeoutError):
                await channel.call("double", {"n": 1}, timeout_s=0.05)
            with pytest.raises(ConnectionLost):
                await channel.call("leave")
            with pytest.raises(ConnectionLost):
                await channel.call("double", {"n": 1})
            channel.abort()

    run(main())


def test_another_version_is_refused_with_a_sentence() -> None:
    async def main() -> None:
        async def serve(stream: TCPStream) -> None:
            await greet(Channel(stream), lambda hello: messages.Welcome("Test", "id", 1, {}))

        async with serving(None, serve) as (address, ends):
            channel = Channel(await connect(address, None, 20))
            channel.send(messages.Hello(messages.PROTOCOL_VERSION + 1, "client", {}))
            (refusal,) = await channel.read()
            assert type(refusal) is messages.Refusal
            assert "install the same release" in refusal.reason
            assert isinstance(await ends.get(), ProtocolError)
            channel.abort()

    run(main())
