"""The scheduler: a tornado TCPServer around `SchedulerMachine`. It forwards what is the user's and never opens it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tornado.ioloop import IOLoop

from distributed_core import messages
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import ConnectionLost, NotEnoughWorkers, ProtocolError, UsageError
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions
from distributed_core.protocol.functions import forged_functions
from distributed_core.servers.extensions import EXTENSIONS
from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.plugins import Plugins
from distributed_core.servers.newcomers import Newcomers
from distributed_core.servers.preloads import Preloads
from distributed_core.servers.shell import Server
from distributed_core.settings import DEFAULT_PORT, TRANSFER_SILENCE_MAX_S, SchedulerSettings
from distributed_core.versions import own_versions

if TYPE_CHECKING:
    from distributed_core.servers.recording import Recording

logger = logging.getLogger(__name__)

RELAYED = ("get_data", "put_data", "actor_call", "actor_get")
"""What a client that cannot reach the workers may ask of them through the scheduler."""


#: How long a nanny has to tell how its process ended, where a task is to be convicted of that.
DEATH_REPORT_S = 2.0
#: Tasks, or messages, that are applied at once: each peer has its part in a turn of the loop, and a turn should not
#: take tens of milliseconds.
PART_WEIGHT = 400
#: How a connection ends whose other side says nothing, not even that it ended.
UNANSWERED = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
#: Shares are compared by sums of time over weight, which must stay numbers that can be compared.
WEIGHT_MIN = 1e-6


class Scheduler(Server):
    """The one process that knows where everything is.

    Parameters
    ----------
    loop, host, credential, insecure
        As for every `Server`.
    settings
        Limits and intervals of its machine.
    preload
        Modules that are imported at the start and whose functions clients may call: names, `MODULE:FUNCTION`, or paths
        of .py files. See `Client.run_on_scheduler`.
    idle_timeout_s
        The cluster ends after so long without a task and without a client's call; 0 is never.
    record
        A file for what happens to its machine, without what is the user's; see `servers/recording.py`.

    Raises
    ------
    UsageError
        A module of `preload` cannot be imported, or the file of `record` cannot be written.

    Examples
    --------
    >>> s = Scheduler(loop=loop)
    >>> s.start(8786)
    """

    kind = "Scheduler"
    default_port = DEFAULT_PORT

    def __init__(
        self,
        loop: IOLoop | None = None,
        *,
        host: str | None = None,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        settings: SchedulerSettings | None = None,
        preload: Iterable[str] = (),
        idle_timeout_s: float = 0.0,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(loop=loop, host=host, credential=credential, insecure=insecure)
        self.preloads = Preloads(preload)
        self.idle_timeout_s = idle_timeout_s
        #: When a client was last heard of, in the loop's time.
        self.last_activity = 0.0
        #: Why it ended by itself, if it did.
        self.farewell = ""
        #: What nannies told of worker processes that ended, by address: pid, exit_code, memory_bytes, reason.
        self.deaths: dict[str, dict[str, Any]] = {}
        self.death_waiters: list[asyncio.Future[None]] = []
        self.machine = SchedulerMachine(settings)
        self.recording: Recording | None = None
        if record is not None:
            from distributed_core.servers.recording import Recording

            self.recording = Recording(record, self.machine)
        self._soft_bytes_max = self.machine.settings.peer_soft_bytes_max
        self._peers: dict[int, Channel] = {}
        self._peer_count = 0
        self._newcomers = Newcomers(self)
        self._workers_changed: list[asyncio.Future[None]] = []
        #: Requests that wait for something to change.
        self._watchers: list[asyncio.Future[None]] = []
        self._relays: dict[str, Channel] = {}
        self.handlers |= {
            "holders": self._handle_holders,
            "wait_for_workers": self._handle_wait_for_workers,
            "relay": self._handle_relay,
        }
        self.extensions: list[Extension] = [make(self) for make in EXTENSIONS]
        for extension in self.extensions:
            self.handlers |= extension.handlers

    def started(self) -> None:
        for extension in self.extensions:
            extension.started()
        if self.recording is not None:
            self.recording.flush_now_and_then(self.loop.call_later)
        if self.preloads.modules:
            self.background(self._set_up_preloads())

    async def _set_up_preloads(self) -> None:
        try:
            await self.preloads.set_up(self)
        except UsageError as error:
            logger.error("%s: %s", self.id, error)
            self.farewell = str(error)
            await self.close(1)

    # --- the loop around the machine --------------------------------------------------------------

    def feed(self, event: events.SchedulerEvent) -> None:
        """Give the machine an event and carry out what it asks for."""
        peers = self._peers
        for asked in self.machine.handle(event, self.loop.time()):
            if type(asked) is instructions.Send:
                channel = peers.get(asked.peer)
                if channel is not None:
                    pending_bytes = channel.stream.pending_bytes
                    if pending_bytes > self._soft_bytes_max:
                        self._send_slowly(channel, asked.messages, pending_bytes)
                        continue
                    send = channel.send
                    for message in asked.messages:
                        send(message)
            elif type(asked) is instructions.Drop:
                self.drop(asked.peer, asked.reason)
            elif type(asked) is instructions.WatchLiveness:
                self.loop.call_later(asked.delay_s, self._check_liveness)
            elif type(asked) is instructions.WatchRecovery:
                self.loop.call_later(asked.delay_s, self._check_recovery)
            elif type(asked) is instructions.Continue:
                self.loop.add_callback(self._continue)

        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    def drop(self, peer: int, reason: str) -> None:
        """Close the connection to a worker or client, with a line in the log."""
        channel = self._peers.get(peer)
        if channel is not None:
            self._complain(channel.stream.peer, reason)
            channel.abort()

    def _send_slowly(self, channel: Channel, words: list[Any], pending_bytes: int) -> None:
        """Send to a peer that does not read: what it can fetch later stays here; one that never reads is dropped."""
        if channel.stream.closed:
            return
        if pending_bytes > self.machine.settings.peer_hard_bytes_max:
            logger.warning(
                "%s dropped a peer at %s: it left %d MiB unread", self.id, channel.stream.peer, pending_bytes >> 20
            )
            channel.abort()
            return
        for message in words:
            if type(message) is messages.Finished and message.payload is not None:
                message = message._replace(payload=None)
            channel.send(message)

    async def changed(self) -> None:
        """Return after the next event."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def _check_liveness(self) -> None:
        if self.exit_code is None:
            self.feed(events.LivenessChecked())

    def _check_recovery(self) -> None:
        if self.exit_code is None:
            self.feed(events.RecoveryChecked())

    def _continue(self) -> None:
        if self.exit_code is None:
            self.feed(events.Continued())

    # --- peers ------------------------------------------------------------------------------------

    def welcome(self, channel: Channel, hello: messages.Hello) -> tuple[int, Callable[[], Awaitable[None]]]:
        if hello.role not in ("worker", "client"):
            return super().welcome(channel, hello)
        details = hello.details
        peer = self._peer_count + 1
        join: events.SchedulerEvent
        leave: events.SchedulerEvent
        if hello.role == "worker":
            name, nthreads = str(details["name"]), int(details["nthreads"])
            address = str(details["address"])
            self._newcomers.check(details, name, address)
            returns = details.pop("returns", False) is True
            join = events.WorkerJoined(peer, address, name, nthreads, dict(details), returns)
            leave = events.WorkerLost(peer)
        else:
            join, leave = self._client_joined(peer, details), events.ClientLost(peer)
        self._peer_count = peer
        return peer, lambda: self._serve_peer(channel, peer, join, leave)

    @staticmethod
    def _client_joined(peer: int, details: dict[str, Any]) -> events.ClientJoined:
        weight = float(details.get("weight", 1.0))
        if not WEIGHT_MIN <= weight <= 1 / WEIGHT_MIN:
            raise UsageError(f"a client's weight is a number from {WEIGHT_MIN:g} to {1 / WEIGHT_MIN:g}, not {weight}")
        return events.ClientJoined(peer, str(details.get("id", "")), weight, details.get("returns") is True)

    def greeting(self, hello: messages.Hello) -> dict[str, Any]:
        """Tell workers and clients the versions here; clients those of the workers too, workers their plugins."""
        found = super().greeting(hello)
        if hello.role == "client":
            found["versions"] = own_versions()
            found["window"] = [self.machine.settings.client_tasks_max, self.machine.settings.client_bytes_max]
            groups: dict[str, list[Any]] = {}
            for worker in self.machine.ledger.workers.values():
                versions = worker.details.get("versions")
                if isinstance(versions, dict):
                    groups.setdefault(repr(versions), [versions, []])[1].append(worker.name)
            found["workers"] = [[versions, names[:4], len(names)] for versions, names in groups.values()]
        elif hello.role == "worker":
            found["versions"] = own_versions()
            for extension in self.extensions:
                found |= extension.for_newcomers()
        return found

    async def _serve_peer(
        self, channel: Channel, peer: int, join: events.SchedulerEvent, leave: events.SchedulerEvent
    ) -> None:
        self._peers[peer] = channel
        role = "worker" if type(join) is events.WorkerJoined else "client"
        self._supersede(join)
        self.feed(join)
        logger.info("%s: %s", self.id, join)
        self._announce(join)
        for extension in self.extensions:
            extension.joined(peer, role)
        absence_s = 0.0
        try:
            while True:
                batch = await channel.read()
                for message in batch:
                    if type(message) is messages.Request:
                        batch = self._split_requests(channel, peer, batch)
                        break
                if role == "client":
                    self.last_activity = self.loop.time()
                    forged = forged_functions(batch, self.machine.ledger.functions)
                    if forged:
                        # Whoever meant the function of that name would run this one.
                        raise ProtocolError(f"it sent the function {forged[0]} under the digest of another one")
                for part in _parts(batch):
                    self.feed(events.Received(peer, part))
                    if part is not batch:
                        await asyncio.sleep(0)
        except ConnectionLost as error:
            if self.exit_code is None:
                absence_s = self.machine.absence_s(peer, silent=error.errno in UNANSWERED)
            raise
        finally:
            del self._peers[peer]
            if self.machine.verdict_pending(peer):
                leave = await self._hear_of_death(peer)
            if absence_s:
                self._expect(leave, channel, absence_s)
            else:
                self.feed(leave)
            logger.info("%s: %s", self.id, leave)
            self._announce(leave)
            for extension in self.extensions:
                extension.left(peer, role)

    def _expect(self, leave: events.SchedulerEvent, channel: Channel, absence_s: float) -> None:
        """Keep the futures of a client that left without a farewell for so long: it may come back."""
        due = self.loop.time() + absence_s
        logger.warning(
            "%s: a client at %s does not answer; its futures are kept for a while (%g s)",
            self.id,
            channel.stream.peer,
            absence_s,
        )

        def end() -> None:
            if self.exit_code is not None:
                return
            if self.loop.time() - due > self.machine.settings.liveness_interval_s:
                # The scheduler itself stood still; who wanted to come back may be at the door.
                self.loop.call_later(self.machine.settings.recovery_s, self.feed, leave)
            else:
                self.feed(leave)

        self.loop.call_later(absence_s, end)

    def _supersede(self, join: events.SchedulerEvent) -> None:
        """End the older connections of the process that connects: it does not use them any more."""
        ledger = self.machine.ledger
        if type(join) is events.WorkerJoined:
            own_id = join.details.get("id")
            for worker in list(ledger.workers.values()):
                if own_id and worker.details.get("id") == own_id:
                    self._peers[worker.id].abort()
                    self.feed(events.WorkerLost(worker.id, alive=True))
        elif type(join) is events.ClientJoined and join.returns:
            client = ledger.clients_by_name.get(join.id)
            if client is not None and client.id in self._peers:
                self._peers[client.id].abort()

    async def _hear_of_death(self, peer: int) -> events.WorkerLost:
        """Wait a moment for what a nanny says of its process, when the task that ran there is to be convicted."""
        worker = self.machine.ledger.workers[peer]
        deadline = self.loop.time() + DEATH_REPORT_S
        if worker.details.get("nanny"):
            while worker.address not in self.deaths and (left_s := deadline - self.loop.time()) > 0:
                told = asyncio.get_running_loop().create_future()
                self.death_waiters.append(told)
                await asyncio.wait([told], timeout=left_s)
        death = self.deaths.get(worker.address, {})
        return events.WorkerLost(peer, death.get("exit_code"), death.get("memory_bytes", 0))

    def _split_requests(self, channel: Channel, peer: int, batch: list[Any]) -> list[Any]:
        rest = []
        for message in batch:
            if type(message) is messages.Request:
                self.dispatch(channel, message, peer=peer)
            else:
                rest.append(message)
        return rest

    def _announce(self, event: events.SchedulerEvent) -> None:
        if type(event) in (events.WorkerJoined, events.WorkerLost):
            waiters, self._workers_changed = self._workers_changed, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def workers_changed(self) -> asyncio.Future[None]:
        """Return a future that is done when the next worker comes or goes.

        It counts from this call on: a coroutine would count from its first step, and miss what happens before that.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._workers_changed.append(waiter)
        return waiter

    # --- handlers ---------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """Return what this scheduler is, and its workers by address."""
        return {**super().identity(), "workers": self.machine.worker_details()}

    async def _handle_holders(self, numbers: list[int], peer: int = 0) -> list[Any]:
        if peer not in self.machine.ledger.clients:
            raise UsageError("only a client can ask where its futures are")
        return self.machine.holders(peer, numbers)

    async def _handle_wait_for_workers(self, n: int, timeout: float | None = None, **context: Any) -> int:
        deadline = None if timeout is None else self.loop.time() + timeout
        workers = self.machine.ledger.workers
        while len(workers) < n:
            left_s = None if deadline is None else max(0.0, deadline - self.loop.time())
            try:
                await asyncio.wait_for(self.workers_changed(), left_s)
            except TimeoutError:
                text = f"{len(workers)} of {n} workers registered within {timeout:g} s; look at the others' output"
                raise NotEnoughWorkers(text) from None
        return len(workers)

    async def _handle_relay(self, address: str, op: str, arguments: dict[str, Any], **context: Any) -> Any:
        """Call a worker for a client that cannot reach it; the payloads pass through unopened."""
        if op not in RELAYED:
            raise UsageError(f"{op!r:.40} is not relayed")
        if not any(worker.address == address for worker in self.machine.ledger.workers.values()):
            raise ConnectionLost(f"no worker at {address} is registered")
        silence_max_s = TRANSFER_SILENCE_MAX_S if op in ("get_data", "put_data") else None
        return await self.call_server(address, op, arguments, silence_max_s)

    async def call_server(
        self, address: str, op: str, arguments: dict[str, Any] | None = None, silence_max_s: float | None = None
    ) -> Any:
        """Call a handler of a worker or nanny, over a kept connection; see `Channel.call` for what may go wrong."""
        channel = self._relays.get(address)
        if channel is None or channel.stream.closed:
            channel, _ = await open_channel(parse_address(address), self.credential, "rpc")
            channel.read_replies()
            other = self._relays.get(address)
            if other is not None and not other.stream.closed:
                channel.abort()  # two calls opened one each
                channel = other
            self._relays[address] = channel
        return await channel.call(op, arguments, silence_max_s=silence_max_s)

    def add_plugin(self, plugin: Any, name: str | None = None) -> None:
        """Take in a `SchedulerPlugin`, for `setup` in a preloaded module; its `start` is not called."""
        book = next(each for each in self.extensions if type(each) is Plugins)
        book.add(plugin, name or getattr(plugin, "name", None) or type(plugin).__qualname__)

    def hang_up(self, address: str) -> None:
        """Drop the kept connection to a worker that is gone; calls under way there fail."""
        channel = self._relays.pop(address, None)
        if channel is not None:
            channel.abort()

    def send(self, peer: int, message: Any) -> None:
        """Send a message to a worker or client by its peer id; one that left is no error."""
        channel = self._peers.get(peer)
        if channel is not None:
            channel.send(message)

    async def closing(self) -> None:
        farewell = messages.Farewell(f"the scheduler {self.id} was ended{': ' * bool(self.farewell)}{self.farewell}")
        for peer in self.machine.ledger.clients:
            self.send(peer, farewell)
        for extension in self.extensions:
            await extension.closing()
        await self.preloads.tear_down(self)
        for channel in self._relays.values():
            channel.abort()
        if self.recording is not None:
            self.recording.close()


def _parts(batch: list[Any]) -> Iterator[list[Any]]:
    """Return a batch in parts that take a few milliseconds each, so that others have their turns between them."""
    weight = start = 0
    for place, message in enumerate(batch):
        kind = type(message)
        weight += len(message.tasks) if kind is messages.Submission else 1
        weight += len(message.numbers) if kind in (messages.Release, messages.Cancellation) else 0
        if weight >= PART_WEIGHT and place + 1 < len(batch):
            yield batch[start : place + 1]
            start, weight = place + 1, 0
    if batch:
        yield batch[start:] if start else batch
