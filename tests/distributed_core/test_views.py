"""Books that differ are mended: whatever one side forgets or makes up, soon the task runs or its data is found."""

from __future__ import annotations

from typing import Any

import pytest

from distributed_core import messages
from distributed_core.machines.scheduler import SchedulerMachine
from distributed_core.machines.scheduler import events as scheduler_events
from distributed_core.machines.scheduler import instructions as scheduler_instructions
from distributed_core.machines.scheduler import invariants as scheduler_invariants
from distributed_core.machines.scheduler.peers import Lingering, WorkerPeer
from distributed_core.machines.scheduler.tasks import READY, Assigned, Held, Task
from distributed_core.machines.worker import WorkerMachine
from distributed_core.machines.worker import events as worker_events
from distributed_core.machines.worker import instructions as worker_instructions
from distributed_core.machines.worker import invariants as worker_invariants
from distributed_core.machines.worker.beliefs import TALLY_S_PER_RESULT
from distributed_core.machines.worker.replicas import Replica
from distributed_core.settings import SchedulerSettings

F = b"digest"
CLIENT = 100


class Pair:
    """A scheduler, real workers of two threads each, a client; what they say arrives when it is let through."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.scheduler = SchedulerMachine(SchedulerSettings(**settings))
        self.now = 0.0
        self.workers: dict[int, WorkerMachine] = {}
        self.running: dict[int, dict[int, worker_instructions.Execute]] = {}
        self.up: list[tuple[int, list[Any]]] = []
        self.down: list[tuple[int, list[Any]]] = []
        self.told: dict[int, list[Any]] = {}
        self.swallowed: list[type] = []
        for peer in range(1, workers + 1):
            self.workers[peer] = WorkerMachine()
            self.running[peer] = {}
            self.feed(scheduler_events.WorkerJoined(peer, f"10.0.0.{peer}:1", f"w{peer}", 2, {}))
            self.act(peer, worker_events.Registered())
        self.feed(scheduler_events.ClientJoined(CLIENT, "someone"))
        self.ledger.clients[CLIENT].base = 0
        self.say(messages.Submission([[F, "f", b"body"]], []))
        self.settle()

    @property
    def ledger(self) -> Any:
        return self.scheduler.ledger

    def peer(self, number: int = 1) -> WorkerPeer:
        found: WorkerPeer = self.ledger.workers[number]
        return found

    def task(self, number: int) -> Task:
        found: Task = self.ledger.tasks[number]
        return found

    def feed(self, event: scheduler_events.SchedulerEvent) -> None:
        for asked in self.scheduler.handle(event, self.now):
            if isinstance(asked, scheduler_instructions.Send):
                if asked.peer in self.workers:
                    self.down.append((asked.peer, self.without_swallowed(asked.messages)))
                else:
                    self.told.setdefault(asked.peer, []).extend(asked.messages)
            assert not isinstance(asked, scheduler_instructions.Drop), asked

    def without_swallowed(self, said: list[Any]) -> list[Any]:
        """Lose the first message of each kind that is to be lost."""
        left = []
        for message in said:
            if type(message) in self.swallowed:
                self.swallowed.remove(type(message))
            else:
                left.append(message)
        return left

    def say(self, *said: Any) -> None:
        self.feed(scheduler_events.Received(CLIENT, list(said)))

    def act(self, peer: int, event: worker_events.WorkerEvent) -> None:
        for asked in self.workers[peer].handle(event, self.now):
            if isinstance(asked, worker_instructions.Report):
                self.up.append((peer, self.without_swallowed(asked.messages)))
            elif isinstance(asked, worker_instructions.Execute):
                self.running[peer][asked.run] = asked
            elif isinstance(asked, worker_instructions.TakeBack):
                self.act(peer, worker_events.RunTaken(asked.run, False))
            elif isinstance(asked, worker_instructions.Fetch):
                holder = next(each for each in self.workers if self.peer(each).address == asked.address)
                held = self.workers[holder].replicas
                there = [task for task in asked.tasks if task in held and held[task].held]
                gone = [task for task in asked.tasks if task not in there]
                arrived = [(task, 8) for task in there]
                self.act(peer, worker_events.DataFetched(asked.address, arrived, gone, asked.small))

    def settle(self) -> None:
        """Let through what is under way, until nothing is."""
        while self.up or self.down:
            if self.up:
                peer, said = self.up.pop(0)
                self.feed(scheduler_events.Received(peer, said))
            else:
                peer, said = self.down.pop(0)
                self.act(peer, worker_events.Instructed(said))

    def run_all(self) -> None:
        """End whatever runs, until nothing does."""
        self.settle()
        while any(self.running.values()):
            for peer in self.workers:
                for run in list(self.running[peer]):
                    del self.running[peer][run]
                    self.act(peer, worker_events.Executed([worker_events.RunFinished(run, 8, 0.01, None)]))
            self.settle()

    def beat(self, *, settled: bool = True) -> None:
        self.now += 1.0
        for peer in self.workers:
            self.act(peer, worker_events.HeartbeatDue())
        if settled:
            self.settle()

    def submit(self, number: int, *inputs: int, **options: Any) -> None:
        self.say(messages.Submission([], [[number, None, F, [], list(inputs), 0, options or None]]))

    def hold(self, *numbers: int) -> None:
        """Let tasks run to their end."""
        for number in numbers:
            self.submit(number)
        self.run_all()
        assert all(type(self.task(number).state) is Held for number in numbers)

    def holder(self, number: int) -> int:
        state = self.task(number).state
        assert type(state) is Held
        return state.workers[0].id

    def check(self) -> None:
        """Nothing is under way, both sides agree, and their books are sound."""
        assert not self.up and not self.down
        scheduler_invariants.check(self.scheduler)
        mended = self.ledger.mended
        self.beat()
        assert self.ledger.mended == mended
        for peer, machine in self.workers.items():
            worker_invariants.check(machine)
            books = self.peer(peer)
            assert set(books.held) == {task for task, each in machine.replicas.items() if each.held}
            runs = {each.state.run for each in books.assigned.values() if type(each.state) is Assigned}
            assert runs == set(machine.runs)
            assert set(books.lingering) == set(machine.lingering)
            assert not books.view.serial and not books.view.held and not books.view.doubted

    def finished(self) -> list[int]:
        return [each.number for each in self.told.get(CLIENT, []) if type(each) is messages.Finished]


def healed(pair: Pair) -> None:
    """Two heartbeats, and the work that they set free."""
    pair.beat()
    pair.beat()
    pair.run_all()
    assert pair.ledger.mended > 0
    pair.check()


# --- data ---------------------------------------------------------------------------------------------


def test_data_that_a_worker_lost_is_made_again() -> None:
    pair = Pair()
    pair.hold(1, 2)
    del pair.workers[pair.holder(1)].replicas[1]
    healed(pair)
    pair.submit(3, 1, 2)
    pair.run_all()
    assert pair.finished().count(3) == 1 and type(pair.task(1).state) is Held


def test_data_that_the_scheduler_forgot_is_found_again() -> None:
    """Its books of the worker are wrong, the task's own state is right."""
    pair = Pair()
    pair.hold(1)
    peer = pair.peer(pair.holder(1))
    del peer.held[1]
    peer.nbytes -= 8
    runs = pair.ledger._run_ids
    healed(pair)
    assert 1 in peer.held and pair.ledger._run_ids == runs


