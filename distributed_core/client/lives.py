"""What a client does with the life of the cluster: restarts, and its end."""

from __future__ import annotations

import warnings
from typing import Any

from distributed_core.client.asking import Asking, names_of
from distributed_core.errors import ConnectionLost, NotEnoughWorkers, UsageError

RESTART_TIMEOUT_S = 120.0


class LifeCalls(Asking):
    """What a client does with the life of the cluster."""

    def restart(self, timeout: float | None = RESTART_TIMEOUT_S, wait_for_workers: bool = True) -> Any:
        """Cancel all futures of all clients and start all worker processes anew.

        Workers without a nanny have nobody to start them: they are closed, and a warning says so.

        Parameters
        ----------
        timeout
            Seconds until all workers are to be back.
        wait_for_workers
            Return when they are, instead of at once.

        Raises
        ------
        NotEnoughWorkers
            They were not back in time.
        """
        return self._answer(self._restart(_seconds(timeout), wait_for_workers))

    async def _restart(self, timeout: float | None, wait: bool) -> None:
        outcome = await self._ask("restart", timeout=timeout, wait_for_workers=wait)
        closed = [address for address, text in outcome.items() if text == "closed"]
        if closed:
            text = f"{len(closed)} workers have no nanny and were closed instead of restarted: {', '.join(closed)}"
            warnings.warn(text, stacklevel=2)

    def restart_workers(
        self, workers: Any, timeout: float | None = RESTART_TIMEOUT_S, raise_for_error: bool = True
    ) -> Any:
        """Start the processes of some workers anew; what they ran is run again elsewhere.

        Parameters
        ----------
        workers
            Names or addresses.
        timeout
            Seconds until each is to be back.
        raise_for_error
            Raise where one is not, instead of saying so in what is returned.

        Returns
        -------
        dict
            By address as it was: `OK`, `timed out`, or what went wrong.

        Raises
        ------
        UsageError
            A worker is not there, or has no nanny.
        NotEnoughWorkers
            One did not come back in time.
        """
        return self._answer(self._restart_workers(names_of(workers), _seconds(timeout), raise_for_error))

    async def _restart_workers(self, names: list[str], timeout: float | None, strict: bool) -> dict[str, str]:
        outcome: dict[str, str] = await self._ask("restart_workers", workers=names, timeout=timeout)
        late = {address: text for address, text in outcome.items() if text != "OK"}
        if late and strict:
            first, text = next(iter(late.items()))
            raise NotEnoughWorkers(f"{len(late)} of {len(outcome)} workers did not come back: {first}: {text}")
        return outcome

    def shutdown(self) -> Any:
        """End all workers and the scheduler, and close this client."""
        if self.asynchronous:
            return self._shutdown_and_close()
        self._answer(self._shutdown())
        self.close()
        return None

    async def _shutdown(self) -> None:
        try:
            await self._ask("shutdown")
        except ConnectionLost:
            pass  # it was faster than its answer

    async def _shutdown_and_close(self) -> None:
        await self._shutdown()
        await self.close()


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and (type(timeout) not in (int, float) or not timeout > 0):
        raise UsageError(f"timeout is a number of seconds above 0, or None, not {timeout!r:.40}")
    return timeout
