"""A client's connection to the scheduler. Coroutines run on its loop, `post` and `release` in any thread."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed_core import messages
from distributed_core.client import cells as states
from distributed_core.client.backlog import Backlog
from distributed_core.client.bulk import Bulk
from distributed_core.client.cells import Cell, Cells
from distributed_core.comm.address import Address, format_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.comm.credential import Credential
from distributed_core.errors import (
    ConnectError,
    ConnectionLost,
    EngineError,
    ProtocolError,
)
from distributed_core.machines.client import ClientMachine, events, instructions
from distributed_core.machines.client.machine import CHUNK_TASKS
from distributed_core.versions import own_versions

logger = logging.getLogger(__name__)

#: How long the first try to find the scheduler again may take, and each later one longer. Where nothing answers, the
#: system asks less and less often, every 8 s after a cut of 7 s: a new try asks at once.
FIRST_TRY_S = 2.0


class Session(Backlog):
    """A `ClientMachine` with its connection to the scheduler, and the futures that live by it.

    Parameters
    ----------
    address, credential
        Where the scheduler is, and the cluster's credential, or None for a cluster without security.
    direct
        Whether bulk data goes straight to the workers; if not, through the scheduler. None: straight, and through the
        scheduler where a worker cannot be reached.
    weight
        How large this client's share of the workers is, beside other clients.
    reconnect_timeout_s
        How long to look for a scheduler that was lost, or for another one in its place, before its futures fail.
    """

    def __init__(
        self,
        address: Address,
        credential: Credential | None,
        direct: bool | None,
        weight: float = 1.0,
        reconnect_timeout_s: float = 30.0,
    ) -> None:
        self.address = address
        self.credential = credential
        self.direct = direct
        self.weight = weight
        self.reconnect_timeout_s = reconnect_timeout_s
        self.id = os.urandom(4).hex()
        self.cells = Cells()
        self.machine = ClientMachine(self.cells.by_number, reconnect_timeout_s)
        self.closed = False
        self.scheduler_id = ""
        #: What the scheduler told when it welcomed this client.
        self.welcome_details: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Channel | None = None
        self._listener: asyncio.Task[None] | None = None
        super().__init__(self.cells, self.machine)
        self._released: deque[Cell] = deque()
        #: Released while somebody waited for them.
        self._missed: list[Cell] = []
        self._waking = False
        self._callbacks: ThreadPoolExecutor | None = None
        #: What is to run to its end, held until then.
        self._vowed: dict[int, Cell] = {}
        #: Topics of events that it subscribed to.
        self.topics: dict[str, None] = {}
        #: Done when there is a connection again, or none will be.
        self._back: asyncio.Event = asyncio.Event()
        self.bulk = Bulk(self)
        #: What to call with a `Notice`, by its topic; the scheduler's own warnings are a topic too.
        self.listeners: dict[str, list[Callable[[messages.Notice], Any]]] = {"warning": [_warn]}

    # --- life -------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        """Connect and greet; try again until `timeout_s` has passed.

        Raises
        ------
        ConnectError, CredentialRefused
            The scheduler was not there, or does not accept this client.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._take(await self._connect(timeout_s, returns=False))
        assert self._channel is not None
        self._listener = self._loop.create_task(self._listen(self._channel))

    async def _connect(self, timeout_s: float, returns: bool) -> Channel:
        assert self._loop is not None
        deadline = self._loop.time() + timeout_s
        retry_s, try_s = 0.02, FIRST_TRY_S if returns else timeout_s
        while True:
            left_s = deadline - self._loop.time()
            try:
                details = {"id": self.id, "weight": self.weight, "versions": own_versions(), "returns": returns}
                channel, welcome = await open_channel(
                    self.address, self.credential, "client", details, max(0.1, min(left_s, try_s))
                )
                break
            except ConnectError as error:
                # Not there yet is worth another try; refused is not.
                if type(error) is not ConnectError or left_s <= retry_s or "refused:" in str(error):
                    raise
            await asyncio.sleep(retry_s)
            retry_s, try_s = min(0.5, retry_s * 1.6), try_s * 1.6
        if welcome.server != "Scheduler":
            channel.abort()
            raise ConnectError(f"{format_address(self.address)} is a {welcome.server.lower()}, not a scheduler")
        self.scheduler_id = welcome.id
        self.welcome_details = welcome.details
        told = welcome.details.get("window")
        if isinstance(told, list) and len(told) == 2 and all(type(each) is int for each in told):
            self.window.tasks_max, self.window.bytes_max = max(1, told[0]), max(1, told[1])
        return channel

    async def _listen(self, channel: Channel) -> None:
        reason = "the client was closed"
        try:
            while not self.closed:
                try:
                    while True:
                        self._feed(events.Heard(await channel.read()))
                except (ConnectionLost, ProtocolError) as error:
                    reason = f"the scheduler at {format_address(self.address)} is gone ({error})"
                    self._lose(channel, reason)
                    search_s = self._feed(events.Disconnected(reason))
                if not self.closed:
                    logger.warning("%s; looking for it for %g s", reason, search_s)
                    channel = await self._connect(search_s, returns=True)
                    self._take(channel)
                    logger.warning("the scheduler at %s is back", format_address(self.address))
        except asyncio.CancelledError:
            reason = "the client was closed"
        except EngineError as error:
            reason = f"{reason}, and did not come back: {error}"
        finally:
            self._lose(channel, reason)
            if not self.machine.closed:
                self._feed(events.SearchEnded(reason))
            self._back.set()
            self._make_room()

    def _lose(self, channel: Channel, reason: str) -> None:
        """There is no connection, for now."""
        channel.abort()
        self._channel = None
        self._back.clear()
        self.bulk.lose(reason)

    def _take(self, channel: Channel) -> None:
        """There is a connection: first goes what has to be said again, then what waited."""
        assert self._loop is not None
        with self.cells.lock:
            self.settle_releases()
            asked = self.machine.handle(events.SchedulerFound(self.scheduler_id), self._loop.time())
        self._channel = channel
        for each in asked:
            if type(each) is instructions.Tell:
                self._send(each.messages)
        for topic in self.topics:
            channel.send(messages.Request(0, "subscribe", {"topic": topic}))
        self._back.set()
        self._flush()

    def _feed(self, event: events.ClientEvent) -> float:
        """Give the machine an event and do what it asks for; return how long to look for the scheduler, if it does."""
        assert self._loop is not None
        search_s = 0.0
        for asked in self.machine.handle(event, self._loop.time()):
            if type(asked) is instructions.Settle:
                settle = self.cells.settle
                for future in asked.futures:
                    settle(future)
            elif type(asked) is instructions.Tell:
                self._send(asked.messages)
            elif type(asked) is instructions.Deliver:
                self._deliver(asked.messages)
            elif type(asked) is instructions.Flush:
                self._wake()
            elif type(asked) is instructions.Search:
                search_s = asked.timeout_s
            elif type(asked) is instructions.Close:
                self.closed = True
        return search_s

    def _send(self, words: list[Any]) -> None:
        channel = self._channel
        if channel is None:
            return
        for message in words:
            channel.send(message)
            if _weight(message) >= CHUNK_TASKS // 2:
                # A packet of its own: the scheduler opens each in one go, and others wait meanwhile.
                channel.stream.flush()

    async def close(self) -> None:
        """Send what is queued, then leave; the scheduler drops this client's futures."""
        if self._channel is not None and not self.closed:
            self._flush()
            self._channel.send(messages.Farewell("it was closed"))
            await self._channel.close()
        self.closed = True
        self._make_room()
        self.bulk.close()
        if self._callbacks is not None:
            self._callbacks.shutdown(wait=False)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    # --- to the scheduler -------------------------------------------------------------------------

    def post(self, message: Any) -> None:
        """Queue a message; under the cells' lock, where it makes or releases futures."""
        self.machine.post(message)
        self._wake()

    def post_tasks(self, functions: list[Any], tasks: list[Any]) -> None:
        """Queue new functions and tasks; called under the cells' lock, so that their order is that of their numbers."""
        self.machine.post_tasks(functions, tasks)
        if not self._waking:
            self._wake()

    def vow(self, vowed: list[Cell]) -> None:
        """These are to run to their end, whoever lets go of them, and this client too."""
        self.post(messages.Vow([cell.number for cell in vowed]))
        for cell in vowed:
            with self.cells.lock:
                if cell.status != states.PENDING or cell.number in self._vowed:
                    continue
                cell.refs += 1
                self._vowed[cell.number] = cell
                self.machine.vowed[cell.number] = None
            self.cells.call_when_done(cell, lambda each=cell: self._keep_vow(each))  # type: ignore[misc]

    def _keep_vow(self, cell: Cell) -> None:
        if self._vowed.pop(cell.number, None) is not None:
            self.release(cell)

    def has_function(self, digest: bytes) -> bool:
        """Tell whether this function is on its way to the scheduler, or there."""
        return self.machine.lineage.knows(digest)

    def needs_function(self, digest: bytes) -> bool:
        """Tell whether the scheduler does not have this function yet; called under the cells' lock."""
        return not self.machine.lineage.knows(digest)

    def release(self, cell: Cell) -> None:
        """One `Future` of the cell is gone. The garbage collector calls it, anywhere: it takes no lock."""
        self._released.append(cell)
        self._wake()

    def _wake(self) -> None:
        if not self._waking and not self.closed and self._loop is not None:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                self.closed = True

    def _flush(self) -> None:
        # First the flag, then the queues: see the executor for why.
        self._waking = False
        if self.closed or self._channel is None:
            return
        with self.cells.lock:
            self.settle_releases()
            missed, self._missed = self._missed, []
            posted = self.machine.drain()
        for cell in missed:
            # Somebody waits for what another thread released: there will be no more news of it.
            cell.reason = ("TaskCancelled", "its last future was released", None)
            self.cells.finish(cell, states.CANCELLED)
        self._feed(events.Posted(posted))
        self._tell_of_room()

    def settle_releases(self) -> None:
        """Queue the release of what no `Future` holds any more; called under the cells' lock.

        What is submitted after it and has one of the released names is a new task.
        """
        gone = []
        while self._released:
            cell = self._released.popleft()
            if self.cells.drop(cell):
                gone.append(cell.number)
                if cell.waiters:
                    self._missed.append(cell)
        if gone:
            self.machine.release(gone)

    # --- from the scheduler -----------------------------------------------------------------------

    def _deliver(self, batch: list[Any]) -> None:
        for message in batch:
            if type(message) is messages.Notice:
                self._notice(message)
            elif type(message) is messages.Placement:
                self.bulk.placed(message)
            else:
                self.bulk.not_placed(message)

    def _notice(self, message: messages.Notice) -> None:
        for handle in self.listeners.get(message.topic, ()):
            try:
                handle(message)
            except Exception:
                logger.exception("what listens to %s failed", message.topic)

    def call_back(self, function: Callable[[Any], Any], argument: Any) -> None:
        """Call a user's function in the thread for such, so that it cannot hold up the loop."""
        if self._callbacks is None:
            with self.cells.lock:
                if self._callbacks is None:
                    self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="client-callback")

        def run() -> None:
            try:
                function(argument)
            except Exception:
                logger.exception("the callback %r failed", function)

        try:
            self._callbacks.submit(run)
        except RuntimeError:
            logger.debug("a callback of a closed client was dropped")

    async def call(self, op: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call a handler of the scheduler."""
        if self._channel is None and not self.closed:
            await self._back.wait()
        if self._channel is None or self.closed:
            raise ConnectionLost("the connection to the scheduler is closed")
        self._flush()
        if self.window.blocked and op == "coordinate" and arguments and (arguments.get("value") or ((), ()))[1]:
            # The scheduler is about to be told of futures: it must know them.
            await self.caught_up()
        return await self._channel.call(op, arguments)

    async def returned(self) -> None:
        """Wait while the scheduler is looked for."""
        await self._back.wait()

    # --- waiting ----------------------------------------------------------------------------------

    async def settled(self, cells: Iterable[Cell]) -> None:
        """Return when none of `cells` is pending.

        While it waited for one, another one's result may have been lost with its worker: then it waits for that again.
        """
        kept = pending = list(cells)
        while pending:
            await self._all_settled(pending)
            pending = [cell for cell in kept if cell.status == states.PENDING]

    async def _all_settled(self, cells: list[Cell]) -> None:
        """Return when each of `cells` has been settled."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        count = 1

        def wake() -> None:
            nonlocal count
            count -= 1
            if not count:
                done.set()

        here = threading.get_ident()

        def wake_here() -> None:
            # Cells are finished on this loop, except by a cancellation in a user's thread.
            if threading.get_ident() == here:
                wake()
            else:
                loop.call_soon_threadsafe(wake)

        watched = []
        for cell in cells:
            if self.cells.watch(cell, wake_here):
                count += 1
                watched.append(cell)
        wake()
        try:
            await done.wait()
        except asyncio.CancelledError:
            for cell in watched:
                self.cells.unwatch(cell, wake_here)
            raise


def _weight(message: Any) -> int:
    kind = type(message)
    if kind is messages.Submission:
        return len(message.tasks)
    return len(message.numbers) if kind is messages.Release else 1


def _warn(notice: messages.Notice) -> None:
    logger.warning("%s", notice.text)
