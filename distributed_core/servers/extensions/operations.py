"""Calls of many workers or nannies at once; what they carry of the user's passes through unopened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed_core.errors import EngineError, UsageError
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.servers.extensions.base import Extension

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

SPREAD = ("call_stack", "logs", "ping", "run", "versions")
"""What a client may ask of many workers through the scheduler."""


def chosen_workers(scheduler: Scheduler, workers: list[str] | None) -> list[WorkerPeer]:
    """Return the workers of these addresses or names, or all of them.

    Raises
    ------
    UsageError
        One of them is not there, or the list is empty.
    """
    there = list(scheduler.machine.ledger.workers.values())
    if workers is None:
        return there
    if not workers:
        raise UsageError("workers is empty; name at least one, or leave it out for all")
    by_name = {worker.name: worker for worker in there} | {worker.address: worker for worker in there}
    unknown = [str(each) for each in workers if each not in by_name]
    if unknown:
        known = ", ".join(worker.name for worker in there[:10]) or "none"
        raise UsageError(f"no worker is named {', '.join(unknown)}; there are {known}{', ...' * (len(there) > 10)}")
    return list({by_name[each].id: by_name[each] for each in workers}.values())


class Operations(Extension):
    """One call, many workers."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self._addresses: dict[int, list[str]] = {}
        self.handlers = {"broadcast": self._handle_broadcast}

    def joined(self, peer: int, role: str) -> None:
        worker = self.scheduler.machine.ledger.workers.get(peer)
        if worker is not None:
            self._addresses[peer] = [worker.address]

    def left(self, peer: int, role: str) -> None:
        # A call under way at a worker that is gone must not wait for its answer.
        for address in self._addresses.pop(peer, ()):
            self.scheduler.hang_up(address)

    async def _handle_broadcast(
        self,
        op: str,
        arguments: dict[str, Any] | None = None,
        workers: list[str] | None = None,
        nanny: bool = False,
        **context: Any,
    ) -> dict[str, Any]:
        """Return, by worker address, `[True, value]` or `[False, sentence]`."""
        if op not in SPREAD:
            raise UsageError(f"{op!r:.40} is nothing that all workers do; there is {', '.join(SPREAD)}")
        return await self.call_each(chosen_workers(self.scheduler, workers), op, arguments, nanny)

    async def call_each(
        self, workers: list[WorkerPeer], op: str, arguments: dict[str, Any] | None = None, nanny: bool = False
    ) -> dict[str, Any]:
        """Call a handler of each of these workers, or of their nannies, at the same time."""

        async def call(worker: WorkerPeer) -> list[Any]:
            address = worker.details.get("nanny") if nanny else worker.address
            if not address:
                return [False, f"the worker {worker.address} has no nanny; start it without --no-nanny"]
            try:
                return [True, await self.scheduler.call_server(address, op, arguments)]
            except (EngineError, OSError, TimeoutError) as error:
                return [False, f"{worker.address} did not answer: {error}"]

        answers = await asyncio.gather(*(call(worker) for worker in workers))
        return {worker.address: answer for worker, answer in zip(workers, answers, strict=True)}
