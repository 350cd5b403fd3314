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
from distributed_core.client.cells import Cell, Cells
from distributed_core.client.window import TASK_BYTES, Window, payload_bytes
from distributed_core.comm.address import Address, format_address, parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.comm.credential import Credential
from distributed_core.errors import (
    ConnectError,
    ConnectionLost,
    EngineError,
    NotSerializable,
    ProtocolError,
    RemoteError,
)
from distributed_core.messages import Payload
from distributed_core.versions import own_versions

logger = logging.getLogger(__name__)

#: Tasks in one message at most, so that the scheduler's loop is never busy with one for long.
CHUNK_TASKS = 500
#: One request for results asks a worker for at most so many, and so many bytes.
FETCH_TASKS = 1000
FETCH_BYTES = 64 << 20
#: How often a gather asks again for data whose holders did not give it.
GATHER_TRIES = 20


class Session(Backlog):
    """One connection to the scheduler, and the futures that live by it.

    Parameters
    ----------
    address, credential
        Where the scheduler is, and the cluster's credential, or None for a cluster without security.
    direct
        Whether bulk data goes straight to the workers; if not, through the scheduler. None: straight, and through the
        scheduler where a worker cannot be reached.
    weight
        How large this client's share of the workers is, beside other clients.
    """

    def __init__(
        self, address: Address, credential: Credential | None, direct: bool | None, weight: float = 1.0
    ) -> None:
        self.address = address
        self.credential = credential
        self.direct = direct
        self.weight = weight
        self.id = os.urandom(4).hex()
        self.cells = Cells()
        self.closed = False
        self.scheduler_id = ""
        #: What the scheduler told when it welcomed this client.
        self.welcome_details: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Channel | None = None
        self._listener: asyncio.Task[None] | None = None
        self._outbox: list[Any] = []
        super().__init__(self.cells)
        self._released: deque[Cell] = deque()
        #: Released while somebody waited for them.
        self._missed: list[Cell] = []
        self._waking = False
        self._callbacks: ThreadPoolExecutor | None = None
        self._functions: dict[bytes, None] = {}
        self._placements: dict[int, asyncio.Future[tuple[int, str]]] = {}
        self._workers: dict[str, Channel] = {}
        self._worker_turns: dict[str, asyncio.Lock] = {}
        self._unreachable: dict[str, None] = {}
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
        deadline = self._loop.time() + timeout_s
        retry_s = 0.02
        while True:
            left_s = deadline - self._loop.time()
            try:
                details = {"id": self.id, "weight": self.weight, "versions": own_versions()}
                self._channel, welcome = await open_channel(
                    self.address, self.credential, "client", details, max(0.1, left_s)
                )
                break
            except ConnectError as error:
                # Not there yet is worth another try; refused is not.
                if type(error) is not ConnectError or left_s <= retry_s or "refused:" in str(error):
                    raise
            await asyncio.sleep(retry_s)
            retry_s = min(0.5, retry_s * 1.6)
        if welcome.server != "Scheduler":
            self._channel.abort()
            raise ConnectError(f"{format_address(self.address)} is a {welcome.server.lower()}, not a scheduler")
        self.scheduler_id = welcome.id
        self.welcome_details = welcome.details
        told = welcome.details.get("window")
        if isinstance(told, list) and len(told) == 2 and all(type(each) is int for each in told):
            self.window = Window(*told)
        self._listener = self._loop.create_task(self._listen(self._channel))

    async def _listen(self, channel: Channel) -> None:
        reason = "the client was closed"
        try:
            while True:
                self._hear(await channel.read())
        except (ConnectionLost, ProtocolError) as error:
            reason = f"the scheduler at {format_address(self.address)} is gone ({error})"
        except asyncio.CancelledError:
            pass
        finally:
            self.closed = True
            channel.abort()
            self.cells.close(reason)
            self._make_room()
            for waiter in self._placements.values():
                if not waiter.done():
                    waiter.set_exception(ConnectionLost(reason))

    async def close(self) -> None:
        """Send what is queued, then leave; the scheduler drops this client's futures."""
        if self._channel is not None and not self.closed:
            self._flush()
            await self._channel.close()
        self.closed = True
        self._make_room()
        for channel in self._workers.values():
            channel.abort()
        if self._callbacks is not None:
            self._callbacks.shutdown(wait=False)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    # --- to the scheduler -------------------------------------------------------------------------

    def post(self, message: Any) -> None:
        """Queue a message; consecutive submissions leave as one."""
        self._outbox.append(message)
        self._wake()

    def post_tasks(self, functions: list[Any], tasks: list[Any]) -> None:
        """Queue new functions and tasks; called under the cells' lock, so that their order is that of their numbers."""
        for task in tasks:
            self._posted_bytes += payload_bytes(task[3]) + TASK_BYTES
        last = self._outbox[-1] if self._outbox else None
        if type(last) is messages.Submission and len(last.tasks) + len(tasks) <= CHUNK_TASKS:
            last.functions.extend(functions)
            last.tasks.extend(tasks)
        else:
            self._outbox.append(messages.Submission(functions, tasks))
        self._wake()

    def has_function(self, digest: bytes) -> bool:
        """Tell whether this function is on its way to the scheduler, or there."""
        return digest in self._functions

    def needs_function(self, digest: bytes) -> bool:
        """Tell, once, that the scheduler does not have this function yet; called under the cells' lock."""
        if digest in self._functions:
            return False
        self._functions[digest] = None
        return True

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
            # The list stays the same one: another thread may be about to append to it.
            outbox = self._outbox[:]
            del self._outbox[: len(outbox)]
        for cell in missed:
            # Somebody waits for what another thread released: there will be no more news of it.
            cell.reason = ("TaskCancelled", "its last future was released", None)
            self.cells.finish(cell, states.CANCELLED)
        channel = self._channel
        for message in self.window.take(outbox):
            channel.send(message)
            if _weight(message) >= CHUNK_TASKS // 2:
                # A packet of its own: the scheduler opens each in one go, and others wait meanwhile.
                channel.stream.flush()
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
        for start in range(0, len(gone), CHUNK_TASKS):
            self._outbox.append(messages.Release(gone[start : start + CHUNK_TASKS]))

    # --- from the scheduler -----------------------------------------------------------------------

    def _hear(self, batch: list[Any]) -> None:
        cells = self.cells
        window = self.window
        for message in batch:
            kind = type(message)
            if kind is messages.Notice:
                self._notice(message)
                continue
            if kind is not messages.Pending:
                window.done(message.number)
            cell = cells.by_number.get(message.number)
            if kind is messages.Placement:
                waiter = self._placements.get(message.number)
                if waiter is not None and not waiter.done():
                    waiter.set_result((message.task, message.address))
            elif cell is None:
                continue
            elif kind is messages.Finished:
                cell.payload = message.payload
                cell.nbytes = message.nbytes
                cells.finish(cell, states.FINISHED)
            elif kind is messages.Failed:
                cell.reason = (message.kind, message.text, message.payload)
                cells.finish(cell, states.ERROR)
                self._fail_placement(message)
            elif kind is messages.Pending:
                cells.reopen(cell)
            elif kind is messages.Cancelled:
                cell.reason = ("TaskCancelled", message.reason, None)
                cells.finish(cell, states.CANCELLED)
        if window.blocked:
            self._wake()

    def _notice(self, message: messages.Notice) -> None:
        for handle in self.listeners.get(message.topic, ()):
            try:
                handle(message)
            except Exception:
                logger.exception("what listens to %s failed", message.topic)

    def _fail_placement(self, message: messages.Failed) -> None:
        waiter = self._placements.get(message.number)
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(message.text))

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
        if self._channel is None or self.closed:
            raise ConnectionLost("the connection to the scheduler is closed")
        self._flush()
        if self.window.blocked and op == "coordinate" and arguments and (arguments.get("value") or ((), ()))[1]:
            # The scheduler is about to be told of futures: it must know them.
            await self.caught_up()
        return await self._channel.call(op, arguments)

    # --- waiting ----------------------------------------------------------------------------------

    async def settled(self, cells: Iterable[Cell]) -> None:
        """Return when none of `cells` is pending."""
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

    # --- data -------------------------------------------------------------------------------------

    async def fetch(self, cells: list[Cell]) -> dict[int, Payload | NotSerializable]:
        """Return the payloads of finished cells by number, from wherever they are; wait for what is computed again.

        In place of a result that cannot leave its worker stands the exception that says so.

        Raises
        ------
        ConnectionLost
            No worker gives a result after many tries.
        """
        got: dict[int, Payload | NotSerializable] = {}
        for attempt in range(GATHER_TRIES):
            missing = [cell for cell in cells if cell.number not in got and cell.status == states.FINISHED]
            for cell in missing:
                if cell.payload is not None:
                    got[cell.number] = cell.payload
            missing = [cell for cell in missing if cell.number not in got]
            if not missing:
                return got
            if attempt:
                await asyncio.sleep(0.01 * 2 ** min(attempt, 6))
            located = await self.call("holders", {"numbers": [cell.number for cell in missing]})
            by_address: dict[str, dict[int, int]] = {}
            for number, task, addresses in located:
                by_address.setdefault(addresses[number % len(addresses)], {})[task] = number
            sizes = {cell.number: cell.nbytes for cell in missing}
            await asyncio.gather(*(self._fetch_parts(each, tasks, sizes, got) for each, tasks in by_address.items()))
            await self.settled(cells)
        raise ConnectionLost("workers hold results that they do not give; look at the workers' log")

    async def _fetch_parts(
        self, address: str, tasks: dict[int, int], sizes: dict[int, int], got: dict[int, Any]
    ) -> None:
        """Ask one worker for its results, in requests whose answers stay of a handy size."""
        part: dict[int, int] = {}
        nbytes = 0
        for task, number in tasks.items():
            if part and (len(part) == FETCH_TASKS or nbytes + sizes[number] > FETCH_BYTES):
                await self._fetch_from(address, part, got)
                part, nbytes = {}, 0
            part[task] = number
            nbytes += sizes[number]
        await self._fetch_from(address, part, got)

    async def _fetch_from(self, address: str, tasks: dict[int, int], got: dict[int, Any]) -> None:
        try:
            found = await self.ask_worker(address, "get_data", {"tasks": list(tasks)})
        except (EngineError, OSError, TimeoutError) as error:
            logger.info("worker %s did not give its data: %s", address, error)
            return
        for task, frames, text in found:
            if text is not None:
                got[tasks.pop(task)] = NotSerializable(text)
            else:
                got[tasks.pop(task)] = frames
        if tasks:
            self.post(messages.Complaint([[number, address] for number in tasks.values()]))

    async def ask_worker(self, address: str, op: str, arguments: dict[str, Any]) -> Any:
        """Call a worker: straight, or through the scheduler."""
        if self.direct is not False and address not in self._unreachable:
            try:
                # One at a time, so that the calls of an actor leave in their order, also while a connection is made.
                async with self._worker_turns.setdefault(address, asyncio.Lock()):
                    channel = self._workers.get(address)
                    if channel is None or channel.stream.closed:
                        channel, _ = await open_channel(parse_address(address), self.credential, "rpc", timeout_s=5.0)
                        channel.read_replies()
                        self._workers[address] = channel
                    answer = channel.begin(op, arguments)
                return await answer
            except ConnectError:
                if self.direct:
                    raise
                self._unreachable[address] = None
        return await self.call("relay", {"address": address, "op": op, "arguments": arguments})

    async def scatter(self, items: list[tuple[Cell, Payload, int]], workers: list[str] | None = None) -> None:
        """Bring data, (cell, frames, bytes) each, to the workers that the scheduler names.

        Raises
        ------
        ConnectionLost
            There is no worker, or one died before it had its part.
        """
        loop = asyncio.get_running_loop()
        for cell, _, _ in items:
            self._placements[cell.number] = loop.create_future()
        self.post(messages.Scattering([[cell.number, cell.key, nbytes] for cell, _, nbytes in items], workers))
        try:
            by_address: dict[str, list[Any]] = {}
            for cell, frames, _ in items:
                waiter = self._placements[cell.number]
                # A key that exists already gets no placement: its data is there.
                settled = asyncio.ensure_future(self.settled([cell]))
                either: list[asyncio.Future[Any]] = [waiter, settled]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                settled.cancel()
                if waiter.done():
                    task, address = waiter.result()
                    by_address.setdefault(address, []).append([task, frames])
            puts = [self.ask_worker(each, "put_data", {"items": part}) for each, part in by_address.items()]
            await asyncio.gather(*puts)
        except RemoteError as error:
            raise ConnectionLost(f"a worker did not take its part of the scattered data: {error}") from error
        finally:
            for cell, _, _ in items:
                self._placements.pop(cell.number).cancel()


def _weight(message: Any) -> int:
    kind = type(message)
    if kind is messages.Submission:
        return len(message.tasks)
    return len(message.numbers) if kind is messages.Release else 1


def _warn(notice: messages.Notice) -> None:
    logger.warning("%s", notice.text)
