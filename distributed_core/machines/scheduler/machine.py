"""Events in, instructions out: the scheduler's decisions from outside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from distributed_core import messages
from distributed_core.ids import PeerId
from distributed_core.machines.scheduler import copying, events, placement, recovery, stealing, transitions
from distributed_core.machines.scheduler.checking import Misbehaved
from distributed_core.machines.scheduler.from_client import FROM_CLIENT
from distributed_core.machines.scheduler.from_worker import FROM_WORKER
from distributed_core.machines.scheduler.instructions import (
    Continue,
    Drop,
    SchedulerInstruction,
    Send,
    WatchLiveness,
    WatchRecovery,
)
from distributed_core.machines.scheduler.ledger import KEEPER, VOWS, Ledger
from distributed_core.machines.scheduler.peers import ClientPeer, WorkerPeer
from distributed_core.machines.scheduler.tasks import Assigned, Held, Reason, Task
from distributed_core.settings import SchedulerSettings


class SchedulerMachine:
    """The scheduler as a pure machine.

    Parameters
    ----------
    settings
        Limits and intervals.
    """

    def __init__(self, settings: SchedulerSettings | None = None) -> None:
        self.settings = settings or SchedulerSettings()
        self.ledger = Ledger(self.settings)
        self._watching = False
        self._check_due = 0.0
        self._continuing = False
        self._recovering = False

    # --- the one door -----------------------------------------------------------------------------

    def handle(self, event: events.SchedulerEvent, now: float) -> list[SchedulerInstruction]:
        """Apply what happened at `now` seconds; return what is to be done, in order."""
        ledger = self.ledger
        ledger.now = now
        self._ON_EVENT[type(event)](self, event)
        if VOWS in ledger.outbox:
            self._end_vows()
        ledger.outbox.pop(KEEPER, None)
        if ledger.recovery is None or not recovery.waits(ledger):
            placement.assign_ready(ledger)
            if ledger.crowded:
                stealing.balance(ledger)
        instructions: list[SchedulerInstruction] = []
        for peer, batch in ledger.outbox.items():
            instructions.append(Send(peer, batch))
            worker = ledger.workers.get(peer)
            if worker is not None:
                worker.view.sent += len(batch)
        ledger.outbox = {}
        if ledger.drops:
            instructions.extend(Drop(peer, reason) for peer, reason in ledger.drops.items())
            ledger.drops = {}
        if ledger.workers and not self._watching:
            self._watching = True
            self._check_due = now + self.settings.liveness_interval_s
            instructions.append(WatchLiveness(self.settings.liveness_interval_s))
        if (ledger.leaving or ledger.unsorted) and not self._continuing:
            self._continuing = True
            instructions.append(Continue())
        if ledger.recovery is not None and not self._recovering:
            self._recovering = True
            instructions.append(WatchRecovery(recovery.next_check_s(ledger)))
        return instructions

    def _end_vows(self) -> None:
        """What was to be run to its end has ended: nobody has to hold it for that."""
        ledger = self.ledger
        while news := ledger.outbox.pop(VOWS, None):
            ended = (messages.Finished, messages.Failed, messages.Cancelled)
            transitions.unwant(ledger, ledger.vows, [each.number for each in news if isinstance(each, ended)])

    # --- questions that the servers answer without an event ---------------------------------------

    def worker_details(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each worker, by address."""
        return {
            worker.address: {
                **worker.details,
                "name": worker.name,
                "nthreads": worker.nthreads,
                "assigned": len(worker.assigned),
                "held": len(worker.held),
                "nbytes": worker.nbytes,
                "metrics": worker.metrics,
                "resources": worker.resources,
                "retiring": worker.retiring,
                "memory_limit_bytes": worker.limit_bytes,
                "paused": worker.paused,
                "spilled_bytes": worker.spilled_bytes,
            }
            for worker in self.ledger.workers.values()
        }

    def holders(self, client: PeerId, numbers: list[int]) -> list[list[Any]]:
        """Return `[number, task, addresses]` for those futures of a client whose data is held somewhere."""
        tasks = self.ledger.clients[client].tasks
        found = []
        for number in numbers:
            task = tasks.get(number)
            if task is not None and type(task.state) is Held:
                found.append([number, task.id, [worker.address for worker in task.state.workers]])
        return found

    def verdict_pending(self, worker: PeerId) -> bool:
        """Tell whether the loss of this worker would convict the task that it runs alone."""
        peer = self.ledger.workers.get(worker)
        task = self.ledger.tasks.get(peer.alone) if peer is not None and not peer.blameless else None
        if task is None or task.troubles is None:
            return False
        return task.troubles.alone_deaths >= self.settings.allowed_failures

    def absence_s(self, client: PeerId, *, silent: bool) -> float:
        """Return how long to keep the futures of a client whose connection broke before `ClientLost` is fed.

        Where its machine is `silent` it may sleep; else it is another matter of a moment.
        """
        peer = self.ledger.clients.get(client)
        if peer is None or peer.leaves or not peer.tasks:
            return 0.0
        return self.settings.client_absence_max_s if silent else self.settings.client_return_s

    # --- peers come and go ------------------------------------------------------------------------

    def _on_worker_joined(self, event: events.WorkerJoined) -> None:
        worker = WorkerPeer(event.worker, event.address, event.name, event.nthreads, event.details)
        worker.last_seen = worker.progress_at = self.ledger.now
        worker.space_bytes = worker.limit_bytes * self.settings.memory_withhold_fraction
        self.ledger.limited += worker.limit_bytes > 0
        self.ledger.workers[event.worker] = worker
        if event.returns:
            worker.returning = True
            recovery.begin(self.ledger)
        self.ledger.review(worker)
        recovery.tell_roster(self.ledger)

    def _on_worker_lost(self, event: events.WorkerLost) -> None:
        ledger = self.ledger
        worker = ledger.workers.pop(event.worker, None)
        if worker is None:
            return
        for index in (ledger.open, ledger.crowded, ledger.fresh):
            index.pop(worker.id, None)
        ledger.limited -= worker.limit_bytes > 0
        alone = worker.alone
        places = worker.nthreads
        # Tasks start in the order in which they were assigned. Which of them had started? Those that had a thread, and
        # of short ones as many more as may have ended since the last report: those reports died with the worker.
        unreported_s = (ledger.now - worker.progress_at + self.settings.fill_s) * worker.nthreads
        for task in list(worker.assigned.values()):
            state = task.state
            if type(state) is not Assigned or state.worker is not worker:
                continue  # an earlier one took it along
            started = state.seceded or places > 0 or unreported_s > 0
            places -= not state.seceded
            unreported_s -= state.expected_s
            if started and not worker.blameless and not event.alive:
                self._suspect(task, task.id == alone)
            troubles = task.troubles
            if troubles is not None and (
                troubles.alone_deaths > self.settings.allowed_failures or troubles.deaths > self.settings.allowed_deaths
            ):
                transitions.fail(ledger, task, _killed(task, worker, event))
            else:
                transitions.requeue(ledger, task)
        for task in list(worker.held.values()):
            transitions.lose_replica(ledger, task, worker)
        for task in list(worker.arriving.values()):
            text = f"the worker {worker.address} died before the scattered data reached it; scatter it again"
            transitions.fail(ledger, task, Reason("DataLost", text, None))
        ledger.outbox.pop(worker.id, None)
        recovery.tell_roster(self.ledger)

    def _suspect(self, task: Task, alone: bool) -> None:
        troubles = task.trouble()
        troubles.suspect = True
        troubles.deaths += 1
        if alone:
            troubles.alone_deaths += 1

    def _on_client_joined(self, event: events.ClientJoined) -> None:
        ledger = self.ledger
        client = recovery.reattach(ledger, event.client, event.id) if event.returns else None
        if client is None:
            client = ClientPeer(event.client, event.id, event.weight)
            client.base = recovery.task_base(event.id)
        ledger.clients[event.client] = client
        ledger.clients_by_name[event.id] = client
        if event.returns:
            client.said = {}
            recovery.expect(ledger, client)
        else:
            ledger.send(client.id, messages.Roster(recovery.roster(ledger)))

    def _on_client_lost(self, event: events.ClientLost) -> None:
        ledger = self.ledger
        client = ledger.clients.pop(event.client, None)
        if client is None:
            return
        if ledger.clients_by_name.get(client.name) is client:
            del ledger.clients_by_name[client.name]
        if ledger.recovery is not None:
            ledger.recovery.clients.pop(client.id, None)
        ledger.leaving[client.id] = client
        self._release_leaving()
        ledger.outbox.pop(client.id, None)

    def _on_recovery_checked(self, event: events.RecoveryChecked) -> None:
        self._recovering = False
        recovery.check(self.ledger)

    def _on_continued(self, event: events.Continued) -> None:
        self._continuing = False
        self._release_leaving()

    def _release_leaving(self) -> None:
        """Release a part of what the clients held that left, and forget those that held nothing more."""
        ledger = self.ledger
        client = next(iter(ledger.leaving.values()), None)
        if client is None:
            return
        # The newest first: what was built on others goes before them.
        part = list(islice(reversed(client.tasks), self.settings.release_numbers_max))
        transitions.unwant(ledger, client, part)
        if not client.tasks:
            del ledger.leaving[client.id]
            for function in client.functions.values():
                function.clients -= 1
                transitions.drop_function(ledger, function)

    def _on_liveness_checked(self, event: events.LivenessChecked) -> None:
        self._watching = False
        recovery.try_again(self.ledger)
        if self.ledger.now - self._check_due > self.settings.liveness_interval_s:
            # The scheduler itself stood still (a stopped process, a laptop that slept): what was sent to it meanwhile
            # is not read yet. Look again later.
            return
        silence_s = self.settings.worker_silence_max_s
        for worker in self.ledger.workers.values():
            if self.ledger.now - worker.last_seen > silence_s:
                self.ledger.drops[worker.id] = f"it sent nothing for {silence_s:.0f} s"

    # --- messages ---------------------------------------------------------------------------------

    def _on_received(self, event: events.Received) -> None:
        ledger = self.ledger
        peer: Any = ledger.workers.get(event.peer)
        handlers: dict[type, Callable[..., None]] = FROM_WORKER
        if peer is not None:
            peer.last_seen = ledger.now
        else:
            peer = ledger.clients.get(event.peer)
            handlers = FROM_CLIENT
            if peer is None:
                return
        try:
            for message in event.messages:
                handler = handlers.get(type(message))
                if handler is None:
                    raise Misbehaved(f"it sent {type(message).__name__}, which is not for a scheduler")
                handler(ledger, peer, message)
        except Misbehaved as error:
            ledger.drops[event.peer] = str(error)
            if type(peer) is ClientPeer:
                peer.leaves = True

    # --- data that moves --------------------------------------------------------------------------

    def _on_copies_wanted(self, event: events.CopiesWanted) -> None:
        for task_id, worker_id in event.pairs:
            task, worker = self.ledger.tasks.get(task_id), self.ledger.workers.get(worker_id)
            if task is not None and worker is not None:
                copying.copy(self.ledger, task, worker)

    def _on_replicas_unwanted(self, event: events.ReplicasUnwanted) -> None:
        for task_id, worker_id in event.pairs:
            task, worker = self.ledger.tasks.get(task_id), self.ledger.workers.get(worker_id)
            if task is not None and worker is not None:
                copying.drop_replica(self.ledger, task, worker)

    def _on_retirement_wanted(self, event: events.RetirementWanted) -> None:
        for worker_id in event.workers:
            worker = self.ledger.workers.get(worker_id)
            if worker is not None:
                copying.begin_retirement(self.ledger, worker)

    def _on_retirement_pursued(self, event: events.RetirementPursued) -> None:
        for worker_id in event.progress:
            worker = self.ledger.workers.get(worker_id)
            event.progress[worker_id] = "gone" if worker is None else copying.pursue_retirement(self.ledger, worker)

    def _on_retirement_ended(self, event: events.RetirementEnded) -> None:
        for worker_id in event.workers:
            worker = self.ledger.workers.get(worker_id)
            if worker is not None:
                copying.end_retirement(self.ledger, worker)

    _ON_EVENT: dict[type, Callable[..., None]] = {
        events.WorkerJoined: _on_worker_joined,
        events.WorkerLost: _on_worker_lost,
        events.ClientJoined: _on_client_joined,
        events.ClientLost: _on_client_lost,
        events.Received: _on_received,
        events.LivenessChecked: _on_liveness_checked,
        events.Continued: _on_continued,
        events.RecoveryChecked: _on_recovery_checked,
        events.CopiesWanted: _on_copies_wanted,
        events.ReplicasUnwanted: _on_replicas_unwanted,
        events.RetirementWanted: _on_retirement_wanted,
        events.RetirementPursued: _on_retirement_pursued,
        events.RetirementEnded: _on_retirement_ended,
    }


def _killed(task: Task, worker: WorkerPeer, event: events.WorkerLost) -> Reason:
    troubles = task.trouble()
    alone = troubles.alone_deaths
    times = f"{alone} of them while it ran alone" if alone else "never while it ran alone"
    memory = event.memory_bytes or worker.metrics.get("memory_bytes", 0)
    if type(memory) not in (int, float):
        memory = 0
    limit = f" (its limit is {worker.limit_bytes / 2**20:.0f} MiB)" if worker.limit_bytes else ""
    ended = f"ended with exit code {event.exit_code}" if event.exit_code is not None else "died"
    if event.exit_code is not None and event.exit_code < 0:
        ended = f"was killed by signal {-event.exit_code}"
    text = (
        f"{task.name} is given up: {troubles.deaths} workers died while they ran it, {times}; the last one "
        f"({worker.address}) {ended} when it took {memory / 2**20:.0f} MiB of memory{limit}; the task probably ends "
        "its process (a crash in native code, or more memory than there is): run it by itself to see"
    )
    return Reason("KilledWorker", text, None)
