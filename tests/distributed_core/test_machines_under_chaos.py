"""Scheduler, worker and nanny: any events in any order, and their invariants after each.

The rules say only what a peer may rightly send; what it does is up to chance. To have what fails shrunk, which takes
minutes, add `Phase.shrink` to the phases.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines import nanny as words
from distributed_core.machines.scheduler import SchedulerMachine, instructions
from distributed_core.machines.scheduler import events as scheduler_events
from distributed_core.machines.scheduler import invariants as scheduler_invariants
from distributed_core.machines.worker import WorkerMachine
from distributed_core.machines.worker import events as worker_events
from distributed_core.machines.worker import instructions as worker_instructions
from distributed_core.machines.worker import invariants as worker_invariants
from distributed_core.settings import NannySettings, SchedulerSettings
from tests.distributed_core.planted import PLANTED

F = b"digest"
FEW = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
)


class SchedulerUnderChaos(RuleBasedStateMachine):
    """Workers that run, refuse, die and lie about old runs; clients that submit, let go, cancel and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = SchedulerMachine(SchedulerSettings(release_numbers_max=2, allowed_failures=1))
        self.now = 0.0
        self.peers = 0
        self.workers: dict[int, str] = {}
        self.clients: dict[int, int] = {}
        #: Runs by worker: the message, and whether it was withdrawn meanwhile.
        self.runs: dict[int, list[messages.Assignment]] = {}
        self.withdrawn: dict[int, list[messages.Withdrawal]] = {}
        self.recalls: dict[int, list[messages.Recall]] = {}
        self.old: list[tuple[int, messages.Assignment]] = []
        self.placements: list[tuple[int, messages.Placement]] = []
        self.copies: dict[int, list[Any]] = {}
        #: What each client was told last of each future.
        self.told: dict[tuple[int, int], str] = {}
        self.continuing = False

    def feed(self, event: scheduler_events.SchedulerEvent) -> None:
        self.now += 0.01
        for asked in self.machine.handle(event, self.now):
            if isinstance(asked, instructions.Send):
                for message in asked.messages:
                    self.hear(asked.peer, message)
            elif isinstance(asked, instructions.Continue):
                self.continuing = True
            assert not isinstance(asked, instructions.Drop), asked

    def hear(self, peer: int, message: Any) -> None:
        if isinstance(message, messages.Assignment):
            assert all(each.task != message.task for runs in self.runs.values() for each in runs), "assigned twice"
            self.runs.setdefault(peer, []).append(message)
        elif isinstance(message, messages.Withdrawal):
            gone = [each for each in self.runs.get(peer, []) if each.run == message.run]
            self.old += [(peer, each) for each in gone]
            self.runs[peer] = [each for each in self.runs.get(peer, []) if each.run != message.run]
            self.withdrawn.setdefault(peer, []).append(message)
        elif isinstance(message, messages.Recall):
            self.recalls.setdefault(peer, []).append(message)
        elif isinstance(message, messages.Placement):
            self.placements.append((peer, message))
        elif isinstance(message, messages.Acquisition):
            self.copies.setdefault(peer, []).extend(message.items)
        elif isinstance(message, messages.Finished | messages.Failed | messages.Pending | messages.Cancelled):
            self.told[peer, message.number] = type(message).__name__

    def say(self, peer: int, *said: Any) -> None:
        self.feed(scheduler_events.Received(peer, list(said)))

    def pick(self, data: st.DataObject, items: Any) -> Any:
        return data.draw(st.sampled_from(sorted(items)))

    # --- peers ------------------------------------------------------------------------------------

    @rule(nthreads=st.integers(1, 3), resources=st.sampled_from([0.0, 2.0]))
    def worker_joins(self, nthreads: int, resources: float) -> None:
        if len(self.workers) < 4:
            self.peers += 1
            name = f"w{self.peers % 3}"
            self.workers[self.peers] = f"10.0.0.{self.peers}:1"
            details = {"resources": {"R": resources}} if resources else {}
            self.feed(scheduler_events.WorkerJoined(self.peers, self.workers[self.peers], name, nthreads, details))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), blameless=st.booleans())
    def worker_is_lost(self, data: st.DataObject, blameless: bool) -> None:
        worker = self.pick(data, self.workers)
        del self.workers[worker]
        for books in (self.runs, self.withdrawn, self.recalls, self.copies):
            books.pop(worker, None)  # type: ignore[attr-defined]
        if blameless:
            self.say(worker, messages.Sacrifice(""))
            self.runs.pop(worker, None)
        self.feed(scheduler_events.WorkerLost(worker))

    @rule(weight=st.sampled_from([1.0, 3.0]))
    def client_joins(self, weight: float) -> None:
        if len(self.clients) < 3:
            self.peers += 1
            self.clients[self.peers] = 0
            self.feed(scheduler_events.ClientJoined(self.peers, f"c{self.peers}", weight))
            self.say(self.peers, messages.Submission([[F, "f", b"body"]], []))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def client_is_lost(self, data: st.DataObject) -> None:
        client = self.pick(data, self.clients)
        del self.clients[client]
        self.feed(scheduler_events.ClientLost(client))

    @precondition(lambda self: self.continuing)
    @rule()
    def goes_on(self) -> None:
        self.continuing = False
        self.feed(scheduler_events.Continued())

    # --- clients ----------------------------------------------------------------------------------

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), count=st.integers(1, 4), retries=st.integers(0, 1), demand=st.sampled_from([0, 0, 1, 2]))
    def client_submits(self, data: st.DataObject, count: int, retries: int, demand: int) -> None:
        client = self.pick(data, self.clients)
        for _ in range(count):
            self.clients[client] += 1
            number = self.clients[client]
            inputs = data.draw(st.lists(st.integers(1, number - 1), max_size=3, unique=True)) if number > 1 else []
            # Two futures of one task as inputs of another one: clients do not send that.
            known = self.machine.ledger.clients[client].tasks
            inputs = list({id(known.get(each, each)): each for each in inputs}.values())
            options: dict[str, Any] = {"retries": retries} if retries else {}
            if demand == 1:
                options["resources"] = {"R": 1.0}
            elif demand == 2:
                options["workers"] = ["w1"]
            key = data.draw(st.sampled_from([None, None, "a", "b"]))
            self.say(client, messages.Submission([], [[number, key, F, [], inputs, 0, options or None]]))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def client_scatters(self, data: st.DataObject) -> None:
        client = self.pick(data, self.clients)
        self.clients[client] += 1
        self.say(client, messages.Scattering([[self.clients[client], None, 8]], None))

    @precondition(lambda self: any(self.clients.values()))
    @rule(data=st.data(), what=st.sampled_from(["release", "cancel", "force", "vow", "retry", "complain", "wish"]))
    def client_acts(self, data: st.DataObject, what: str) -> None:
        client = self.pick(data, [each for each, count in self.clients.items() if count])
        numbers = data.draw(st.lists(st.integers(1, self.clients[client]), min_size=1, max_size=3, unique=True))
        if what == "wish":
            self.clients[client] += 1
            self.say(client, messages.Wish([[self.clients[client], data.draw(st.sampled_from(["a", "b", "f-c2-1"]))]]))
        elif what == "complain":
            address = data.draw(st.sampled_from([*self.workers.values(), "nowhere:1"]))
            self.say(client, messages.Complaint([[number, address] for number in numbers]))
        else:
            said = {
                "release": messages.Release(numbers),
                "cancel": messages.Cancellation(numbers, False, ""),
                "force": messages.Cancellation(numbers, True, ""),
                "vow": messages.Vow(numbers),
                "retry": messages.Retrial(numbers),
            }
            self.say(client, said[what])

    # --- workers ----------------------------------------------------------------------------------

    @precondition(lambda self: any(self.runs.values()))
    @rule(
        data=st.data(), how=st.sampled_from(["ends", "ends", "ends", "fails", "late", "rejects", "secedes", "yields"])
    )
    def run_ends(self, data: st.DataObject, how: str) -> None:
        worker = self.pick(data, [each for each, runs in self.runs.items() if runs])
        runs = self.runs[worker]
        run = runs.pop(data.draw(st.integers(0, len(runs) - 1)))
        if how == "ends":
            self.say(worker, messages.Completion(run.task, run.run, 8, 0.01, None))
        elif how == "fails":
            self.say(worker, messages.Failure(run.task, run.run, None, "", 0.01, "exception"))
        elif how == "late":
            self.say(worker, messages.Failure(run.task, run.run, None, "", 0.01, "TaskTimeout"))
            self.say(worker, messages.Departure(run.run))
        elif how == "rejects":
            absent = [[task, (holders or [""])[0]] for task, _, holders in run.inputs]
            self.say(worker, messages.Rejection(run.task, run.run, absent[:1], absent[1:2]))
        elif how == "yields":
            self.say(worker, messages.Yielding(run.task, run.run, True))
        else:
            runs.append(run)
            self.say(worker, messages.Secession(run.task, run.run))
            if data.draw(st.booleans()):
                self.say(worker, messages.Return(run.task, run.run))

    @precondition(lambda self: any(self.withdrawn.values()))
    @rule(data=st.data())
    def withdrawn_run_departs(self, data: st.DataObject) -> None:
        worker = self.pick(data, [each for each, gone in self.withdrawn.items() if gone])
        self.say(worker, messages.Departure(self.withdrawn[worker].pop(0).run))

    @precondition(lambda self: any(self.recalls.values()))
    @rule(data=st.data(), given=st.booleans())
    def recall_is_answered(self, data: st.DataObject, given: bool) -> None:
        worker = self.pick(data, [each for each, asked in self.recalls.items() if asked])
        asked = self.recalls[worker].pop(0)
        had = [each for each in self.runs.get(worker, []) if each.run == asked.run]
        if given:
            self.runs[worker] = [each for each in self.runs.get(worker, []) if each.run != asked.run]
        self.say(worker, messages.Yielding(asked.task, asked.run, given and bool(had)))

    @precondition(lambda self: self.old)
    @rule(data=st.data(), failed=st.booleans())
    def old_report_arrives(self, data: st.DataObject, failed: bool) -> None:
        """It was under way when its run was withdrawn: it must change nothing at all."""
        worker, run = self.old.pop(data.draw(st.integers(0, len(self.old) - 1)))
        if worker in self.workers:
            before = {task.id: type(task.state) for task in self.machine.ledger.tasks.values()}
            if failed:
                self.say(worker, messages.Failure(run.task, run.run, None, "", 0.01, "exception"))
            else:
                self.say(worker, messages.Completion(run.task, run.run, 8, 0.01, None))
            assert before == {task.id: type(task.state) for task in self.machine.ledger.tasks.values()}

    @precondition(lambda self: self.placements)
    @rule()
    def scattered_data_arrives(self) -> None:
        _, placed = self.placements.pop(0)
        for worker, address in self.workers.items():
            if address == placed.address:
                self.say(worker, messages.Possession([[placed.task, 8]]))

    @precondition(lambda self: any(self.copies.values()))
    @rule(data=st.data(), well=st.booleans())
    def copy_ends(self, data: st.DataObject, well: bool) -> None:
        worker = self.pick(data, [each for each, items in self.copies.items() if items])
        task, nbytes, holders = self.copies[worker].pop(0)
        if well:
            self.say(worker, messages.Possession([[task, nbytes]]))
        else:
            self.say(worker, messages.Shortfall([[task, (holders or [""])[0]]], []))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), wanted=st.booleans())
    def data_is_moved(self, data: st.DataObject, wanted: bool) -> None:
        worker = self.pick(data, self.workers)
        pairs = [(task, worker) for task in list(self.machine.ledger.tasks)[:3]]
        event = scheduler_events.CopiesWanted(pairs) if wanted else scheduler_events.ReplicasUnwanted(pairs)
        self.feed(event)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), what=st.sampled_from(["begin", "pursue", "end"]))
    def worker_retires(self, data: st.DataObject, what: str) -> None:
        worker = self.pick(data, self.workers)
        if what == "begin":
            self.feed(scheduler_events.RetirementWanted([worker]))
        elif what == "pursue":
            self.feed(scheduler_events.RetirementPursued({worker: ""}))
        else:
            self.feed(scheduler_events.RetirementEnded([worker]))

    @rule()
    def liveness_is_checked(self) -> None:
        self.feed(scheduler_events.LivenessChecked())

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        scheduler_invariants.check(self.machine)

    @invariant()
    def clients_know_where_their_futures_are(self) -> None:
        state = {"Held": "Finished", "Erred": "Failed"}
        for client in self.clients:
            for number, task in self.machine.ledger.clients[client].tasks.items():
                told = self.told.get((client, number))
                expected = state.get(type(task.state).__name__)
                assert told == expected or (expected is None and told == "Pending"), (number, task, told)

    def teardown(self) -> None:
        """Once all have gone, nothing stays."""
        for client in list(self.clients):
            self.feed(scheduler_events.ClientLost(client))
        for worker in list(self.workers):
            self.runs.pop(worker, None)
            self.feed(scheduler_events.WorkerLost(worker))
        # What was vowed runs to its end, and the names of what nobody wants any more are forgotten.
        while self.machine.ledger.leaving:
            self.feed(scheduler_events.Continued())
        scheduler_invariants.check(self.machine)
        wanted = {task.id for task in self.machine.ledger.vows.tasks.values()}
        if not wanted:
            assert not self.machine.ledger.tasks