def test_a_holder_that_is_none() -> None:
    pair = Pair()
    pair.hold(1)
    other = pair.peer(3 - pair.holder(1))
    pair.ledger.move(pair.task(1), Held((*pair.task(1).state.workers, other), 8))  # type: ignore[attr-defined]
    healed(pair)
    assert pair.holder(1) != other.id


def test_data_that_nobody_asked_for_goes() -> None:
    pair = Pair()
    replica = pair.workers[1].replicas[77] = Replica(77, 8)
    replica.held = True
    healed(pair)
    assert 77 not in pair.workers[1].replicas


def test_a_copy_of_which_nobody_knew_is_a_copy() -> None:
    pair = Pair()
    pair.hold(1)
    other = 3 - pair.holder(1)
    replica = pair.workers[other].replicas[1] = Replica(1, 8)
    replica.held = True
    healed(pair)
    assert len(pair.task(1).state.workers) == 2  # type: ignore[attr-defined]


# --- runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_data", [True, False])
def test_a_report_that_was_lost(with_data: bool) -> None:
    """The task is done where its data is, and else runs again."""
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    pair.swallowed = [messages.Completion]
    runs = pair.ledger._run_ids
    pair.run_all()
    if not with_data:
        del pair.workers[1].replicas[1]
    healed(pair)
    assert pair.finished() == [1]
    assert pair.ledger._run_ids == runs + (not with_data)


