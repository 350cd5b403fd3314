"""Streams over Tornado's TCP, with TLS where there is a credential."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections import deque
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.netutil import bind_sockets

from distributed_core.comm.address import Address, format_address
from distributed_core.comm.batching import Batch
from distributed_core.comm.credential import Credential
from distributed_core.comm.stream import Stream
from distributed_core.errors import (
    ConnectError,
    ConnectionLost,
    CredentialRefused,
    NotSerializable,
    PortInUse,
    ProtocolError,
    TooLarge,
)
from distributed_core.protocol.codec import decode, encode
from distributed_core.protocol.framing import DEFAULT_LIMITS, GREETING_LIMITS, Decoder, Limits, Place, encode_packet

logger = logging.getLogger(__name__)
# Tornado logs each failed handshake itself; we say it in one line of our own.
logging.getLogger("tornado.general").addFilter(lambda record: "SSL" not in record.getMessage())

#: Read at most so much at once, and move large frames in pieces of this size; the loop turns between two of them.
CHUNK_BYTES = 1 << 20
PIECE_BYTES = 2 << 20
#: `drain` waits while more than this is queued.
QUEUE_BYTES_HIGH = 64 << 20
#: Tornado's own limit would close the stream; frames are bounded by `Limits`.
BUFFER_BYTES_MAX = 1 << 40
HANDSHAKE_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 5.0


class TCPStream(Stream):
    """A stream over a tornado IOStream whose handshake is over."""

    def __init__(self, iostream: IOStream, limits: Limits = DEFAULT_LIMITS) -> None:
        self._io = iostream
        self._decoder = Decoder(limits)
        self._batch = Batch(asyncio.get_running_loop(), self._write)
        self._waiting: deque[Any] = deque()
        self._waiting_bytes = 0
        self._received_bytes = 0
        self._pumping = False
        self._last_write: Any = None
        if iostream.closed():
            raise ConnectionLost("the connection ended as soon as it was there")
        self.local = _address(iostream.socket.getsockname())
        self.peer = _address(_peer(iostream.socket))
        self._io.set_nodelay(True)
        iostream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def receive(self) -> list[Any]:
        decoder = self._decoder
        try:
            while True:
                frames = decoder.next_packet()
                if frames is not None:
                    return decode(frames)
                view = decoder.wanted()
                if view is not None:
                    nbytes = min(len(view), PIECE_BYTES)
                    await _in_turn(self._io.read_into(view[:nbytes]))  # type: ignore[arg-type]
                    decoder.filled(nbytes)
                    self._received_bytes += nbytes
                else:
                    data = await _in_turn(self._io.read_bytes(CHUNK_BYTES, partial=True))
                    self._received_bytes += len(data)
                    decoder.feed(data)
        except StreamClosedError as error:
            lost = ConnectionLost(f"the connection to {format_address(self.peer)} ended{_why(error)}")
            lost.errno = getattr(error.real_error, "errno", None)
            raise lost from None
        except ProtocolError:
            self.abort()
            raise

    def send(self, message: Any) -> None:
        self._batch.add(message)

    def flush(self) -> None:
        self._batch.flush()

    def _write(self, batch: list[Any]) -> None:
        if self._io.closed():
            return
        try:
            frames = encode(batch)
        except NotSerializable as error:
            self._write_singly(batch, error)
            return
        if len(frames) > DEFAULT_LIMITS.frames_max or len(frames[0]) > DEFAULT_LIMITS.body_bytes_max:
            self._write_singly(batch, TooLarge("it is beyond the limits of this protocol; send it in parts"))
            return
        for piece in encode_packet(frames):
            if len(piece) <= PIECE_BYTES:
                self._queue(piece)
                continue
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), PIECE_BYTES):
                self._queue(view[start : start + PIECE_BYTES])
        if not self._pumping:
            self._pump()

    def _write_singly(self, batch: list[Any], error: Exception) -> None:
        """One message that cannot travel must not take the others of its batch along."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])
        else:
            logger.error("a message for %s was dropped: %s", format_address(self.peer), error)

    def _queue(self, piece: Any) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)

    def _pump(self, _: Any = None) -> None:
        """Hand what waits to Tornado, which writes at once: one large piece in a turn of the loop, or several small."""
        self._pumping = False
        room = PIECE_BYTES
        try:
            while self._waiting and room > 0:
                piece = self._waiting.popleft()
                self._waiting_bytes -= len(piece)
                room -= len(piece)
                self._last_write = self._io.write(piece)
        except StreamClosedError:
            self._waiting.clear()
            self._waiting_bytes = 0
            return
        if self._waiting:
            self._pumping = True
            self._last_write.add_done_callback(self._pump)

    def widen(self) -> None:
        self._decoder.limits = DEFAULT_LIMITS

    def place_large(self, place: Place) -> None:
        self._decoder.place = place

    async def drain(self) -> None:
        self._batch.flush()
        await self._until_pending(QUEUE_BYTES_HIGH)

    async def _until_pending(self, nbytes: int) -> None:
        while not self._io.closed() and self.pending_bytes > nbytes:
            # Not `await`: a caller that gives up must not cancel Tornado's own future.
            await asyncio.wait((self._last_write,))
            # The write may be over, and the next one not begun: that takes a turn of the loop.
            await asyncio.sleep(0)

    @property
    def pending_bytes(self) -> int:
        # Tornado has no buffer any more once the stream is closed.
        return len(self._io._write_buffer or ()) + self._waiting_bytes

    @property
    def received_bytes(self) -> int:
        # What Tornado has, of a piece that is on its way, counts too.
        return self._received_bytes + self._io._read_buffer_size

    @property
    def closed(self) -> bool:
        return self._io.closed()

    def abort(self) -> None:
        self._io.close()

    async def close(self) -> None:
        self._batch.flush()
        try:
            await asyncio.wait_for(self._until_pending(0), FLUSH_TIMEOUT_S)
        except TimeoutError:
            logger.info("%s did not take what was left for it", format_address(self.peer))
        self._io.close()


