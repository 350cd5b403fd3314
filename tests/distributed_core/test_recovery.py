"""The scheduler's machine when workers and clients come back, to it or to another one in its place."""

from __future__ import annotations

from typing import Any

from distributed_core import messages
from distributed_core.machines.scheduler import events, instructions
from distributed_core.machines.scheduler.recovery import task_base
from tests.distributed_core.test_scheduler_machine import Bench, F

NAME = "someone"
BASE = task_base(NAME)


class Comeback(Bench):
    """A scheduler that starts with nothing."""

    def returning_worker(self, *held: tuple[int, int], running: tuple[tuple[int, int], ...] = ()) -> int:
        self.peers += 1
        address = f"10.0.0.{self.peers}:1"
        self.feed(events.WorkerJoined(self.peers, address, f"w{self.peers}", 1, {"id": address}, returns=True))
        words: list[Any] = [messages.Possession([list(each) for each in held])] if held else []
        if running:
            words.append(messages.Continuation([list(each) for each in running]))
        self.say(self.peers, *words, messages.Presence(len(held) + len(running)))
        return self.peers

    def returning_client(self, *tasks: list[Any], workers: int = 0, released: tuple[int, ...] = ()) -> int:
        self.peers += 1
        self.feed(events.ClientJoined(self.peers, NAME, returns=True))
        words: list[Any] = [messages.Submission([[F, "f", b"body"]], list(tasks))]
        if released:
            words.append(messages.Release(list(released)))
        self.say(self.peers, *words, messages.Reunion(workers))
        return self.peers

    def finished(self, client: int) -> list[int]:
        return [each.number for each in self.take(client, messages.Finished)]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.feed(events.RecoveryChecked())


def task(number: int, *inputs: int, key: str | None = None) -> list[Any]:
    return [number, key, F, b"", list(inputs), 0, None]


def test_held_data_is_claimed_whoever_comes_first() -> None:
    for worker_first in (True, False):
        bench = Comeback()
        if worker_first:
            worker = bench.returning_worker((BASE + 2, 8))
        client = bench.returning_client(task(1), task(2, 1), task(3, 2), workers=1, released=(1,))
        if not worker_first:
            worker = bench.returning_worker((BASE + 2, 8))
        assert bench.finished(client) == [2]
        (run,) = bench.runs(worker)
        assert run.task == BASE + 3 and run.inputs == [[BASE + 2, 8, []]]


def test_nothing_is_assigned_before_the_workers_are_there_that_the_client_knew() -> None:
    bench = Comeback()
    client = bench.returning_client(task(1), task(2), workers=2)
    one = bench.returning_worker()
    assert bench.runs(one) == []
    other = bench.returning_worker((BASE + 1, 8))
    assert bench.finished(client) == [1]
    assert [run.task for run in (*bench.runs(one), *bench.runs(other))] == [BASE + 2]


def test_but_not_for_ever() -> None:
    bench = Comeback()
    bench.returning_client(task(1), workers=2)
    one = bench.returning_worker()
    bench.pass_time(bench.machine.settings.recovery_wait_s)
    assert [run.task for run in bench.runs(one)] == [BASE + 1]


def test_a_run_that_goes_on_counts_and_its_number_is_not_used_again() -> None:
    bench = Comeback()
    worker = bench.returning_worker(running=((BASE + 1, 500),))
    client = bench.returning_client(task(1), task(2), workers=1)
    (other,) = bench.runs(worker)
    assert other.task == BASE + 2 and other.run > 500
    bench.say(worker, messages.Completion(BASE + 1, 500, 8, 0.1, None))
    assert bench.finished(client) == [1]


def test_a_run_that_ends_before_anybody_asks_for_it() -> None:
    bench = Comeback()
    worker = bench.returning_worker(running=((BASE + 1, 500), (BASE + 2, 501)))
    bench.say(worker, messages.Completion(BASE + 1, 500, 8, 0.1, None))
    bench.say(worker, messages.Failure(BASE + 2, 501, None, "ValueError", 0.1, "exception"))
    client = bench.returning_client(task(1), task(2), workers=1)
    assert bench.finished(client) == [1]
    assert [run.task for run in bench.runs(worker)] == [BASE + 2]


