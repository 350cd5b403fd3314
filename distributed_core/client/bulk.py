"""Bulk data between a client and the workers: results that are fetched, values that are scattered."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.client import cells as states
from distributed_core.client.cells import Cell
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import ConnectError, ConnectionLost, EngineError, NotSerializable, RemoteError
from distributed_core.messages import Payload
from distributed_core.settings import TRANSFER_SILENCE_MAX_S

if TYPE_CHECKING:
    from distributed_core.client.session import Session

logger = logging.getLogger(__name__)

#: One request for results asks a worker for at most so many, and so many bytes.
FETCH_TASKS = 1000
FETCH_BYTES = 64 << 20
SMALL_BYTES = 64 << 10
#: How often a gather asks again for data whose holders did not give it.
GATHER_TRIES = 20
#: What every worker should answer soon, and may be asked twice.
DATA = ("get_data", "put_data")


class Bulk:
    """The connections of a session to workers; coroutines run on the session's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._placements: dict[int, asyncio.Future[tuple[int, str]]] = {}
        #: By address, and whether they are for what is small: that does not wait behind what is large.
        self._workers: dict[tuple[str, bool], Channel] = {}
        self._turns: dict[tuple[str, bool], asyncio.Lock] = {}
        self._unreachable: dict[str, None] = {}

    def close(self) -> None:
        """Close the connections to workers."""
        for channel in self._workers.values():
            channel.abort()

    # --- news of the scheduler --------------------------------------------------------------------

    def placed(self, message: messages.Placement) -> None:
        """The scheduler named a worker for scattered data."""
        waiter = self._placements.get(message.number)
        if waiter is not None and not waiter.done():
            waiter.set_result((message.task, message.address))

    def not_placed(self, message: messages.Failed) -> None:
        """There is no worker for scattered data, or it died."""
        waiter = self._placements.get(message.number)
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(message.text))

    def lose(self, reason: str) -> None:
        """No placement comes over a connection that was lost."""
        for waiter in self._placements.values():
            if not waiter.done():
                waiter.set_exception(ConnectionLost(reason))

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
            try:
                located = await self._session.call("holders", {"numbers": [cell.number for cell in missing]})
            except ConnectionLost:
                if self._session.closed:
                    raise
                # It comes back, and may have to compute them again.
                await self._session.returned()
                await self._session.settled(cells)
                continue
            by_address: dict[str, dict[int, int]] = {}
            for number, task, addresses in located:
                by_address.setdefault(addresses[number % len(addresses)], {})[task] = number
            sizes = {cell.number: cell.nbytes for cell in missing}
            await asyncio.gather(*(self._fetch_parts(each, tasks, sizes, got) for each, tasks in by_address.items()))
            await self._session.settled(cells)
        raise ConnectionLost("workers hold results that they do not give; look at the workers' log")

    async def _fetch_parts(
        self, address: str, tasks: dict[int, int], sizes: dict[int, int], got: dict[int, Any]
    ) -> None:
        """Ask one worker for its results, in requests whose answers stay of a handy size."""
        part: dict[int, int] = {}
        nbytes = 0
        for task, number in tasks.items():
            if part and (len(part) == FETCH_TASKS or nbytes + sizes[number] > FETCH_BYTES):
                await self._fetch_from(address, part, nbytes, got)
                part, nbytes = {}, 0
            part[task] = number
            nbytes += sizes[number]
        await self._fetch_from(address, part, nbytes, got)

    async def _fetch_from(self, address: str, tasks: dict[int, int], nbytes: int, got: dict[int, Any]) -> None:
        small = nbytes <= SMALL_BYTES
        try:
            found = await self.ask_worker(address, "get_data", {"tasks": list(tasks)}, small=small)
        except (EngineError, OSError, TimeoutError) as error:
            logger.info("worker %s did not give its data: %s", address, error)
            return
        for task, frames, text in found:
            if text is not None:
                got[tasks.pop(task)] = NotSerializable(text)
            else:
                got[tasks.pop(task)] = frames
        if tasks:
            self._session.post(messages.Complaint([[number, address] for number in tasks.values()]))

    async def ask_worker(self, address: str, op: str, arguments: dict[str, Any], *, small: bool = False) -> Any:
        """Call a worker: straight, over the connection for what is `small` or the other one, or through the scheduler.

        Raises
        ------
        ConnectError, ConnectionLost
            It cannot be reached, or not any more; a worker that is silent is one of these.
        """
        if self._session.direct is not False and address not in self._unreachable:
            try:
                # One at a time, so that the calls of an actor leave in their order, also while a connection is made.
                async with self._turns.setdefault((address, small), asyncio.Lock()):
                    channel = self._workers.get((address, small))
                    if channel is None or channel.stream.closed:
                        channel, _ = await open_channel(
                            parse_address(address), self._session.credential, "rpc", timeout_s=5.0
                        )
                        channel.read_replies()
                        self._workers[address, small] = channel
                    # A method of an actor may keep its process from answering for as long as it likes.
                    silence_max_s = TRANSFER_SILENCE_MAX_S if op in DATA else None
                    answer = channel.begin(op, arguments, silence_max_s=silence_max_s)
                return await answer
            except TimeoutError as error:
                if self._session.direct:
                    raise ConnectionLost(f"a worker is out of reach: {error}") from None
                logger.info("%s; the scheduler is asked for the data there", error)
                self._unreachable[address] = None
            except ConnectError:
                if self._session.direct:
                    raise
                self._unreachable[address] = None
        return await self._session.call("relay", {"address": address, "op": op, "arguments": arguments})

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
        with self._session.cells.lock:
            self._session.post(
                messages.Scattering([[cell.number, cell.key, nbytes] for cell, _, nbytes in items], workers)
            )
        try:
            by_address: dict[str, list[Any]] = {}
            for cell, frames, _ in items:
                waiter = self._placements[cell.number]
                # A key that exists already gets no placement: its data is there.
                settled = asyncio.ensure_future(self._session.settled([cell]))
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
