"""Data of a client on the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from distributed_core.client import cells as states
from distributed_core.client.asking import Asking
from distributed_core.client.future import Future, content_key, flat_futures, future_of
from distributed_core.client.options import worker_names
from distributed_core.protocol import payload as payloads


class DataCalls(Asking):
    """What a client does with data on the workers."""

    def scatter(
        self,
        data: Any,
        workers: str | Iterable[str] | None = None,
        broadcast: bool | int = False,
        direct: bool | None = None,
        hash: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Bring data to the workers.

        Parameters
        ----------
        data
            A list, tuple or set gives a list of futures, a dict a dict with the same keys, anything else one future.
        workers
            Names, addresses or hosts of those that are to take it.
        broadcast
            Copy it to all of them, or to so many.
        direct
            Accepted for the sake of dask's signature; the client's own `direct` decides.
        hash
            Name the data after its content, so that the same data is held once. It costs reading all of it.
        timeout
            Seconds that it may take.

        Raises
        ------
        NotSerializable, ConnectionLost, DataLost
            The data cannot be sent; a worker died over it; there is no worker to take it.
        TimeoutError
            It took longer than `timeout`.
        """
        self._check_open()
        names = None if workers is None else worker_names(workers)
        return self._answer(asyncio.wait_for(self._scatter(data, names, broadcast, hash), timeout))

    async def _scatter(self, data: Any, workers: list[str] | None, broadcast: bool | int, hash: bool) -> Any:
        kind = type(data)
        if isinstance(data, dict):
            keys: list[str | None] = [str(key) for key in data]
            values = list(data.values())
        elif isinstance(data, (list, tuple, set, frozenset)):
            values = list(data)
            keys = [None] * len(values)
        else:
            values, keys = [data], [None]
        futures = await self._scatter_all(values, keys, workers, hash)
        if broadcast and futures:
            n = None if broadcast is True else int(broadcast)
            await self._replicate(futures, n, workers)
        if isinstance(data, dict):
            return dict(zip(data, futures, strict=True))
        if isinstance(data, (list, tuple, set, frozenset)):
            return kind(futures)
        return futures[0]

    def replicate(
        self,
        futures: Any,
        n: int | None = None,
        workers: str | Iterable[str] | None = None,
        branching_factor: int = 2,
    ) -> Any:
        """Copy results to `n` workers, by default to all; surplus copies go.

        Parameters
        ----------
        workers
            Names, addresses or hosts among which to choose.
        branching_factor
            Accepted and ignored: workers fetch from whichever has it.

        Raises
        ------
        UsageError
            There is no such worker.
        """
        self._check_open()
        return self._answer(self._replicate(futures, n, None if workers is None else worker_names(workers)))

    async def _replicate(self, futures: Any, n: int | None, workers: list[str] | None) -> None:
        cells = {future._cell.number: future._cell for future in flat_futures(futures)}
        await self._session.settled(cells.values())
        for cell in cells.values():
            if cell.status != states.FINISHED:
                raise cell.exception()
        await self._ask("replicate", numbers=list(cells), n=n, workers=workers)

    def rebalance(self, futures: Any = None, workers: str | Iterable[str] | None = None) -> Any:
        """Spread results evenly over the workers, by their bytes.

        Parameters
        ----------
        futures
            What may move; by default everything.
        workers
            Names, addresses or hosts among which to spread it.
        """
        self._check_open()
        return self._answer(self._rebalance(futures, None if workers is None else worker_names(workers)))

    async def _rebalance(self, futures: Any, workers: list[str] | None) -> None:
        numbers = None
        if futures is not None:
            cells = {future._cell.number: future._cell for future in flat_futures(futures)}
            await self._session.settled(cells.values())
            numbers = list(cells)
        await self._ask("rebalance", numbers=numbers, workers=workers)

    async def _scatter_all(
        self, values: list[Any], keys: list[str | None], workers: list[str] | None, hash: bool
    ) -> list[Future]:
        if not values:
            return []
        dumped = [payloads.dumps(value) for value in values]
        items = []
        futures = []
        cells = self._session.cells
        with cells.lock:
            for value, frames, key in zip(values, dumped, keys, strict=True):
                if hash and key is None:
                    key = content_key(type(value).__name__, b"", frames, [])
                known = cells.by_key.get(key) if key is not None else None
                if known is not None and known.status in (states.PENDING, states.FINISHED):
                    known.refs += 1
                    futures.append(future_of(self, known))
                    continue
                cell = cells.new(type(value).__name__, key)
                cell.refs = 1
                futures.append(future_of(self, cell))
                items.append((cell, frames, payloads.sizeof(value)))
        await self._session.bulk.scatter(items, workers)
        await self._session.settled([future._cell for future in futures])
        for future in futures:
            if future.status != states.FINISHED:
                raise future._cell.exception()
        return futures
