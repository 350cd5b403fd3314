"""What a client asks of the cluster as a whole."""

from __future__ import annotations

from typing import Any

from distributed_core.client.connected import Connected
from distributed_core.errors import NotEnoughWorkers, RemoteError


class ClusterCalls(Connected):
    """What a client asks of the cluster as a whole."""

    def wait_for_workers(self, n: int, timeout: float | None = None) -> Any:
        """Wait until at least `n` workers are registered.

        Raises
        ------
        NotEnoughWorkers
            They were not after `timeout` seconds.
        """
        return self._answer(self._wait_for_workers(n, timeout))

    async def _wait_for_workers(self, n: int, timeout: float | None) -> None:
        try:
            await self._session.call("wait_for_workers", {"n": n, "timeout": timeout})
        except RemoteError as error:
            if str(error).startswith("NotEnoughWorkers: "):
                raise NotEnoughWorkers(str(error).partition(": ")[2]) from None
            raise

    def scheduler_info(self) -> Any:
        """Return what the scheduler is and its workers by address, as plain data."""
        return self._answer(self._session.call("identity"))