async def connect(address: Address, credential: Credential | None, timeout_s: float) -> TCPStream:
    """Connect, with TLS where there is a credential.

    Raises
    ------
    ConnectError
        Nobody listens there, or not in time.
    CredentialRefused
        The TLS handshake failed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    where = format_address(address)
    try:
        sock = await asyncio.wait_for(_connect_socket(address), timeout_s)
    except TimeoutError:
        raise ConnectError(f"{where} did not answer within {timeout_s:g} s; check the address and firewalls") from None
    except (OSError, ValueError) as error:  # a name that cannot be one is a UnicodeError, and so a ValueError
        text = f"nothing answers at {where} ({_short(error)}); check the address, and that it runs"
        raise ConnectError(text) from None
    if credential is None:
        return TCPStream(IOStream(sock, max_buffer_size=BUFFER_BYTES_MAX))
    try:
        wrapped = credential.client_context().wrap_socket(sock, do_handshake_on_connect=False)
    except OSError as error:
        sock.close()
        raise ConnectError(f"{where} ended the connection at once ({_short(error)})") from None
    secured = SSLIOStream(wrapped, max_buffer_size=BUFFER_BYTES_MAX)
    try:
        await asyncio.wait_for(secured.wait_for_handshake(), max(0.1, deadline - loop.time()))
    except TimeoutError:
        secured.close()
        raise ConnectError(f"{where} did not answer the TLS handshake; is it a server of this package?") from None
    except (StreamClosedError, ssl.SSLError, OSError) as error:
        secured.close()
        real = getattr(error, "real_error", None) or secured.error or error
        if _broke_off(real):
            # It ended just now, as far as one can tell; who refuses a credential says so.
            raise ConnectError(f"{where} broke off the TLS handshake ({_short(real)})") from None
        raise CredentialRefused(_refusal(where, credential, real)) from None
    try:
        return TCPStream(secured)
    except OSError as error:
        secured.close()
        raise ConnectError(f"{where} ended the connection after the TLS handshake ({_short(error)})") from None


def _broke_off(error: BaseException | None) -> bool:
    """Tell whether the other side was gone in the middle of a handshake, rather than against it."""
    return isinstance(error, ConnectionError | ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"
    )


def _refusal(where: str, credential: Credential, error: BaseException | None) -> str:
    return (
        f"the server at {where} and the credential {credential.path} do not fit together ({_short(error)}); copy the "
        "file from the scheduler's machine, or name the right one with --credential"
    )


async def _connect_socket(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    problem: OSError | None = None
    for family, kind, proto, _, target in infos:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, target)
            if sock.getsockname() == sock.getpeername():
                # Nobody listens, and the system chose the very port that we look for as our own.
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    raise problem or OSError("no such host")


async def accept(iostream: IOStream, limits: Limits = GREETING_LIMITS) -> TCPStream:
    """On the server's side: finish the handshake. Until `widen`, packets may be as large as a greeting is.

    Raises
    ------
    CredentialRefused
        The client showed another credential, or none, or does not speak TLS.
    ConnectionLost
        It went away.
    """
    if isinstance(iostream, SSLIOStream):
        try:
            await asyncio.wait_for(iostream.wait_for_handshake(), HANDSHAKE_TIMEOUT_S)
        except TimeoutError:
            iostream.close()
            raise CredentialRefused(f"it did not finish the TLS handshake in {HANDSHAKE_TIMEOUT_S:g} s") from None
        except (StreamClosedError, ssl.SSLError, OSError) as error:
            iostream.close()
            real = getattr(error, "real_error", None) or iostream.error or error
            if _broke_off(real):
                raise ConnectionLost(f"a peer broke off the TLS handshake ({_short(real)})") from None
            raise CredentialRefused(f"it does not hold this cluster's credential ({_short(real)})") from None
    try:
        return TCPStream(iostream, limits)
    except OSError:
        iostream.close()
        raise ConnectionLost("a peer left before it said anything") from None


def bind(host: str | None, port: int) -> list[socket.socket]:
    """Return sockets that listen on `port` of `host`, or of all interfaces; port 0 picks a free one.

    Raises
    ------
    PortInUse
        Another process listens there.
    ConnectError
        The address is not one of this machine, or the port is not allowed.
    """
    try:
        # One family: port 0 must give one number, and nodes tell each other IPv4 addresses unless asked otherwise.
        family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
        return bind_sockets(port, host or None, family=family, backlog=1024)
    except OSError as error:
        where = f"port {port}" if not host else format_address(Address(host, port))
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{where} is in use by another process; choose another one, or 0 for any free one"
            ) from None
        raise ConnectError(
            f"cannot listen on {where} ({error.strerror or error}); choose another host or port"
        ) from None


def _address(name: Any) -> Address:
    return Address(str(name[0]), int(name[1])) if isinstance(name, tuple) else Address(str(name), 0)


def _peer(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return ("?", 0)


def _why(error: StreamClosedError) -> str:
    return f" ({_short(error.real_error)})" if error.real_error is not None else ""


def _short(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # asyncio puts words of its own into `strerror`
    return getattr(error, "strerror", None) or str(error or "") or "it closed the connection"


async def _in_turn(read: Any) -> Any:
    """Await a read; where its bytes were there already, let the others on the loop have a turn first."""
    if read.done():
        await asyncio.sleep(0)
    return await read