class WorkerUnderChaos(RuleBasedStateMachine):
    """A scheduler that assigns, withdraws, recalls and disposes; peers that answer, or do not; threads that end."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = WorkerMachine(replaceable=False)
        self.tasks = 100
        self.run_count = 0
        self.assigned: dict[int, int] = {}
        self.answered: dict[int, None] = {}
        self.threads: dict[int, worker_instructions.Execute] = {}
        self.taking: list[int] = []
        self.asked: list[worker_instructions.Fetch] = []
        self.timers: list[worker_instructions.SetTimer] = []
        self.data: dict[int, None] = {}
        self.tell(messages.FunctionBody(1, "f", b""))

    def feed(self, event: worker_events.WorkerEvent) -> None:
        for asked in self.machine.handle(event, 0.0):
            if isinstance(asked, worker_instructions.Execute):
                assert asked.run not in self.threads, "started twice"
                assert all(task in self.data for task in asked.inputs), "started without its inputs"
                self.threads[asked.run] = asked
            elif isinstance(asked, worker_instructions.TakeBack):
                self.taking.append(asked.run)
            elif isinstance(asked, worker_instructions.Fetch):
                self.asked.append(asked)
            elif isinstance(asked, worker_instructions.SetTimer):
                self.timers.append(asked)
            elif isinstance(asked, worker_instructions.Discard):
                for task in asked.tasks:
                    del self.data[task]
            elif isinstance(asked, worker_instructions.Report):
                for message in asked.messages:
                    self.hear(message)

    def hear(self, message: Any) -> None:
        ends = isinstance(message, messages.Completion | messages.Failure | messages.Rejection)
        if ends or (isinstance(message, messages.Yielding) and message.given):
            assert message.run not in self.answered, "answered twice"
            self.answered[message.run] = None

    def tell(self, *said: Any) -> None:
        self.feed(worker_events.Instructed(list(said)))

    @rule(data=st.data(), timeout_s=st.sampled_from([0.0, 0.0, 1.0]))
    def assigned_a_run(self, data: st.DataObject, timeout_s: float) -> None:
        self.run_count += 1
        self.tasks += 1
        known = [*self.data, 1, 2, 3]
        chosen = data.draw(st.lists(st.sampled_from(known), max_size=3, unique=True))
        inputs = []
        for task in chosen:
            holders = data.draw(st.lists(st.sampled_from(["a:1", "b:1"]), max_size=2, unique=True))
            inputs.append([task, 8, holders])
        self.assigned[self.run_count] = self.tasks
        self.tell(messages.Assignment(self.tasks, self.run_count, 1, [], inputs, timeout_s))

    @precondition(lambda self: self.assigned)
    @rule(data=st.data(), what=st.sampled_from(["withdraw", "interrupt", "recall"]))
    def told_of_a_run(self, data: st.DataObject, what: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.assigned)))
        if what == "recall":
            self.tell(messages.Recall(self.assigned[run], run))
        elif not any(self.assigned[run] in waiting.inputs for waiting in self.machine.waiting.values()):
            # What builds on it is assigned after it was withdrawn, or has run: messages keep their order.
            self.tell(messages.Withdrawal(self.assigned.pop(run), run, what == "interrupt"))

    @rule(data=st.data())
    def told_of_data(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([*self.data, 1, 2, 3]))
        if data.draw(st.booleans()):
            self.tell(messages.Disposal([task]))
        else:
            holders = data.draw(st.lists(st.sampled_from(["a:1", "b:1"]), max_size=2, unique=True))
            self.tell(messages.Acquisition([[task, 8, holders]]))

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), how=st.sampled_from(["ends", "ends", "fails", "declines"]))
    def run_ends(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.threads)))
        done = self.threads.pop(run)
        if how == "ends":
            if run in self.machine.runs:
                self.data[done.task] = None
            report: Any = worker_events.RunFinished(run, 8, 0.1, None)
        else:
            report = worker_events.RunFailed(run, [], "", 0.1) if how == "fails" else worker_events.RunDeclined(run)
        self.feed(worker_events.Executed([report]))

    @precondition(lambda self: self.threads)
    @rule(data=st.data(), what=st.sampled_from(["starts", "secedes", "returns"]))
    def run_goes_on(self, data: st.DataObject, what: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.threads)))
        kinds = {"starts": worker_events.RunStarted, "secedes": worker_events.RunSeceded}
        self.feed(kinds.get(what, worker_events.RunReturned)(run))

    @precondition(lambda self: self.taking)
    @rule(taken=st.booleans())
    def executor_answers(self, taken: bool) -> None:
        run = self.taking.pop(0)
        taken = taken and run in self.threads
        if taken:
            del self.threads[run]
        self.feed(worker_events.RunTaken(run, taken))

    @precondition(lambda self: self.timers)
    @rule()
    def timer_ends(self) -> None:
        timer = self.timers.pop(0)
        self.feed(worker_events.TimerEnded(timer.run, timer.purpose))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), reachable=st.booleans())
    def peer_answers(self, data: st.DataObject, reachable: bool) -> None:
        asked = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if not reachable:
            self.feed(worker_events.PeerUnreachable(asked.address, asked.tasks, asked.small))
            return
        there = [task for task in asked.tasks if data.draw(st.booleans())]
        self.data.update(dict.fromkeys(there))
        absent = [task for task in asked.tasks if task not in there]
        self.feed(worker_events.DataFetched(asked.address, [(task, 8) for task in there], absent, asked.small))

    @rule(task=st.integers(1, 3))
    def client_brings_data(self, task: int) -> None:
        self.data[task] = None
        self.feed(worker_events.DataPut([(task, 8)]))

    @invariant()
    def books_agree(self) -> None:
        worker_invariants.check(self.machine)
        held = {task for task, replica in self.machine.replicas.items() if replica.held}
        assert held == set(self.data)
        assert all(run in self.machine.runs or run in self.answered for run in self.assigned), "a run was forgotten"


class NannyUnderChaos(RuleBasedStateMachine):
    """A process that comes and goes as it likes, timers, and people with wishes."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = words.NannyMachine(NannySettings())
        self.now = 0.0
        self.alive = False
        self.starts = 0
        self.backoffs: list[float] = []
        self.graces = 0
        self.stopping = False
        self.closed: int | None = None
        self.feed(words.StartWanted())

    def feed(self, event: words.NannyEvent) -> None:
        for asked in self.machine.handle(event, self.now):
            assert self.closed is None, "it goes on after its end"
            if isinstance(asked, words.StartProcess):
                assert not self.alive, "two processes"
                assert not self.stopping, "started while it closes"
                self.alive = True
                self.starts += 1
            elif isinstance(asked, words.WaitBackoff):
                self.backoffs.append(asked.delay_s)
            elif isinstance(asked, words.AskToStop):
                self.graces += 1
            elif isinstance(asked, words.KillProcess):
                assert self.machine.state in ("up", "stopping", "restarting")
            elif isinstance(asked, words.CloseNanny):
                assert not self.alive, "it leaves its process behind"
                self.closed = asked.exit_code

    @rule(seconds=st.sampled_from([0.01, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.alive)
    @rule()
    def process_registers(self) -> None:
        self.feed(words.ProcessRegistered())

    @precondition(lambda self: self.alive)
    @rule(code=st.sampled_from([0, 1, -9, -11]), told=st.booleans(), again=st.booleans())
    def process_ends(self, code: int, told: bool, again: bool) -> None:
        if told:
            self.feed(words.ProcessLeft(code, again))
        self.alive = False
        self.feed(words.ProcessEnded(code))

    @precondition(lambda self: self.backoffs)
    @rule()
    def backoff_ends(self) -> None:
        delay_s = self.backoffs.pop(0)
        assert 0.0 <= delay_s <= NannySettings().backoff_max_s
        self.now += delay_s
        self.feed(words.BackoffEnded())

    @precondition(lambda self: self.graces)
    @rule()
    def grace_ends(self) -> None:
        self.graces -= 1
        self.feed(words.GraceEnded())

    @rule(gigabytes=st.integers(0, 3))
    def memory_is_measured(self, gigabytes: int) -> None:
        if self.alive:
            self.feed(words.MemoryMeasured(gigabytes << 30, 2 << 30))

    @rule()
    def restart_is_wanted(self) -> None:
        self.feed(words.RestartWanted())

    @precondition(lambda self: self.starts > 2)
    @rule()
    def stop_is_wanted(self) -> None:
        self.stopping = True
        self.feed(words.StopWanted())

    @invariant()
    def somebody_keeps_it_alive(self) -> None:
        state = self.machine.state
        assert self.alive == (state in ("starting", "up", "restarting", "stopping"))
        assert (state == "backing off") <= bool(self.backoffs), "nobody will start it again"
        assert (state == "closed") == (self.closed is not None)
        if self.closed is not None and not self.stopping:
            assert self.machine._parting_code is not None, "it closed, and nobody wanted it to"


TestScheduler = SchedulerUnderChaos.TestCase
TestScheduler.settings = FEW
TestWorker = WorkerUnderChaos.TestCase
TestWorker.settings = FEW
TestNanny = NannyUnderChaos.TestCase
TestNanny.settings = FEW


QUICK = settings(FEW, max_examples=300)


def test_scheduler_under_chaos_finds_a_replica_that_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED["a_replica_that_is_not_given_up"][0](monkeypatch)
    with pytest.raises((AssertionError, InvariantBroken)):
        run_state_machine_as_test(SchedulerUnderChaos, settings=QUICK)


def test_worker_under_chaos_finds_a_peer_that_is_asked_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED["a_peer_that_is_asked_in_vain_for_ever"][0](monkeypatch)
    with pytest.raises((AssertionError, InvariantBroken)):
        run_state_machine_as_test(WorkerUnderChaos, settings=QUICK)


def test_nanny_under_chaos_finds_one_that_does_not_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED["a_nanny_that_does_not_restart"][0](monkeypatch)
    with pytest.raises((AssertionError, InvariantBroken)):
        run_state_machine_as_test(NannyUnderChaos, settings=QUICK)
