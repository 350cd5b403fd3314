"""The life of workers: deaths, restarts, and the end of the whole cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.errors import EngineError, NotEnoughWorkers, UsageError
from distributed_core.machines.scheduler import events
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Ready
from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.operations import chosen_workers

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

logger = logging.getLogger(__name__)

DEATHS_MAX = 1000
IDLE_CHECKS = 10
"""How often within the idle timeout it is looked whether the cluster is idle."""
END_TIMEOUT_S = 5.0


class Life(Extension):
    """Ends and begins of worker processes, and the cluster's own end."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {
            "worker_died": self._handle_worker_died,
            "restart": self._handle_restart,
            "restart_workers": self._handle_restart_workers,
            "shutdown": self._handle_shutdown,
        }

    def joined(self, peer: int, role: str) -> None:
        # A cluster that comes up is not idle.
        self.scheduler.last_activity = self.scheduler.loop.time()

    # --- deaths -----------------------------------------------------------------------------------

    async def _handle_worker_died(
        self,
        address: str,
        pid: int,
        exit_code: int,
        memory_bytes: int = 0,
        reason: str = "",
        **context: Any,
    ) -> str:
        """A nanny tells that its worker process ended, and not on purpose."""
        deaths = self.scheduler.deaths
        deaths.pop(address, None)
        deaths[address] = {"pid": pid, "exit_code": exit_code, "memory_bytes": memory_bytes, "reason": reason}
        while len(deaths) > DEATHS_MAX:
            del deaths[next(iter(deaths))]
        waiters, self.scheduler.death_waiters = self.scheduler.death_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        text = f"the worker process {pid} at {address} ended with {exit_code}{': ' if reason else ''}{reason}"
        logger.info("%s: %s", self.scheduler.id, text)
        return "OK"

    # --- restarts ---------------------------------------------------------------------------------

    async def _handle_restart(
        self, timeout: float | None = None, wait_for_workers: bool = True, **context: Any
    ) -> dict[str, Any]:
        """Cancel all futures of all clients, then start all worker processes anew; return what became of each."""
        ledger = self.scheduler.machine.ledger
        for client in list(ledger.clients.values()):
            self.scheduler.feed(
                events.Received(
                    client.id, [messages.Cancellation(list(client.tasks), True, "the cluster was restarted")]
                )
            )
        for extension in self.scheduler.extensions:
            extension.restarted()
        outcome = await self._restart(list(ledger.workers.values()), timeout, wait_for_workers, close_others=True)
        late = [address for address, text in outcome.items() if text not in ("OK", "closed")]
        if late and wait_for_workers:
            text = f"{len(late)} of {len(outcome)} workers did not come back: {late[0]}: {outcome[late[0]]}"
            raise NotEnoughWorkers(text)
        return outcome

    async def _handle_restart_workers(
        self, workers: list[str], timeout: float | None = None, **context: Any
    ) -> dict[str, Any]:
        """Start some worker processes anew; return what became of each."""
        chosen = chosen_workers(self.scheduler, workers)
        alone = [worker.name for worker in chosen if not worker.details.get("nanny")]
        if alone:
            raise UsageError(f"workers without a nanny cannot be restarted: {', '.join(alone)}; leave them out")
        return await self._restart(chosen, timeout, True, close_others=False)

    async def _restart(
        self, workers: list[WorkerPeer], timeout: float | None, wait: bool, *, close_others: bool
    ) -> dict[str, str]:
        async def restart(worker: WorkerPeer) -> str:
            nanny = worker.details.get("nanny")
            # What runs there is not to blame for the end of its process.
            self.scheduler.feed(events.Received(worker.id, [messages.Sacrifice("it is restarted")]))
            try:
                if not nanny:
                    await asyncio.wait_for(self.scheduler.call_server(worker.address, "terminate"), END_TIMEOUT_S)
                    return "closed"
                arguments = {"timeout": timeout, "wait": wait}
                await asyncio.wait_for(self.scheduler.call_server(nanny, "restart", arguments), timeout)
                return "OK"
            except TimeoutError:
                return "timed out"
            except (EngineError, OSError) as error:
                return str(error) or type(error).__name__

        outcomes = await asyncio.gather(*(restart(worker) for worker in workers))
        return {worker.address: outcome for worker, outcome in zip(workers, outcomes, strict=True)}

    # --- the end ----------------------------------------------------------------------------------

    async def _handle_shutdown(self, **context: Any) -> str:
        """End all workers, with their nannies, then the scheduler."""
        await self.end_workers()
        asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(self.scheduler.close()))
        return "OK"

    async def end_workers(self) -> None:
        """End all workers and wait, within a time limit, until they have left."""

        async def end(worker: WorkerPeer) -> None:
            try:
                await asyncio.wait_for(self.scheduler.call_server(worker.address, "terminate"), END_TIMEOUT_S)
            except (EngineError, OSError, TimeoutError) as error:
                logger.warning("%s: the worker at %s did not end: %s", self.scheduler.id, worker.address, error)

        workers = self.scheduler.machine.ledger.workers
        await asyncio.gather(*(end(worker) for worker in list(workers.values())))
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                while workers:
                    await self.scheduler.workers_changed()
        except TimeoutError:
            logger.warning("%s: %d workers did not leave", self.scheduler.id, len(workers))

    def started(self) -> None:
        if self.scheduler.idle_timeout_s:
            self.scheduler.last_activity = self.scheduler.loop.time()
            self._check_later()

    def _check_later(self) -> None:
        loop, interval_s = self.scheduler.loop, self.scheduler.idle_timeout_s / IDLE_CHECKS
        loop.call_later(interval_s, self._check_idle, loop.time() + interval_s)

    def _check_idle(self, due: float) -> None:
        scheduler = self.scheduler
        if scheduler.exit_code is not None:
            return
        now = scheduler.loop.time()
        if now - due > scheduler.idle_timeout_s / IDLE_CHECKS:
            # The scheduler itself stood still: what was sent to it meanwhile is not read yet.
            scheduler.last_activity = min(now, scheduler.last_activity + now - due)
        if self.busy():
            scheduler.last_activity = now
        if now - scheduler.last_activity < scheduler.idle_timeout_s:
            self._check_later()
            return
        scheduler.farewell = f"no task and no client's call for {scheduler.idle_timeout_s:g} s: the cluster ends"
        logger.warning("%s: %s", scheduler.id, scheduler.farewell)
        scheduler.background(self._end())

    async def _end(self) -> None:
        await self.end_workers()
        await self.scheduler.close()

    def busy(self) -> bool:
        """Tell whether a task runs, or waits for a worker."""
        ledger = self.scheduler.machine.ledger
        if any(worker.assigned or worker.arriving for worker in ledger.workers.values()):
            return True
        # Whatever waits for a worker is ready, or waits for something that is.
        return any(type(task.state) is Ready for task in ledger.tasks.values())
