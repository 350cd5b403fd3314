"""What scheduler, worker and nanny share: listening, the greeting, and handlers that `rpc` reaches."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from distributed_core import messages
from distributed_core.comm.address import Address, format_address, outgoing_host
from distributed_core.comm.channel import Channel, greet
from distributed_core.comm.credential import Credential, load_or_create
from distributed_core.comm.tcp import accept, bind
from distributed_core.errors import ConnectionLost, Deferred, EngineError, ProtocolError, UsageError
from distributed_core.protocol.codec import encode
from distributed_core.servers import arguments, door
from distributed_core.servers.logs import keep_recent, recent
from distributed_core.versions import report

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]

#: Handlers whose replies are payloads: plain by construction, and too large to pack twice.
BULK = ("get_data", "relay", "actor_call", "actor_get")
#: Tornado refuses more than this in its own buffers; large frames are read past them.
BUFFER_BYTES_MAX = 1 << 40


class Server(TCPServer):
    """A TCP server of this package.

    Parameters
    ----------
    loop
        The tornado loop that it lives on; by default `IOLoop.current()`. It may run in another thread.
    host
        The address to listen on and to tell others; by default all interfaces, or loopback where `insecure`.
    credential
        The path of the cluster's credential file; by default the user's own, made on first use.
    insecure
        No TLS and no authentication: whoever reaches the port runs code.

    Raises
    ------
    CredentialError
        The credential file cannot be used.
    """

    kind = "Server"
    default_port = 0

    def __init__(
        self,
        *,
        loop: IOLoop | None = None,
        host: str | None = None,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> None:
        self.loop = loop or IOLoop.current()
        self.credential: Credential | None = None if insecure else load_or_create(credential)
        context = self.credential.server_context() if self.credential else None
        super().__init__(ssl_options=context, max_buffer_size=BUFFER_BYTES_MAX)
        self.host = host or ("127.0.0.1" if insecure else None)
        self.port = 0
        self.id = f"{self.kind.lower()}-{os.urandom(6).hex()}"
        self.exit_code: int | None = None
        self._finished: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._channels: dict[Channel, None] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._doors: list[door.Door] = []
        self._complaints = door.Complaints(self.loop)
        #: Connections whose greeting is not over, the oldest first.
        self._strangers: dict[IOStream, None] = {}
        self._sent_away: dict[IOStream, None] = {}
        self.handlers: dict[str, Handler] = {
            "identity": self._handle_identity,
            "ping": self._handle_ping,
            "terminate": self._handle_terminate,
            "versions": self._handle_versions,
            "logs": self._handle_logs,
        }
        keep_recent()

    # --- life -------------------------------------------------------------------------------------

    def start(self, port: int | None = None) -> None:  # type: ignore[override]
        """Listen on `port` (0: any free one) and serve; return once others can connect.

        Tornado's own `start` forks processes; this one does not. It may be called from any thread, before or after
        the loop runs.

        Raises
        ------
        PortInUse
            Another process listens on that port.
        """
        wanted = self.default_port if port is None else port
        sockets = bind(self.host, wanted)
        self.port = sockets[0].getsockname()[1]
        running = self.loop.asyncio_loop.is_running()  # type: ignore[attr-defined]
        if running and _runs_here(self.loop):
            self._serve_sockets(sockets)
            return
        listening: concurrent.futures.Future[None] = concurrent.futures.Future()

        def serve() -> None:
            try:
                self._serve_sockets(sockets)
                listening.set_result(None)
            except BaseException as error:
                listening.set_exception(error)

        self.loop.add_callback(serve)
        if running:
            listening.result()

    def _serve_sockets(self, sockets: list[socket.socket]) -> None:
        self.add_sockets(sockets)
        self.started()

    def started(self) -> None:
        """Begin what needs the loop; the sockets are served."""

    @property
    def address(self) -> str:
        """HOST:PORT, as others reach it."""
        host = self.host
        if host in (None, "", "0.0.0.0", "::"):
            host = outgoing_host()
        return format_address(Address(str(host), self.port))

    async def finished(self) -> int:
        """Wait until the server is closed; return the exit code for its process."""
        return await asyncio.wrap_future(self._finished)

    async def close(self, exit_code: int = 0) -> None:
        """Stop listening, close all connections, and let `finished` return."""
        if self.exit_code is not None:
            return
        self.exit_code = exit_code
        self.stop()
        await self.closing()
        for channel in list(self._channels):
            await channel.close()
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()
        if not self._finished.done():
            self._finished.set_result(exit_code)

    async def closing(self) -> None:
        """Give up what this server holds, before its connections close."""

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` until it ends or the server closes."""
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s: a background task failed", self.id, exc_info=task.exception())

    # --- connections ------------------------------------------------------------------------------

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Serve sockets that listen; call it on the loop."""
        for each in sockets:
            self._doors.append(door.Door(each, self._handle_connection, self._make_room, self._complaints))

    def stop(self) -> None:
        """Let nobody in any more; connections that are there stay."""
        doors, self._doors = self._doors, []
        for each in doors:
            each.close()

    def _make_room(self) -> None:
        """Send half of the strangers away, the oldest first."""
        for stranger in list(self._strangers)[: (len(self._strangers) + 1) // 2]:
            self._send_away(stranger)

    def _send_away(self, stranger: IOStream) -> None:
        self._strangers.pop(stranger, None)
        self._sent_away[stranger] = None
        stranger.close()

    async def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Greet whoever connected and serve it; a peer that misbehaves is dropped with one log line."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        channel: Channel | None = None
        if len(self._strangers) >= door.STRANGERS_MAX:
            self._send_away(next(iter(self._strangers)))
        self._strangers[stream] = None
        try:
            channel = Channel(await accept(stream))
            self._channels[channel] = None
            await self._serve_channel(channel, stream)
        except EngineError as error:
            if stream in self._sent_away:
                self._complain(address, "it had not greeted, and others need its place")
            elif isinstance(error, ConnectionLost):
                logger.debug("%s: %s", self.id, error)
            else:
                self._complain(address, error)
        finally:
            self._tasks.pop(task, None)
            self._strangers.pop(stream, None)
            self._sent_away.pop(stream, None)
            if channel is not None:
                self._channels.pop(channel, None)
                channel.abort()

    def _complain(self, address: Any, reason: object) -> None:
        self._complaints.add(f"{self.id} dropped a peer at {_peer_name(address)}: {reason}")

    async def _serve_channel(self, channel: Channel, stream: IOStream) -> None:
        role: list[Callable[[], Awaitable[None]]] = []

        def answer(hello: messages.Hello) -> Any:
            try:
                peer, serve = self.welcome(channel, hello)
            except Deferred as error:
                return messages.Deferral(str(error))
            except UsageError as error:
                return messages.Refusal(str(error))
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
                return messages.Refusal(f"the greeting of a {hello.role:.40} is malformed: {error}")
            role.append(serve)
            return messages.Welcome(self.kind, self.id, peer, self.greeting(hello))

        try:
            async with asyncio.timeout(door.GREETING_TIMEOUT_S):
                await greet(channel, answer)
        except TimeoutError:
            raise ProtocolError(f"it did not greet within {door.GREETING_TIMEOUT_S:g} s") from None
        self._strangers.pop(stream, None)
        if role:
            await role[0]()
        else:
            await channel.stream.close()

    def greeting(self, hello: messages.Hello) -> dict[str, Any]:
        """Return the details of the welcome for who greets."""
        return {"address": self.address}

    def welcome(self, channel: Channel, hello: messages.Hello) -> tuple[int, Callable[[], Awaitable[None]]]:
        """Return the peer id for who greets, and what serves it from then on.

        Raises
        ------
        UsageError
            This server has nothing for that role.
        """
        if hello.role != "rpc":
            raise UsageError(f"a {self.kind.lower()} serves no {hello.role!r:.40}; is this the scheduler's address?")
        return 0, lambda: self._serve_calls(channel)

    async def _serve_calls(self, channel: Channel) -> None:
        while True:
            for message in await channel.read():
                if type(message) is not messages.Request:
                    raise ProtocolError(f"it sent {type(message).__name__} where only calls are served")
                self.dispatch(channel, message)

    def dispatch(self, channel: Channel, request: messages.Request, **context: Any) -> None:
        """Run the handler of a request; its reply leaves when it is done, others go on meanwhile."""
        self.background(self._reply(channel, request, context))

    async def _reply(self, channel: Channel, request: messages.Request, context: dict[str, Any]) -> None:
        handler = self.handlers.get(request.op)
        try:
            if handler is None:
                known = ", ".join(sorted(self.handlers))
                raise UsageError(f"a {self.kind.lower()} has no handler {request.op!r:.60}; it has {known}")
            arguments.check(request.op, handler, request.arguments)
            if request.op == "get_data":
                # One at a time, and none while the reader has not taken the last: their data would pile up here.
                async with channel.bulk:
                    await channel.stream.drain()
                    value = await handler(**request.arguments, **context)
                    if request.id and not channel.stream.closed:
                        channel.send(messages.Reply(request.id, True, value))
                        await channel.stream.drain()
                return
            value = await handler(**request.arguments, **context)
            if request.op not in BULK:
                encode([value])  # a reply that cannot travel must not leave its caller waiting
            reply = messages.Reply(request.id, True, value)
        except Exception as error:
            # Whatever it is: a caller never waits for a handler that failed.
            text = f"{type(error).__name__}: {error}"
            # What a caller wrote is repeated there: a sentence stays one line all the same.
            text = " ".join(text.splitlines()) if isinstance(error, UsageError) else text
            reply = messages.Reply(request.id, False, text)
        if request.id and not channel.stream.closed:
            channel.send(reply)
            await channel.stream.drain()

    # --- handlers that every server has -----------------------------------------------------------

    async def _handle_identity(self, **context: Any) -> dict[str, Any]:
        return self.identity()

    def identity(self) -> dict[str, Any]:
        """Return what this server is, as plain data."""
        return {"type": self.kind, "id": self.id, "address": self.address, "pid": os.getpid()}

    async def _handle_ping(self, **context: Any) -> str:
        return "pong"

    async def _handle_versions(self, packages: list[str] | None = None, **context: Any) -> dict[str, Any]:
        return await asyncio.to_thread(report, packages)

    async def _handle_logs(self, n: int | None = None, **context: Any) -> list[list[str]]:
        return recent.last(self.kind, n)

    async def _handle_terminate(self, **context: Any) -> str:
        """Reply, then close; a process whose server this is ends with 0."""
        asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(self.close()))
        return "OK"


def _runs_here(loop: IOLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop.asyncio_loop  # type: ignore[attr-defined]
    except RuntimeError:
        return False


def _peer_name(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) and len(address) > 1 else str(address)