def test_what_nobody_claims_goes() -> None:
    bench = Comeback()
    worker = bench.returning_worker((BASE + 1, 8), running=((BASE + 2, 500),))
    bench.pass_time(bench.machine.settings.recovery_s)
    assert bench.take(worker, messages.Disposal) == [messages.Disposal([BASE + 1])]
    assert bench.take(worker, messages.Withdrawal) == [messages.Withdrawal(BASE + 2, 500, True)]
    assert bench.machine.ledger.recovery is None


def test_scattered_data_is_there_or_lost_for_good() -> None:
    bench = Comeback()
    worker = bench.returning_worker((BASE + 1, 80))
    bench.peers += 1
    client = bench.peers
    bench.feed(events.ClientJoined(client, NAME, returns=True))
    bench.say(client, messages.Reclaim([[1, None, 80], [2, None, 80]]), messages.Reunion(1))
    assert bench.finished(client) == [1]
    bench.pass_time(bench.machine.settings.recovery_s)
    assert [(each.number, each.kind) for each in bench.take(client, messages.Failed)] == [(2, "DataLost")]
    assert worker in bench.machine.ledger.workers


def test_failed_tasks_are_not_tried_again() -> None:
    bench = Comeback()
    worker = bench.returning_worker()
    bench.peers += 1
    client = bench.peers
    bench.feed(events.ClientJoined(client, NAME, returns=True))
    ruin = messages.Ruin(1, "exception", "ValueError", b"pickled")
    bench.say(client, messages.Submission([[F, "f", b""]], [task(1), task(2, 1)]), ruin, messages.Reunion(1))
    assert [each.number for each in bench.take(client, messages.Failed)] == [1, 2]
    assert bench.runs(worker) == []


def test_a_client_that_was_out_of_touch_finds_its_futures() -> None:
    """The scheduler lived on; it had not even noticed."""
    bench = Comeback()
    worker = bench.worker()
    bench.peers += 1
    first = bench.peers
    bench.feed(events.ClientJoined(first, NAME))
    bench.say(first, messages.Submission([[F, "f", b"body"]], [task(1), task(2), task(3)]))
    (run, *rest) = bench.runs(worker)
    bench.finish(worker, run)
    again = bench.returning_client(task(1), task(2), workers=1)
    bench.feed(events.ClientLost(first))
    assert bench.finished(again) == [1]
    assert set(bench.machine.ledger.clients[again].tasks) == {1, 2}
    for run in (*rest, *bench.runs(worker)):
        bench.finish(worker, run)
    assert bench.finished(again) == [2]


def test_a_worker_that_was_out_of_touch_blames_nobody_and_keeps_its_data() -> None:
    bench = Comeback()
    one = bench.worker(name="one")
    client = bench.client()
    for number in (1, 2):
        bench.submit(client, number)
    first, second = bench.runs(one)
    bench.finish(one, first)
    bench.feed(events.WorkerLost(one, alive=True))
    other = bench.worker(name="other")
    taken = bench.runs(other)
    assert {run.task for run in taken} == {first.task, second.task}
    back = bench.returning_worker((first.task, 8), running=((second.task, second.run),))
    # What it has is taken, what another one runs by now is not run twice.
    assert [each.run for each in bench.take(other, messages.Withdrawal)] == [
        run.run for run in taken if run.task == first.task
    ]
    assert bench.take(back, messages.Withdrawal) == [messages.Withdrawal(second.task, second.run, False)]
    task_record = bench.machine.ledger.tasks[second.task]
    assert task_record.troubles is None


