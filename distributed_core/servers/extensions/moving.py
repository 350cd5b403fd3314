"""Data that is copied, spread, or taken off workers that retire; `machines/scheduler/copying.py` decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.errors import UsageError
from distributed_core.machines.scheduler import copying, events
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Held, Task
from distributed_core.servers.extensions.base import Extension

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

#: How long the scheduler's news are gathered before a waiting request looks at them again.
LOOK_AGAIN_S = 0.02
#: Copies that fail are tried so often.
TRIES_MAX = 20


class Moving(Extension):
    """`replicate`, `rebalance` and `retire_workers`."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {
            "replicate": self._replicate,
            "rebalance": self._rebalance,
            "retire_workers": self._retire_workers,
        }

    # --- what a request means ---------------------------------------------------------------------

    def _tasks(self, peer: int, numbers: Sequence[int]) -> list[Task]:
        client = self.scheduler.machine.ledger.clients.get(peer)
        if client is None:
            raise UsageError("only a client can name its futures")
        return [client.tasks[number] for number in numbers if number in client.tasks]

    def _workers(self, names: Sequence[str] | None) -> list[WorkerPeer]:
        workers = list(self.scheduler.machine.ledger.workers.values())
        if names is None:
            return workers
        wanted = frozenset(map(str, names))
        found = [worker for worker in workers if worker.answers_to(wanted)]
        missing = [name for name in wanted if not any(worker.answers_to(frozenset([name])) for worker in found)]
        if missing:
            raise UsageError(f"no worker called {', '.join(sorted(missing))} is registered")
        return found

    async def _until(self, done: Callable[[], bool]) -> None:
        """Return when `done` is true, which is looked at whenever something has changed."""
        while not done():
            await self.scheduler.changed()
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _copy(self, pairs: list[tuple[Task, WorkerPeer]]) -> None:
        """Copy, and try again what failed, until each worker has its data, or one of both is gone."""
        workers = self.scheduler.machine.ledger.workers
        for _ in range(TRIES_MAX):
            pairs = [
                (task, worker)
                for task, worker in pairs
                if worker.id in workers and type(task.state) is Held and worker not in task.state.workers
            ]
            if not pairs:
                return
            self.scheduler.feed(events.CopiesWanted([(task.id, worker.id) for task, worker in pairs]))
            await self._until(partial(_arrived, pairs))

    # --- handlers ---------------------------------------------------------------------------------

    async def _replicate(
        self, numbers: list[int], n: int | None = None, workers: list[str] | None = None, peer: int = 0
    ) -> None:
        """Copy the data of these futures, so that `n` of the workers (None: each) hold it."""
        chosen = self._workers(workers)
        if n is not None and not n >= 1:
            raise UsageError(f"there is no data with {n} copies; n is 1 or more")
        ledger = self.scheduler.machine.ledger
        tasks = self._tasks(peer, numbers)
        await self._copy(copying.plan_replicas(ledger, tasks, n, chosen))
        # More copies than were asked for go.
        surplus = [
            (task.id, worker.id)
            for task in tasks
            if n is not None and type(task.state) is Held
            for worker in [each for each in task.state.workers if each in chosen][n:]
        ]
        if surplus:
            self.scheduler.feed(events.ReplicasUnwanted(surplus))

    async def _rebalance(
        self, numbers: list[int] | None = None, workers: list[str] | None = None, peer: int = 0
    ) -> dict[str, int]:
        """Spread data evenly by bytes; return how many pieces moved."""
        ledger = self.scheduler.machine.ledger
        tasks = None if numbers is None else self._tasks(peer, numbers)
        moves = copying.plan_balance(ledger, tasks, [each for each in self._workers(workers) if not each.retiring])
        await self._copy([(task, target) for task, _, target in moves])
        self.scheduler.feed(events.ReplicasUnwanted([(task.id, source.id) for task, source, _ in moves]))
        return {"moved": len(moves)}

    async def _retire_workers(
        self,
        workers: list[str] | None = None,
        n: int | None = None,
        close: bool = True,
        **context: Any,
    ) -> dict[str, dict[str, Any]]:
        """Let workers leave without losing data: these, or the `n` idlest; return what they were, by address."""
        chosen = self._workers(workers)
        if n is not None and n < 0:
            raise UsageError(f"{n} workers cannot retire; n is 0 or more")
        if workers is None and n is not None:
            chosen = sorted(chosen, key=lambda each: (each.active, each.nbytes))[:n]
        details = self.scheduler.machine.worker_details()
        progress = {worker.id: "" for worker in chosen}
        self.scheduler.feed(events.RetirementWanted(list(progress)))

        def advanced() -> bool:
            self.scheduler.feed(events.RetirementPursued(progress))
            return not any(each in ("running", "copying") for each in progress.values())

        try:
            await self._until(advanced)
        except asyncio.CancelledError:
            self.scheduler.feed(events.RetirementEnded(list(progress)))
            raise
        stuck = {peer: reason for peer, reason in progress.items() if reason not in ("done", "gone")}
        if stuck:
            self.scheduler.feed(events.RetirementEnded(list(progress)))
            worker = self.scheduler.machine.ledger.workers[next(iter(stuck))]
            raise UsageError(f"worker {worker.address} cannot retire: {stuck[worker.id]}")
        if close:
            for worker in chosen:
                self.scheduler.send(worker.id, messages.Dismissal("it was retired"))
            present = self.scheduler.machine.ledger.workers
            await self._until(lambda: not any(worker.id in present for worker in chosen))
        return {worker.address: details[worker.address] for worker in chosen}


def _arrived(pairs: list[tuple[Task, WorkerPeer]]) -> bool:
    """Tell whether none of these copies is under way any more."""
    return not any(task.id in worker.copying for task, worker in pairs)
