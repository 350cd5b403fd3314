"""Messages over a stream: the greeting, and calls with their replies among the other messages."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable
from typing import Any

from distributed_core import messages
from distributed_core.comm.address import Address, format_address
from distributed_core.comm.credential import Credential
from distributed_core.comm.stream import Stream
from distributed_core.errors import ConnectError, ConnectionLost, Deferred, ProtocolError, Refused, RemoteError
from distributed_core.protocol.codec import encode
from distributed_core.protocol.plain import from_plain, to_plain

#: How often within the longest silence it is looked for a sign of life.
LOOKS = 8


class Channel:
    """A stream whose words are messages.

    Whoever reads must read until the end: replies to `call` arrive there too.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        #: Calls that end when the other side is silent, and for how long that may be.
        self._impatient: dict[int, float] = {}
        self._silence: Silence | None = None
        self._reader: asyncio.Task[None] | None = None
        #: Messages that came in one packet with the greeting; `read` returns them first.
        self.early: list[Any] = []
        #: Held by who prepares a large reply, so that only one is in preparation for each reader.
        self.bulk = asyncio.Lock()

    def send(self, message: Any) -> None:
        """Queue `message`; it leaves with the next turn of the loop."""
        self.stream.send(to_plain(message))

    async def read(self) -> list[Any]:
        """Return the next batch of messages that are not replies; it may be empty.

        Raises
        ------
        ConnectionLost, ProtocolError
            The connection ended, or the peer sent what no peer sends; calls under way fail with it.
        """
        if self.early:
            early, self.early = self.early, []
            return early
        try:
            batch = [from_plain(plain) for plain in await self.stream.receive()]
        except (ConnectionLost, ProtocolError) as error:
            self.fail(error)
            raise
        if self._calls and any(type(message) is messages.Reply for message in batch):
            rest = []
            for message in batch:
                if type(message) is messages.Reply:
                    self._settle(message)
                else:
                    rest.append(message)
            return rest
        return batch

    async def call(
        self,
        op: str,
        arguments: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        silence_max_s: float | None = None,
    ) -> Any:
        """Call the handler `op` of the other side and return its value.

        With `silence_max_s` the other side may take as long as it likes, as long as it takes or gives bytes, or answers
        a ping; so it must be a server.

        Raises
        ------
        RemoteError
            The handler failed, with its sentence.
        NotSerializable
            The arguments are no plain data.
        ConnectionLost
            The connection ended before the reply.
        TimeoutError
            No reply within `timeout_s` seconds, or no sign of life for `silence_max_s`.
        """
        return await self.begin(op, arguments, timeout_s, silence_max_s)

    def begin(
        self,
        op: str,
        arguments: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        silence_max_s: float | None = None,
    ) -> Awaitable[Any]:
        """Send a call now, and return what to await for its value; errors are those of `call`."""
        if self.stream.closed:
            raise ConnectionLost(f"the connection to {format_address(self.stream.peer)} is closed")
        encode([arguments])  # what cannot travel is the caller's to hear of, not the log's
        self._count += 1
        number = self._count
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = reply
        self.send(messages.Request(number, op, arguments or {}))
        if silence_max_s is not None:
            self._impatient[number] = silence_max_s
            if self._silence is None:
                self._silence = Silence(self, silence_max_s)
        return self._reply_to(number, reply, timeout_s)

    async def _reply_to(self, number: int, reply: asyncio.Future[Any], timeout_s: float | None) -> Any:
        try:
            return await asyncio.wait_for(reply, timeout_s)
        finally:
            self._calls.pop(number, None)
            self._impatient.pop(number, None)

    def mind_silence(self, silent_s: float) -> bool:
        """The other side gave no sign of life for so long: end calls that wait no longer; tell whether any wait on."""
        if self.stream.closed:
            self._impatient.clear()
        over = [number for number, max_s in self._impatient.items() if silent_s >= max_s]
        if over and len(over) == len(self._calls):
            # Whoever calls next had better not wait for this one again.
            self.stream.abort()
        text = f"{format_address(self.stream.peer)} gave no sign of life for {silent_s:.0f} s"
        for number in over:
            self._impatient.pop(number, None)
            reply = self._calls.pop(number, None)
            if reply is not None and not reply.done():
                reply.set_exception(TimeoutError(text))
                reply.exception()  # looked at: nobody may be waiting any more
        if not self._impatient:
            self._silence = None
            return False
        if silent_s and not self.stream.closed:
            # Nobody waits for the answer: that bytes come is enough.
            self._count += 1
            self.send(messages.Request(self._count, "ping", {}))
        return True

    def fail(self, error: BaseException) -> None:
        """Let every call under way fail: the connection is gone."""
        calls, self._calls = self._calls, {}
        for reply in calls.values():
            if not reply.done():
                reply.set_exception(ConnectionLost(str(error)))
                reply.exception()  # looked at: nobody may be waiting any more

    def read_replies(self) -> None:
        """Read in the background, for a channel that carries calls only."""
        self._reader = asyncio.get_running_loop().create_task(self._read_on())

    async def _read_on(self) -> None:
        try:
            while True:
                await self.read()
        except (ConnectionLost, ProtocolError):
            self.stream.abort()

    def _settle(self, message: messages.Reply) -> None:
        reply = self._calls.get(message.id)
        if reply is not None and not reply.done():
            if message.ok:
                reply.set_result(message.value)
            else:
                reply.set_exception(RemoteError(str(message.value)))

    async def close(self) -> None:
        """Send what is queued, then close."""
        await self.stream.close()
        if self._reader is not None:
            self._reader.cancel()
        self.fail(ConnectionLost("the connection was closed on this side"))

    def abort(self) -> None:
        """Close at once."""
        self.stream.abort()
        if self._reader is not None:
            self._reader.cancel()
        self.fail(ConnectionLost("the connection was closed on this side"))