def test_a_wish_waits_for_whoever_made_the_task() -> None:
    bench = Comeback()
    bench.peers += 1
    early = bench.peers
    bench.feed(events.ClientJoined(early, "other", returns=True))
    bench.say(early, messages.Wish([[1, "name"], [2, "nobody's"]]))
    worker = bench.returning_worker((BASE + 1, 8))
    bench.returning_client(task(1, key="name"), workers=1)
    bench.say(early, messages.Reunion(1))
    assert bench.finished(early) == [1]
    assert [each.number for each in bench.take(early, messages.Cancelled)] == [2]
    assert bench.runs(worker) == []


def test_the_machine_asks_for_its_timer() -> None:
    bench = Comeback()
    bench.peers += 1
    asked = bench.machine.handle(events.WorkerJoined(9, "10.0.0.9:1", "w9", 1, {}, returns=True), 0.0)
    delays = [each.delay_s for each in asked if isinstance(each, instructions.WatchRecovery)]
    assert delays == [bench.machine.settings.recovery_s]


def test_a_crash_during_recovery_leaves_the_count_of_workers_to_wait_for() -> None:
    bench = Comeback()
    bench.returning_worker()
    client = bench.returning_client(task(1), workers=3)
    bench.returning_worker()
    # What the client would tell the next scheduler.
    assert bench.take(client, messages.Roster)[-1] == messages.Roster(3)
    bench.pass_time(bench.machine.settings.recovery_s)
    assert bench.take(client, messages.Roster)[-1] == messages.Roster(2)


def test_withdrawn_runs_that_go_on_keep_their_numbers_and_their_threads() -> None:
    bench = Comeback()
    worker = bench.returning_worker(running=((0, 7),))
    assert bench.machine.ledger.workers[worker].active == 1
    bench.returning_client(task(1), workers=1)
    assert [run.run for run in bench.runs(worker)] == [8]
    bench.say(worker, messages.Departure(7))
    assert not bench.machine.ledger.workers[worker].lingering


def test_a_run_that_goes_on_of_a_future_that_failed_before_is_withdrawn() -> None:
    bench = Comeback()
    worker = bench.returning_worker(running=((BASE + 1, 7),))
    bench.peers += 1
    client = bench.peers
    bench.feed(events.ClientJoined(client, NAME, returns=True))
    ruin = messages.Ruin(1, "exception", "ValueError: no", None)
    bench.say(client, messages.Submission([[F, "f", b"body"]], [task(1)]), ruin, messages.Reunion(1))
    assert [(each.task, each.run) for each in bench.take(worker, messages.Withdrawal)] == [(BASE + 1, 7)]
    assert list(bench.machine.ledger.workers[worker].lingering) == [7]
    bench.say(worker, messages.Departure(7))
    assert not bench.machine.ledger.workers[worker].lingering


def test_a_wish_that_was_let_go_of_is_not_granted() -> None:
    for word in (messages.Release([1]), messages.Cancellation([1], False, "")):
        bench = Comeback()
        bench.peers += 1
        early = bench.peers
        bench.feed(events.ClientJoined(early, "other", returns=True))
        bench.say(early, messages.Wish([[1, "name"]]), word)
        bench.returning_worker((BASE + 1, 8))
        bench.returning_client(task(1, key="name"), workers=1)
        bench.say(early, messages.Reunion(1))
        assert not bench.machine.ledger.clients[early].tasks


def test_runs_that_nobody_claimed_keep_resources_that_nobody_knows_of() -> None:
    bench = Comeback()
    bench.peers += 1
    worker = bench.peers
    details = {"resources": {"R": 1.0}}
    bench.feed(events.WorkerJoined(worker, "10.0.0.9:1", "w", 2, details, returns=True))
    bench.say(worker, messages.Continuation([[BASE + 7, 3]]), messages.Presence(1))
    bench.returning_client([1, None, F, b"", [], 0, {"resources": {"R": 1.0}}], task(2), workers=1)
    assert [run.task for run in bench.runs(worker)] == [BASE + 2]
    bench.say(worker, messages.Completion(BASE + 7, 3, 8, 0.1, None))
    assert [run.task for run in bench.runs(worker)] == [BASE + 1]