def test_an_assignment_that_was_lost() -> None:
    pair = Pair(1)
    pair.swallowed = [messages.Assignment]
    pair.submit(1)
    pair.run_all()
    assert pair.finished() == []
    # What it never got counts as sent for ever: nothing could be compared.
    pair.beat()
    pair.beat()
    pair.run_all()
    assert pair.finished() == [1]
    # And once it was asked, all can be compared again.
    del pair.workers[1].replicas[1]
    mended = pair.ledger.mended
    pair.beat()
    pair.beat()
    assert pair.ledger.mended == mended + 1


def test_a_run_that_the_worker_forgot() -> None:
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    pair.workers[1].runs.clear()
    pair.running[1].clear()
    healed(pair)
    assert pair.finished() == [1]


def test_a_run_that_the_scheduler_forgot() -> None:
    """Its books of the worker are wrong; the task's own state says where it runs."""
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    peer = pair.peer()
    peer.assigned.clear()
    peer.occupancy_s = 0.0
    runs = pair.ledger._run_ids
    healed(pair)
    assert pair.finished() == [1] and pair.ledger._run_ids == runs


def test_a_run_that_nobody_counts() -> None:
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    pair.ledger.move(pair.task(1), READY)
    first = next(iter(pair.workers[1].runs))
    pair.beat()
    pair.beat()
    assert first in pair.workers[1].lingering
    pair.run_all()
    assert pair.finished() == [1]
    pair.check()


# --- what lingers, what is counted ------------------------------------------------------------------


def test_a_withdrawal_and_a_departure_that_were_lost() -> None:
    for lost in (messages.Withdrawal, messages.Departure):
        pair = Pair(1)
        pair.submit(1)
        pair.settle()
        pair.swallowed = [lost]
        pair.say(messages.Release([1]))
        pair.run_all()
        pair.beat()
        pair.beat()
        pair.run_all()
        assert pair.ledger.mended > 0 and not pair.ledger.tasks and not pair.peer().lingering
        pair.submit(2)
        pair.run_all()
        assert pair.finished()[-1] == 2


def test_a_disposal_that_was_lost() -> None:
    pair = Pair(1)
    pair.hold(1)
    pair.swallowed = [messages.Disposal]
    pair.say(messages.Release([1]))
    pair.settle()
    assert 1 in pair.workers[1].replicas
    pair.beat()
    pair.beat()
    assert not pair.workers[1].replicas


def test_a_run_that_lingers_at_the_scheduler_alone() -> None:
    pair = Pair(1)
    pair.peer().lingering[99] = Lingering((), ())
    pair.ledger.review(pair.peer())
    healed(pair)
    assert not pair.peer().lingering


def test_counts_of_a_worker_follow_the_states_of_tasks() -> None:
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    peer = pair.peer()
    peer.occupancy_s, peer.seceded, peer.nbytes = 1e9, 3, 12345
    del pair.workers[1].runs[next(iter(pair.workers[1].runs))]
    pair.running[1].clear()
    healed(pair)
    assert pair.finished() == [1]


