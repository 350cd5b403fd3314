"""Data of a client on the workers."""

from __future__ import annotations

from typing import Any

from distributed_core.client import cells as states
from distributed_core.client.connected import Connected
from distributed_core.client.future import Future, future_of
from distributed_core.protocol import payload as payloads


class DataCalls(Connected):
    """What a client does with data on the workers."""

    def scatter(self, data: Any) -> Any:
        """Bring data to the workers.

        Parameters
        ----------
        data
            A list, tuple or set gives a list of futures, a dict a dict with the same keys, anything else one future.

        Raises
        ------
        NotSerializable, ConnectionLost
            The data cannot be sent; there is no worker to take it.
        """
        self._check_open()
        return self._answer(self._scatter(data))

    async def _scatter(self, data: Any) -> Any:
        if isinstance(data, dict):
            futures = await self._scatter_all(list(data.values()), [str(key) for key in data])
            return dict(zip(data, futures, strict=True))
        if isinstance(data, (list, tuple, set)):
            return await self._scatter_all(list(data), [None] * len(data))
        return (await self._scatter_all([data], [None]))[0]

    async def _scatter_all(self, values: list[Any], keys: list[str | None]) -> list[Future]:
        if not values:
            return []
        dumped = [payloads.dumps(value) for value in values]
        items = []
        futures = []
        cells = self._session.cells
        with cells.lock:
            for value, frames, key in zip(values, dumped, keys, strict=True):
                cell = cells.new(type(value).__name__, key)
                cell.refs = 1
                futures.append(future_of(self, cell))
                items.append((cell, frames, payloads.sizeof(value)))
        await self._session.scatter(items)
        await self._session.settled([cell for cell, _, _ in items])
        for future in futures:
            if future.status != states.FINISHED:
                raise future._cell.exception()
        return futures
