"""Events in, instructions out: a worker's decisions from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.errors import ProtocolError
from distributed_core.ids import FunctionId, RunId, TaskId
from distributed_core.machines.worker import events
from distributed_core.machines.worker.beliefs import Beliefs, comeback, inventory
from distributed_core.machines.worker.instructions import (
    Discard,
    DropFunctions,
    EndProcess,
    Execute,
    Fetch,
    Interrupt,
    KeepFunction,
    Leave,
    Report,
    SetTimer,
    Spill,
    TakeBack,
    WorkerInstruction,
)
from distributed_core.machines.worker.memory import MemoryBook
from distributed_core.machines.worker.replicas import Lane, Replica, next_request
from distributed_core.machines.worker.runs import Run
from distributed_core.settings import WorkerSettings

TIMEOUT_MAX_S = 1e9


class WorkerMachine:
    """A worker as a pure machine.

    It outlives its scheduler: what it holds and what its threads are at is told to the next one, to which the numbers
    of tasks mean the same.

    Parameters
    ----------
    replaceable
        A nanny starts another process when this one ends.
    memory_limit_bytes
        What the process may take; 0 is no limit.
    """

    def __init__(
        self, settings: WorkerSettings | None = None, *, replaceable: bool = False, memory_limit_bytes: int = 0
    ) -> None:
        self.settings = settings or WorkerSettings()
        self.replaceable = replaceable
        self.memory = MemoryBook(memory_limit_bytes)
        self._fetch_bytes_max = self.memory.fetch_bytes_max(self.settings)
        self.runs: dict[RunId, Run] = {}
        #: Those of them that lack inputs.
        self.waiting: dict[RunId, Run] = {}
        #: Runs that nobody waits for any more, and that a thread may still be at.
        self.lingering: dict[RunId, Run] = {}
        self.replicas: dict[TaskId, Replica] = {}
        #: Tasks to ask a peer for, and the peers that a request is under way to: one at a time, so that they batch.
        self.queues: dict[Lane, dict[TaskId, None]] = {}
        self.asked: dict[Lane, None] = {}
        #: Functions whose bodies are here.
        self.functions: dict[FunctionId, None] = {}
        self.beliefs = Beliefs()
        self._now = 0.0
        self._out: list[WorkerInstruction] = []
        self._reports: list[Any] = []
        self._ending: EndProcess | None = None

    def handle(self, event: events.WorkerEvent, now: float) -> list[WorkerInstruction]:
        """Apply what happened; return what is to be done, in order."""
        self._now = now
        self._ON_EVENT[type(event)](self, event)
        if self._reports:
            self._out.append(Report(self._reports))
            self._reports = []
        if self._ending is not None:
            self._out.append(self._ending)
        out, self._out = self._out, []
        return out

    def whole_state(self) -> dict[str, Any]:
        """Return all books as plain data, for people who look for what went wrong."""
        return {
            "runs": {run.run: {"task": run.task, "missing": run.missing} for run in self.runs.values()},
            "lingering": list(self.lingering),
            "held": {task: replica.nbytes for task, replica in self.replicas.items() if replica.held},
            "sought": {task: replica.address for task, replica in self.replicas.items() if not replica.held},
            "asked": [address for address, _ in self.asked],
        }

    # --- one scheduler after another --------------------------------------------------------------

    def _on_scheduler_gone(self, event: events.SchedulerGone) -> None:
        """Keep the data and what threads are at; everything else will be asked for again."""
        for run in list(self.waiting.values()):
            self._forget_waiting(run)
        # Requests under way, and what is queued behind them, still find their records.
        for replica in list(self.replicas.values()):
            replica.errand = False
            if not replica.held and replica.source not in self.asked:
                del self.replicas[replica.task]
        for run in self.runs.values():
            run.orphaned = True
            self._out.append(TakeBack(run.run))
        # The next scheduler counts functions anew.
        self.functions = {}

    def _on_registered(self, event: events.Registered) -> None:
        self.beliefs = Beliefs()
        if self.memory.limit_bytes:
            self._reports.append(messages.MemoryState(self.memory.paused, self.memory.told_bytes))
        self._reports += comeback(self.replicas, self.runs, self.lingering, self.settings.told_at_once_max)

    @property
    def returns(self) -> bool:
        """Whether there is something to tell a scheduler before it may assign anything."""
        return bool(self.runs or self.lingering) or any(replica.held for replica in self.replicas.values())

    # --- from the scheduler -----------------------------------------------------------------------

    def _on_instructed(self, event: events.Instructed) -> None:
        for message in event.messages:
            self.beliefs.applied += 1
            handler = self._FROM_SCHEDULER.get(type(message))
            if handler is None:
                raise ProtocolError(f"the scheduler sent {type(message).__name__}, which is not for a worker")
            handler(self, message)
        if self.queues:
            self._ask_peers()

    def _on_assignment(self, message: messages.Assignment) -> None:
        inputs = tuple([each[0] for each in message.inputs]) if message.inputs else ()
        if message.run in self.runs or message.run in self.lingering:
            raise ProtocolError(f"the scheduler sent the run {message.run} twice")
        if message.timeout_s and not 0.0 < message.timeout_s <= TIMEOUT_MAX_S:
            raise ProtocolError(f"the scheduler sent the time limit {message.timeout_s}")
        if message.function not in self.functions:
            # The scheduler believes that it sent the body: it is told, and sends it with the next assignment.
            self._reports.append(messages.Rejection(message.task, message.run, [], []))
            return
        run = Run(message.task, message.run, message.function, message.payload, inputs, message.timeout_s)
        self.runs[run.run] = run
        for task, nbytes, holders in message.inputs:
            replica = self.replicas.get(task)
            if replica is None:
                replica = self.replicas[task] = Replica(task, nbytes)
            elif replica.held or run.run in replica.waiters:
                continue  # It is here, or was named before: a payload may find one input at several places.
            run.missing += 1
            self.waiting[run.run] = run
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
        if run is None:
            replica = self.replicas.get(message.task)
            if replica is not None and replica.held and replica.run == message.run:
                # The report of its end and this message crossed.
                self._discard([message.task])
            stray = self.lingering.get(message.run)
            if stray is None:
                self._reports.append(messages.Departure(message.run))
            elif message.interrupt and not stray.interrupt:
                stray.interrupt = True
                self._interrupt(stray)
        elif run.payload is not None:
            self._forget_waiting(run)
            self._reports.append(messages.Departure(message.run))
        else:
            run.interrupt = message.interrupt
            self.lingering[run.run] = run
            self._out.append(TakeBack(run.run))

    def _on_recall(self, message: messages.Recall) -> None:
        run = self.runs.get(message.run)
        if run is None:
            self._reports.append(messages.Yielding(message.task, message.run, False))
        elif run.payload is not None:
            self._forget_waiting(run)
            self._reports.append(messages.Yielding(run.task, run.run, True))
        else:
            run.recalled = True
            self._out.append(TakeBack(run.run))

    def _on_acquisition(self, message: messages.Acquisition) -> None:
        for task, nbytes, holders in message.items:
            replica = self.replicas.get(task)
            if replica is not None and replica.held:
                self._reports.append(messages.Possession([[task, replica.nbytes]]))
                continue
            if replica is None:
                replica = self.replicas[task] = Replica(task, nbytes)
            replica.errand = True
            replica.holders.extend(each for each in holders if each not in replica.holders)
            if replica.source is None:
                self._seek(replica)

    def _on_dismissal(self, message: messages.Dismissal) -> None:
        # Not by the scheduler's machine, which counts its own.
        self.beliefs.applied -= 1
        self._out.append(Leave(message.reason))

    def _on_disposal(self, message: messages.Disposal) -> None:
        gone = [task for task in message.tasks if task in self.replicas and self.replicas[task].held]
        if self.waiting:
            self._reject_waiting(dict.fromkeys(gone))
        self._discard(gone)

    def _reject_waiting(self, gone: dict[TaskId, None]) -> None:
        """Runs that waited for other data lose data that they had: another holder died, and the books crossed."""
        for run in list(self.waiting.values()):
            absent = [[task, ""] for task in dict.fromkeys(run.inputs) if task in gone]
            if absent:
                self._forget_waiting(run)
                self._reports.append(messages.Rejection(run.task, run.run, absent, []))

    def _on_function_body(self, message: messages.FunctionBody) -> None:
        self.functions[message.function] = None
        self._out.append(KeepFunction(message.function, message.name, message.body))

    def _on_function_disposal(self, message: messages.FunctionDisposal) -> None:
        for function in message.functions:
            self.functions.pop(function, None)
        self._out.append(DropFunctions(message.functions))

    # --- what both sides believe ------------------------------------------------------------------

    def _on_heartbeat_due(self, event: events.HeartbeatDue) -> None:
        self._reports += self.beliefs.tally(self._now, self.replicas, self.runs, self.lingering)

    def _on_audit(self, message: messages.Audit) -> None:
        self._reports += inventory(message, self.beliefs, self.replicas, self.runs, self.lingering, self.settings)

    # --- from the executor ------------------------------------------------------------------------

    def _on_executed(self, event: events.Executed) -> None:
        for report in event.reports:
            run = self.runs.pop(report.run, None)
            if run is None:
                if self.lingering.pop(report.run, None) is not None:
                    self._reports.append(messages.Departure(report.run))
            elif isinstance(report, events.RunFinished):
                self._keep(run.task, report.nbytes, run.run)
                self._reports.append(
                    messages.Completion(run.task, run.run, report.nbytes, report.duration_s, report.payload)
                )
            elif isinstance(report, events.RunStarved):
                missed = list(dict.fromkeys(report.tasks))
                self._discard([task for task in missed if task in self.replicas and self.replicas[task].held])
                absent = [[task, ""] for task in missed]
                self._reports.append(messages.Rejection(run.task, run.run, absent, []))
            elif isinstance(report, events.RunDeclined):
                self._reports.append(messages.Yielding(run.task, run.run, True))
            elif run.timed_out:
                self._report_timeout(run)
                self._reports.append(messages.Departure(run.run))
            else:
                self._reports.append(
                    messages.Failure(run.task, run.run, report.payload, report.text, report.duration_s, "exception")
                )

    def _report_timeout(self, run: Run) -> None:
        text = f"it did not end within its timeout of {run.timeout_s:g} s"
        self._reports.append(messages.Failure(run.task, run.run, None, text, run.timeout_s, "TaskTimeout"))

    def _on_run_taken(self, event: events.RunTaken) -> None:
        run = self.lingering.get(event.run)
        if run is not None:
            if event.taken:
                del self.lingering[event.run]
                self._reports.append(messages.Departure(event.run))
            elif run.interrupt:
                self._interrupt(run)
            return
        run = self.runs.get(event.run)
        if run is not None and run.orphaned:
            run.orphaned = False
            if event.taken:
                del self.runs[event.run]
        elif run is not None and run.recalled:
            run.recalled = False
            if event.taken:
                del self.runs[event.run]
            self._reports.append(messages.Yielding(run.task, run.run, event.taken))

    def _on_run_started(self, event: events.RunStarted) -> None:
        run = self.runs.get(event.run) or self.lingering.get(event.run)
        if run is not None and run.timeout_s:
            self._out.append(SetTimer(run.run, "timeout", run.timeout_s))

    def _on_seat_changed(self, event: events.RunSeceded | events.RunReturned) -> None:
        run = self.runs.get(event.run)
        if run is not None:
            word = messages.Secession if type(event) is events.RunSeceded else messages.Return
            self._reports.append(word(run.task, run.run))

    # --- runs that take too long ------------------------------------------------------------------

    def _interrupt(self, run: Run) -> None:
        self._out.append(Interrupt(run.run))
        self._out.append(SetTimer(run.run, "grace", self.settings.interrupt_grace_s))

    def _on_timer_ended(self, event: events.TimerEnded) -> None:
        run = self.runs.get(event.run)
        if event.purpose == "timeout":
            if run is not None:
                run.timed_out = True
                self._interrupt(run)
            elif (run := self.lingering.get(event.run)) is not None and not run.interrupt:
                # Nobody waits for it any more: all the more it must not keep its thread for ever.
                run.interrupt = True
                self._interrupt(run)
            return
        if run is not None and run.timed_out:
            # Whoever waits for it waits no longer, whatever becomes of its thread.
            self._report_timeout(run)
            del self.runs[run.run]
            self.lingering[run.run] = run
        run = self.lingering.get(event.run)
        if run is None:
            return
        reason = f"a task that was to end went on for {self.settings.interrupt_grace_s:g} s after it was interrupted"
        if self.replaceable:
            self._reports.append(messages.Sacrifice(reason))
            self._ending = EndProcess(reason)
        else:
            text = f"{reason}; its worker has no nanny that could replace the process, so it goes on in its thread"
            self._reports.append(messages.Stubbornness(run.run, text))

    # --- memory -----------------------------------------------------------------------------------

    def _on_memory_taken(self, event: events.MemoryTaken) -> None:
        nbytes = self.memory.to_spill(event, self.settings)
        if nbytes > 0:
            self.memory.spilling = True
            self._out.append(Spill(nbytes))
        news = self.memory.news(event, self.settings)
        if news is not None:
            self._reports.append(news)

    def _on_spill_ended(self, event: events.SpillEnded) -> None:
        self.memory.spilling = False

    # --- data -------------------------------------------------------------------------------------

    def _on_data_fetched(self, event: events.DataFetched) -> None:
        self.asked.pop((event.address, event.small), None)
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
        self.asked.pop((event.address, event.small), None)
        for task in event.tasks:
            self._missed(task, event.address, reachable=False)
        self._ask_peers()

    def _on_data_put(self, event: events.DataPut) -> None:
        for task, nbytes in event.items:
            self._keep(task, nbytes, 0)
        self._reports.append(messages.Possession([list(item) for item in event.items]))

    def _missed(self, task: TaskId, address: str, *, reachable: bool) -> None:
        replica = self.replicas.get(task)
        if replica is None or replica.held or replica.address != address:
            return
        replica.source = None
        (replica.absent if reachable else replica.unreachable).append(address)
        if address in replica.holders:
            replica.holders.remove(address)
        self._seek(replica)

    def _seek(self, replica: Replica) -> None:
        """Queue a request for the data, or give up the runs that wait for it."""
        if not replica.waiters and not replica.errand:
            del self.replicas[replica.task]
        elif replica.holders:
            # Spread the requests for different data over its holders.
            address = replica.holders[replica.task % len(replica.holders)]
            if type(address) is not str:
                raise ProtocolError("the scheduler sent a holder that is no address")
            replica.source = lane = (address, replica.nbytes <= self.settings.small_fetch_bytes_max)
            self.queues.setdefault(lane, {})[replica.task] = None
        else:
            # Nobody to ask at all: the scheduler believes that it is here.
            absent = [[replica.task, each] for each in replica.absent or ([] if replica.unreachable else [""])]
            unreachable = [[replica.task, address] for address in replica.unreachable]
            if replica.errand:
                replica.errand = False
                self._reports.append(messages.Shortfall(absent, unreachable))
            for run_id in list(replica.waiters):
                run = self.runs[run_id]
                self._forget_waiting(run)
                self._reports.append(messages.Rejection(run.task, run.run, absent, unreachable))
            self.replicas.pop(replica.task, None)

    def _ask_peers(self) -> None:
        """Send one request to each peer that has none under way and something queued, and one for what is small."""
        for lane in [each for each in self.queues if each not in self.asked]:
            queue = self.queues[lane]
            batch = next_request(queue, lane, self.replicas, self.settings.fetch_tasks_max, self._fetch_bytes_max)
            if not queue:
                del self.queues[lane]
            if batch:
                self.asked[lane] = None
                self._out.append(Fetch(lane[0], batch, lane[1]))

    def _keep(self, task: TaskId, nbytes: int, run: RunId) -> None:
        """The server holds the data of `task` now: start the runs that waited for nothing else."""
        replica = self.replicas.get(task)
        if replica is None:
            replica = self.replicas[task] = Replica(task, nbytes)
        replica.held = True
        replica.nbytes = nbytes
        replica.run = run
        replica.source = None
        replica.errand = False
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
        self.waiting.pop(run.run, None)
        self._out.append(Execute(run.run, run.task, run.function, payload, run.inputs, run.timeout_s))

    def _forget_waiting(self, run: Run) -> None:
        """Take a run that has not started away, and from the data that it waits for."""
        self.runs.pop(run.run, None)
        self.waiting.pop(run.run, None)
        for task in run.inputs:
            replica = self.replicas.get(task)
            if replica is not None and run.run in replica.waiters:
                del replica.waiters[run.run]
                idle = not replica.waiters and not replica.errand and not replica.held
                if idle and replica.source not in self.asked:
                    # Nobody waits and nobody was asked: forget it. A request under way still finds its record.
                    del self.replicas[task]

    def _discard(self, tasks: list[TaskId]) -> None:
        for task in tasks:
            self.replicas.pop(task, None)
        if tasks:
            self._out.append(Discard(tasks))

    _ON_EVENT: dict[type, Callable[..., None]] = {
        events.Instructed: _on_instructed,
        events.SchedulerGone: _on_scheduler_gone,
        events.Registered: _on_registered,
        events.Executed: _on_executed,
        events.RunTaken: _on_run_taken,
        events.RunStarted: _on_run_started,
        events.RunSeceded: _on_seat_changed,
        events.RunReturned: _on_seat_changed,
        events.TimerEnded: _on_timer_ended,
        events.DataFetched: _on_data_fetched,
        events.PeerUnreachable: _on_peer_unreachable,
        events.DataPut: _on_data_put,
        events.MemoryTaken: _on_memory_taken,
        events.SpillEnded: _on_spill_ended,
        events.HeartbeatDue: _on_heartbeat_due,
    }
    _FROM_SCHEDULER: dict[type, Callable[..., None]] = {
        messages.Assignment: _on_assignment,
        messages.Withdrawal: _on_withdrawal,
        messages.Recall: _on_recall,
        messages.Acquisition: _on_acquisition,
        messages.Dismissal: _on_dismissal,
        messages.Disposal: _on_disposal,
        messages.Audit: _on_audit,
        messages.FunctionBody: _on_function_body,
        messages.FunctionDisposal: _on_function_disposal,
    }
