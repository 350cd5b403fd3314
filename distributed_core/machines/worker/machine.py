"""Events in, instructions out: a worker's decisions from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.errors import ProtocolError
from distributed_core.ids import RunId, TaskId
from distributed_core.machines.worker import events
from distributed_core.machines.worker.instructions import (
    Abandon,
    Discard,
    DropFunctions,
    Execute,
    Fetch,
    KeepFunction,
    Report,
    WorkerInstruction,
)
from distributed_core.machines.worker.replicas import Replica
from distributed_core.machines.worker.runs import Run
from distributed_core.settings import WorkerSettings


class WorkerMachine:
    """A worker as a pure machine, for one registration at one scheduler.

    A worker that registers anew starts with a new machine: task ids of one scheduler mean nothing to the next.
    """

    def __init__(self, settings: WorkerSettings | None = None) -> None:
        self.settings = settings or WorkerSettings()
        self.runs: dict[RunId, Run] = {}
        self.replicas: dict[TaskId, Replica] = {}
        #: Tasks to ask a peer for, and the peers that a request is under way to: one at a time, so that they batch.
        self.queues: dict[str, dict[TaskId, None]] = {}
        self.asked: dict[str, None] = {}
        self._out: list[WorkerInstruction] = []
        self._reports: list[Any] = []

    def handle(self, event: events.WorkerEvent, now: float) -> list[WorkerInstruction]:
        """Apply what happened; return what is to be done, in order."""
        self._ON_EVENT[type(event)](self, event)
        if self._reports:
            self._out.append(Report(self._reports))
            self._reports = []
        out, self._out = self._out, []
        return out

    # --- from the scheduler -----------------------------------------------------------------------

    def _on_instructed(self, event: events.Instructed) -> None:
        for message in event.messages:
            handler = self._FROM_SCHEDULER.get(type(message))
            if handler is None:
                raise ProtocolError(f"the scheduler sent {type(message).__name__}, which is not for a worker")
            handler(self, message)
        if self.queues:
            self._ask_peers()

    def _on_assignment(self, message: messages.Assignment) -> None:
        inputs = tuple([each[0] for each in message.inputs]) if message.inputs else ()
        run = Run(message.task, message.run, message.function, message.payload, inputs)
        self.runs[run.run] = run
        for task, nbytes, holders in message.inputs:
            replica = self.replicas.get(task)
            if replica is None:
                replica = self.replicas[task] = Replica(task, nbytes)
            elif replica.held:
                continue
            run.missing += 1
            replica.waiters[run.run] = None
            replica.holders.extend(each for each in holders if each not in replica.holders)
            if replica.source is None:
                self._seek(replica)
                if run.run not in self.runs:
                    return
        if not run.missing and run.run in self.runs:
            self._start(run)

    def _on_withdrawal(self, message: messages.Withdrawal) -> None:
        run = self.runs.pop(message.run, None)
        if run is not None:
            if run.payload is None:
                self._out.append(Abandon(run.run))
            else:
                self._unwait(run)
            return
        replica = self.replicas.get(message.task)
        if replica is not None and replica.held and replica.run == message.run:
            # The report of its end and this message crossed.
            self._discard([message.task])

    def _on_disposal(self, message: messages.Disposal) -> None:
        self._discard([task for task in message.tasks if task in self.replicas and self.replicas[task].held])

    def _on_function_body(self, message: messages.FunctionBody) -> None:
        self._out.append(KeepFunction(message.function, message.name, message.body))

    def _on_function_disposal(self, message: messages.FunctionDisposal) -> None:
        self._out.append(DropFunctions(message.functions))

    # --- from the executor ------------------------------------------------------------------------

    def _on_executed(self, event: events.Executed) -> None:
        for report in event.reports:
            run = self.runs.pop(report.run, None)
            if run is None:
                continue
            if isinstance(report, events.RunFinished):
                self._keep(run.task, report.nbytes, run.run)
                self._reports.append(
                    messages.Completion(run.task, run.run, report.nbytes, report.duration_s, report.payload)
                )
            else:
                self._reports.append(
                    messages.Failure(run.task, run.run, report.payload, report.text, report.duration_s)
                )

    # --- data -------------------------------------------------------------------------------------

    def _on_data_fetched(self, event: events.DataFetched) -> None:
        self.asked.pop(event.address, None)
        gained = []
        for task, nbytes in event.arrived:
            replica = self.replicas.get(task)
            if replica is None or not replica.held:
                gained.append([task, nbytes])
                self._keep(task, nbytes, 0)
        if gained:
            self._reports.append(messages.Possession(gained))
        for task in event.absent:
            self._missed(task, event.address, reachable=True)
        self._ask_peers()

    def _on_peer_unreachable(self, event: events.PeerUnreachable) -> None:
        self.asked.pop(event.address, None)
        for task in event.tasks:
            self._missed(task, event.address, reachable=False)
        self._ask_peers()

    def _on_data_put(self, event: events.DataPut) -> None:
        for task, nbytes in event.items:
            self._keep(task, nbytes, 0)
        self._reports.append(messages.Possession([list(item) for item in event.items]))

    def _missed(self, task: TaskId, address: str, *, reachable: bool) -> None:
        replica = self.replicas.get(task)
        if replica is None or replica.held or replica.source != address:
            return
        replica.source = None
        (replica.absent if reachable else replica.unreachable).append(address)
        if address in replica.holders:
            replica.holders.remove(address)
        self._seek(replica)

    def _seek(self, replica: Replica) -> None:
        """Queue a request for the data, or give up the runs that wait for it."""
        if not replica.waiters:
            del self.replicas[replica.task]
        elif replica.holders:
            # Spread the requests for different data over its holders.
            address = replica.holders[replica.task % len(replica.holders)]
            replica.source = address
            self.queues.setdefault(address, {})[replica.task] = None
        else:
            # Nobody to ask at all: the scheduler believes that it is here.
            addresses = replica.absent if replica.absent or replica.unreachable else [""]
            absent = [[replica.task, address] for address in addresses]
            unreachable = [[replica.task, address] for address in replica.unreachable]
            for run_id in list(replica.waiters):
                run = self.runs.pop(run_id)
                self._unwait(run)
                self._reports.append(messages.Rejection(run.task, run.run, absent, unreachable))
            self.replicas.pop(replica.task, None)

    def _ask_peers(self) -> None:
        """Send one request to each peer that has none under way and something queued."""
        for address in [each for each in self.queues if each not in self.asked]:
            queue = self.queues[address]
            batch: list[TaskId] = []
            nbytes = 0
            for task in list(queue):
                replica = self.replicas.get(task)
                if replica is None or replica.held or replica.source != address:
                    del queue[task]
                    continue
                if batch and nbytes + replica.nbytes > self.settings.fetch_bytes_max:
                    break
                del queue[task]
                batch.append(task)
                nbytes += replica.nbytes
                if len(batch) == self.settings.fetch_tasks_max:
                    break
            if not queue:
                del self.queues[address]
            if batch:
                self.asked[address] = None
                self._out.append(Fetch(address, batch))

    def _keep(self, task: TaskId, nbytes: int, run: RunId) -> None:
        """The server holds the data of `task` now: start the runs that waited for nothing else."""
        replica = self.replicas.get(task)
        if replica is None:
            replica = self.replicas[task] = Replica(task, nbytes)
        replica.held = True
        replica.nbytes = nbytes
        replica.run = run
        replica.source = None
        replica.holders = []
        if replica.waiters:
            for run_id in replica.waiters:
                waiter = self.runs[run_id]
                waiter.missing -= 1
                if not waiter.missing:
                    self._start(waiter)
            replica.waiters = {}

    def _start(self, run: Run) -> None:
        payload = run.payload
        assert payload is not None
        run.payload = None
        self._out.append(Execute(run.run, run.task, run.function, payload, run.inputs))

    def _unwait(self, run: Run) -> None:
        """Take a run that has not started away from the data that it waits for."""
        for task in run.inputs:
            replica = self.replicas.get(task)
            if replica is not None and run.run in replica.waiters:
                del replica.waiters[run.run]
                if not replica.waiters and not replica.held and replica.source not in self.asked:
                    # Nobody waits and nobody was asked: forget it. A request under way still finds its record.
                    del self.replicas[task]

    def _discard(self, tasks: list[TaskId]) -> None:
        for task in tasks:
            del self.replicas[task]
        if tasks:
            self._out.append(Discard(tasks))

    _ON_EVENT: dict[type, Callable[..., None]] = {
        events.Instructed: _on_instructed,
        events.Executed: _on_executed,
        events.DataFetched: _on_data_fetched,
        events.PeerUnreachable: _on_peer_unreachable,
        events.DataPut: _on_data_put,
    }
    _FROM_SCHEDULER: dict[type, Callable[..., None]] = {
        messages.Assignment: _on_assignment,
        messages.Withdrawal: _on_withdrawal,
        messages.Disposal: _on_disposal,
        messages.FunctionBody: _on_function_body,
        messages.FunctionDisposal: _on_function_disposal,
    }