class Silence:
    """Looks now and then whether the other side of a channel lives: bytes come, or what is queued for it gets less."""

    def __init__(self, channel: Channel, max_s: float) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._interval_s = max_s / LOOKS
        self._since_s = self._looked_s = self._loop.time()
        self._received_bytes = channel.stream.received_bytes
        self._pending_bytes = channel.stream.pending_bytes
        self._loop.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        stream, now = self._channel.stream, self._loop.time()
        received_bytes, pending_bytes = stream.received_bytes, stream.pending_bytes
        moved = received_bytes != self._received_bytes or pending_bytes < self._pending_bytes
        # After a standstill of this process itself, nothing of what came was read yet.
        if moved or now - self._looked_s > 2 * self._interval_s:
            self._since_s = now
        self._received_bytes, self._pending_bytes, self._looked_s = received_bytes, pending_bytes, now
        if self._channel.mind_silence(now - self._since_s):
            self._loop.call_later(self._interval_s, self._look)


async def open_channel(
    address: Address,
    credential: Credential | None,
    role: str,
    details: dict[str, Any] | None = None,
    timeout_s: float = 10.0,
) -> tuple[Channel, messages.Welcome]:
    """Connect to a server of this package and greet it.

    Parameters
    ----------
    credential
        The cluster's, or None for a cluster without security.
    role
        `client`, `worker` or `rpc`.

    Raises
    ------
    ConnectError
        Nobody listens there, or it is no server of ours.
    Refused, Deferred
        It does not let this peer in, and says why; or does not know yet.
    CredentialRefused
        It holds another credential.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    # Tornado's streams are a good part of what the client imports; it is loaded where the first one is opened.
    from distributed_core.comm.tcp import connect

    stream = await connect(address, credential, timeout_s)
    channel = Channel(stream)
    greeting = {"python": platform.python_version(), **(details or {})}
    channel.send(messages.Hello(messages.PROTOCOL_VERSION, role, greeting))
    where = format_address(address)
    try:
        batch = await asyncio.wait_for(channel.read(), max(0.1, deadline - loop.time()))
    except TimeoutError:
        stream.abort()
        raise ConnectError(f"{where} did not answer the greeting within {timeout_s:g} s; is it a dscheduler?") from None
    except ProtocolError:
        stream.abort()
        raise ConnectError(f"{where} does not speak this protocol; is it a dscheduler of this version?") from None
    except ConnectionLost as error:
        stream.abort()
        if credential is None:
            text = f"{where} closed the connection; it probably wants a credential: pass --credential FILE"
            raise ConnectError(text) from None
        raise ConnectError(f"{where} closed the connection during the greeting ({error})") from None
    first = batch[0] if batch else None
    if type(first) is messages.Welcome:
        channel.early = batch[1:]
        return channel, first
    stream.abort()
    if type(first) is messages.Refusal:
        raise Refused(f"{where} refused: {first.reason}")
    if type(first) is messages.Deferral:
        raise Deferred(f"{where} does not know yet: {first.reason}")
    raise ConnectError(f"{where} does not answer as a server of this package; check the address")


async def greet(channel: Channel, answer: Callable[[messages.Hello], messages.Welcome]) -> messages.Hello:
    """On the server's side: read the greeting, and answer it with what `answer` makes of it.

    Raises
    ------
    ProtocolError, ConnectionLost
        The other side is no peer of this version, or went away; it was told why.
    """
    batch = await channel.read()
    hello = batch[0] if batch else None
    if type(hello) is not messages.Hello:
        raise ProtocolError("the peer did not greet")
    if hello.version != messages.PROTOCOL_VERSION:
        reason = (
            f"this server speaks version {messages.PROTOCOL_VERSION} of the protocol, you speak {hello.version}; "
            "install the same release of dec2 on both sides"
        )
        channel.send(messages.Refusal(reason))
        await channel.stream.close()
        raise ProtocolError(f"a peer speaks version {hello.version} of the protocol")
    channel.early = batch[1:]
    channel.stream.widen()
    channel.send(answer(hello))
    return hello
