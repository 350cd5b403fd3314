"""Data between workers, and between workers and clients: what a worker fetches, gives and is given."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.context import context
from distributed_core.errors import ConnectionLost, EngineError, NotSerializable, RemoteError, UsageError
from distributed_core.machines.worker import events
from distributed_core.machines.worker.instructions import Fetch
from distributed_core.machines.worker.replicas import Lane
from distributed_core.protocol import payload as payloads
from distributed_core.servers.executor import Unsendable
from distributed_core.servers.spilling import Spilled

if TYPE_CHECKING:
    from distributed_core.servers.worker import Worker

logger = logging.getLogger(__name__)

#: Data above this size is serialized in a thread, so that heartbeats and small transfers go on.
SERIALIZE_ASIDE_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10.0


class Transfers:
    """The transfers of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        #: Two connections to a peer that is asked for large and for small data.
        self._peers: dict[Lane, Channel] = {}
        self._turns: dict[Lane, asyncio.Lock] = {}
        self.handlers = {"get_data": self._handle_get_data, "put_data": self._handle_put_data}

    def close(self) -> None:
        """Close the connections to other workers."""
        for channel in self._peers.values():
            channel.abort()

    async def fetch(self, asked: Fetch, registration: int) -> None:
        """Fetch the data of these tasks from another worker, and tell the machine what came of it."""
        worker = self._worker
        address, tasks, small = asked.address, asked.tasks, asked.small
        event: events.WorkerEvent
        try:
            found = _checked(await self._ask_peer((address, small), tasks), tasks)
        except (EngineError, OSError, TimeoutError, TypeError, ValueError) as error:
            logger.info("%s could not fetch from %s: %s", worker.id, address, error)
            event = events.PeerUnreachable(address, tasks, small)
        else:
            arrived = []
            found.reverse()
            while found:
                # What was opened is let go at once: a value that had to be copied out of its frames is not there twice.
                task, frames, text = found.pop()
                value = Unsendable(text) if text is not None else self._open(frames)
                del frames
                if registration == worker.registration:
                    nbytes = payloads.sizeof(value)
                    if task not in worker.data:
                        worker.data.keep(task, value, nbytes)
                    arrived.append((task, nbytes))
            got = {task for task, _ in arrived}
            event = events.DataFetched(address, arrived, [task for task in tasks if task not in got], small)
        if registration == worker.registration:
            worker.feed(event)
            worker.memory.noted()

    async def _ask_peer(self, lane: Lane, tasks: list[int]) -> list[Any]:
        """Ask over the kept connection; once more over a new one if that had broken meanwhile."""
        silence_max_s = self._worker.settings.transfer_silence_max_s
        channel = self._peers.get(lane)
        if channel is not None and not channel.stream.closed:
            try:
                return list(await channel.call("get_data", {"tasks": tasks}, silence_max_s=silence_max_s))
            except ConnectionLost:
                logger.debug("%s: the kept connection to %s had broken", self._worker.id, lane[0])
        channel = await self._connect(lane)
        return list(await channel.call("get_data", {"tasks": tasks}, silence_max_s=silence_max_s))

    async def _connect(self, lane: Lane) -> Channel:
        """Return the connection to another worker; those that want it at once make one, not one each."""
        try:
            async with self._turns.setdefault(lane, asyncio.Lock()):
                channel = self._peers.get(lane)
                if channel is None or channel.stream.closed:
                    channel, _ = await open_channel(
                        parse_address(lane[0]),
                        self._worker.credential,
                        "rpc",
                        timeout_s=min(CONNECT_TIMEOUT_S, self._worker.settings.transfer_silence_max_s),
                    )
                    channel.stream.place_large(self._worker.memory.place)
                    channel.read_replies()
                    self._peers[lane] = channel
                return channel
        finally:
            self._turns.pop(lane, None)

    def _open(self, frames: list[Any]) -> Any:
        # Futures inside find their client by the worker.
        context.worker = self._worker
        try:
            return payloads.loads(frames)
        except Exception as error:
            where = self._worker.address
            return Unsendable(f"an input could not be opened on worker {where}: {type(error).__name__}: {error}")
        finally:
            context.worker = None

    async def _handle_get_data(self, tasks: list[int]) -> list[Any]:
        """Return `[task, frames, None]`, or `[task, None, sentence]` where the data cannot be serialized."""
        data = self._worker.data
        found: list[Any] = []
        for task in tasks:
            if task not in data:
                continue
            value = data[task]
            try:
                if type(value) is Spilled:
                    # The file goes to the socket as it is; nothing is opened here.
                    frames = await asyncio.to_thread(value.frames)
                elif payloads.sizeof(value) > SERIALIZE_ASIDE_BYTES:
                    frames = await asyncio.to_thread(payloads.dumps, value)
                else:
                    frames = payloads.dumps(value)
                found.append([task, frames, None])
            except NotSerializable as error:
                found.append([task, None, str(error)])
            except OSError as error:
                logger.warning("%s: a result that was on disk is lost: %s", self._worker.id, error)
        return found

    async def _handle_put_data(self, items: list[Any]) -> int:
        """Keep `[task, frames]` that a client scattered; return how many."""
        worker = self._worker
        if worker.scheduler is None:
            raise RemoteError("this worker is not registered at a scheduler")
        if not all(type(item) is list and len(item) == 2 and type(item[0]) is int for item in items):
            raise UsageError("put_data takes [task, frames] each")
        kept = []
        items.reverse()
        while items:
            task, frames = items.pop()
            value = self._open(frames)
            del frames
            nbytes = payloads.sizeof(value)
            worker.data.keep(task, value, nbytes)
            kept.append((task, nbytes))
        worker.feed(events.DataPut(kept))
        worker.memory.noted()
        return len(kept)


def _checked(found: list[Any], tasks: list[int]) -> list[Any]:
    """Return what a peer gave, `[task, frames, sentence]` each; a ValueError where it was not asked for that."""
    wanted = dict.fromkeys(tasks)
    for task, _, text in found:
        if task not in wanted or not (text is None or type(text) is str):
            raise ValueError("the peer gave something else than it was asked for")
    return found