def test_a_body_that_is_not_there_is_sent_again() -> None:
    """At once: no heartbeat is needed."""
    pair = Pair(1)
    pair.hold(1)
    pair.workers[1].functions.clear()
    pair.submit(2)
    pair.run_all()
    assert pair.finished() == [1, 2]
    pair.check()


# --- what is no difference ----------------------------------------------------------------------------


def test_what_is_under_way_is_no_difference() -> None:
    pair = Pair(2, unsure_tallies_max=3)
    for number in range(1, 60):
        pair.submit(number, *([number - 1] if number % 3 == 0 else []))
        if number % 2:
            pair.beat(settled=False)
        if number % 4 == 0 and pair.down:
            peer, said = pair.down.pop(0)
            pair.act(peer, worker_events.Instructed(said))
        if number % 5 == 0 and pair.up:
            peer, said = pair.up.pop(0)
            pair.feed(scheduler_events.Received(peer, said))
        if number % 7 == 0:
            pair.say(messages.Release([number - 1, number - 2]))
        for peer in pair.workers:
            for run in list(pair.running[peer])[: number % 3]:
                del pair.running[peer][run]
                pair.act(peer, worker_events.Executed([worker_events.RunFinished(run, 8, 0.01, None)]))
    asked = [pair.peer(peer).view.asked for peer in pair.workers]
    pair.run_all()
    assert all(asked), "nobody was asked for an inventory: this shows nothing"
    pair.check()
    assert pair.ledger.mended == 0


def test_a_difference_is_found_while_something_is_always_under_way() -> None:
    pair = Pair(1)
    pair.hold(1)
    del pair.workers[1].replicas[1]
    for number in range(2, 40):
        # The next assignment leaves before the heartbeat comes in.
        pair.beat(settled=False)
        pair.submit(number)
        pair.settle()
        pair.run_all()
        if pair.ledger.mended:
            break
    assert pair.ledger.mended == 1 and number <= 3
    pair.check()


def test_data_whose_task_runs_again_there_is_no_difference() -> None:
    pair = Pair(1)
    pair.submit(1)
    pair.settle()
    # A copy that was under way from elsewhere came in: the run replaces it.
    pair.act(1, worker_events.DataFetched("10.0.0.9:1", [(1, 8)], []))
    pair.settle()
    assert 1 in pair.workers[1].replicas and type(pair.task(1).state) is Assigned
    for _ in range(3):
        pair.beat()
    assert not pair.peer().view.asked
    # Nor where it is asked for something else.
    pair.peer().lingering[99] = Lingering((), ())
    pair.ledger.review(pair.peer())
    pair.beat()
    assert pair.ledger.mended == 1
    pair.run_all()
    pair.check()


def test_tallies_of_very_much_are_rare() -> None:
    machine = WorkerMachine()
    machine.handle(worker_events.DataPut([(task, 8) for task in range(1, 50_001)]), 0.0)
    due_s = 50_000 * TALLY_S_PER_RESULT

    def tallies(now: float) -> int:
        return len(machine.handle(worker_events.HeartbeatDue(), now))

    assert [tallies(1.0), tallies(1.0 + due_s / 2), tallies(1.0 + due_s)] == [1, 0, 1]


def test_an_inventory_comes_in_pieces() -> None:
    pair = Pair(1)
    pair.hold(1, 2, 3)
    machine = pair.workers[1]
    machine.settings = type(machine.settings)(told_at_once_max=2)
    del machine.replicas[2]
    pair.beat()
    assert pair.ledger.mended == 1
    pair.run_all()
    pair.check()


@pytest.mark.parametrize(
    "said", [messages.Stocktaking(1, 1, [], [], [], True), messages.Stocktaking(0, 0, [[1, 1]], [], [], False)]
)
def test_an_inventory_that_nobody_asked_for(said: messages.Stocktaking) -> None:
    pair = Pair(1)
    asked = pair.scheduler.handle(scheduler_events.Received(1, [said]), 0.0)
    assert [type(each) for each in asked] == [scheduler_instructions.Drop]
