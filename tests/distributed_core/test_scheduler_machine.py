"""The scheduler's decisions, without a network: events in, instructions out."""

from __future__ import annotations

from typing import Any

from distributed_core import messages
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions, invariants
from distributed_core.settings import SchedulerSettings

F = b"digest"


class Bench:
    """A scheduler, what it sent to whom, and a clock."""

    def __init__(self, **settings: Any) -> None:
        self.machine = SchedulerMachine(SchedulerSettings(**settings))
        self.now = 0.0
        self.sent: dict[int, list[Any]] = {}
        self.peers = 0

    def feed(self, event: events.SchedulerEvent) -> None:
        for asked in self.machine.handle(event, self.now):
            if isinstance(asked, instructions.Send):
                self.sent.setdefault(asked.peer, []).extend(asked.messages)
            assert not isinstance(asked, instructions.Drop), asked
        invariants.check(self.machine)

    def worker(self, nthreads: int = 1, name: str = "", **details: Any) -> int:
        self.peers += 1
        self.feed(
            events.WorkerJoined(self.peers, f"10.0.0.{self.peers}:1", name or f"w{self.peers}", nthreads, details)
        )
        return self.peers

    def client(self, weight: float = 1.0) -> int:
        self.peers += 1
        ledger = self.machine.ledger
        first = not any(client > 0 for client in ledger.clients)
        self.feed(events.ClientJoined(self.peers, f"c{self.peers}", weight))
        if first:
            ledger.clients[self.peers].base = 0  # Easier to read: its numbers are those of its tasks.
        self.say(self.peers, messages.Submission([[F, "f", b"body"]], []))
        return self.peers

    def say(self, peer: int, *words: Any) -> None:
        self.feed(events.Received(peer, list(words)))

    def submit(
        self, client: int, number: int, inputs: tuple[int, ...] = (), key: str | None = None, **options: Any
    ) -> None:
        priority = options.pop("priority", 0)
        self.say(client, messages.Submission([], [[number, None, F, [], list(inputs), priority, options or None]]))

    def take(self, peer: int, word: type) -> list[Any]:
        """Return what was sent to `peer` of this kind, and forget it."""
        found = [each for each in self.sent.get(peer, []) if type(each) is word]
        self.sent[peer] = [each for each in self.sent.get(peer, []) if type(each) is not word]
        return found

    def runs(self, worker: int) -> list[messages.Assignment]:
        return self.take(worker, messages.Assignment)

    def finish(self, worker: int, run: messages.Assignment, nbytes: int = 8, duration_s: float = 0.01) -> None:
        self.say(worker, messages.Completion(run.task, run.run, nbytes, duration_s, None))


def test_an_answer_with_an_old_run_id_is_dropped() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    (first,) = bench.runs(one)
    bench.say(one, messages.Rejection(first.task, first.run, [], []))
    (second,) = bench.runs(one)
    assert second.task == first.task
    bench.finish(one, first)
    assert not bench.take(client, messages.Finished)
    bench.finish(one, second)
    assert [each.number for each in bench.take(client, messages.Finished)] == [1]


def test_clients_share_by_weight_and_a_newcomer_need_not_wait() -> None:
    bench = Bench()
    one = bench.worker()
    many, few = bench.client(), bench.client(weight=3.0)
    for number in range(1, 201):
        bench.submit(many, number)
    for _ in range(20):
        for run in bench.runs(one):
            bench.finish(one, run)
    for number in range(1, 101):
        bench.submit(few, number)
    ended = 0
    while ended < 40:
        for run in bench.runs(one):
            bench.finish(one, run)
            ended += 1
    # Three of four turns are the newcomer's.
    done = len(bench.take(few, messages.Finished))
    assert 25 <= done <= 33


def test_priorities_within_a_client() -> None:
    bench = Bench()
    client = bench.client()
    for number, priority in ((1, 0), (2, 5), (3, -1), (4, 5)):
        bench.submit(client, number, priority=priority)
    one = bench.worker()
    order = []
    while runs := bench.runs(one):
        for run in runs:
            order.append(run.task)
            bench.finish(one, run)
    assert order == [2, 4, 1, 3]


def test_restrictions_wait_and_then_run_and_say_so() -> None:
    bench = Bench()
    other = bench.worker(name="bob")
    client = bench.client()
    bench.submit(client, 1, workers=["alice"])
    bench.submit(client, 2, workers=["alice"])
    bench.submit(client, 3, workers=["alice"], loose=True)
    assert [run.task for run in bench.runs(other)] == [3]
    (notice,) = bench.take(client, messages.Notice)
    assert "alice" in notice.text
    alice = bench.worker(name="alice")
    assert [run.task for run in bench.runs(alice)] == [1, 2]
    bench.submit(client, 4, workers=["10.0.0.1"])
    assert [run.task for run in bench.runs(other)] == [4]


def test_resources_are_never_given_twice_even_to_a_withdrawn_run() -> None:
    bench = Bench()
    one = bench.worker(nthreads=8, resources={"GPU": 2.0})
    client = bench.client()
    for number in (1, 2, 3):
        bench.submit(client, number, resources={"GPU": 1.0})
    first, second = bench.runs(one)
    bench.say(client, messages.Release([1]))
    # The thread of the withdrawn run may still be at the GPU.
    assert not bench.runs(one)
    bench.say(one, messages.Departure(first.run))
    (third,) = bench.runs(one)
    bench.finish(one, second)
    bench.finish(one, third)
    assert bench.machine.ledger.workers[one].free == {"GPU": 2.0}


def test_retries_are_counted() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    bench.submit(client, 1, retries=2)
    for _ in range(3):
        assert not bench.take(client, messages.Failed)
        (run,) = bench.runs(one)
        bench.say(one, messages.Failure(run.task, run.run, [], "ValueError", 0.1, "exception"))
    assert not bench.runs(one)
    (failed,) = bench.take(client, messages.Failed)
    assert failed.kind == "exception"
    bench.say(client, messages.Retrial([1]))
    assert bench.take(client, messages.Pending)
    (run,) = bench.runs(one)
    bench.finish(one, run)
    assert bench.take(client, messages.Finished)


def test_the_culprit_alone_fails() -> None:
    bench = Bench()
    client = bench.client()
    for number in range(1, 7):
        bench.submit(client, number)
    culprit = 2
    for _ in range(30):
        one = bench.worker(nthreads=2)
        dead = False
        while not dead and (runs := bench.runs(one)):
            for run in runs:
                if run.task == culprit:
                    dead = True
                    break
                bench.finish(one, run)
        if not dead:
            break
        bench.feed(events.WorkerLost(one, -11, 5 << 20))
    (failed,) = bench.take(client, messages.Failed)
    assert (failed.number, failed.kind) == (culprit, "KilledWorker")
    assert "signal 11" in failed.text and "5 MiB" in failed.text and "4 of them while it ran alone" in failed.text
    assert {each.number for each in bench.take(client, messages.Finished)} == {1, 3, 4, 5, 6}


def test_a_worker_that_ends_itself_over_a_stubborn_task_blames_nobody() -> None:
    bench = Bench()
    one = bench.worker(nthreads=2)
    client = bench.client()
    bench.submit(client, 1)
    bench.submit(client, 2)
    cancelled, _ = bench.runs(one)
    bench.say(client, messages.Cancellation([1], False, ""))
    assert bench.take(one, messages.Withdrawal) == [messages.Withdrawal(cancelled.task, cancelled.run, True)]
    bench.say(one, messages.Sacrifice("it went on"))
    bench.feed(events.WorkerLost(one))
    other = bench.worker(nthreads=2)
    (run,) = bench.runs(other)
    task = bench.machine.ledger.tasks[run.task]
    assert task.troubles is None


def test_an_idle_worker_takes_what_waits_behind_a_long_task_and_it_comes_to_rest() -> None:
    bench = Bench()
    busy = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    bench.submit(client, 2)
    running, queued = bench.runs(busy)
    bench.now = 30.0
    idle = bench.worker()
    (recall,) = bench.take(busy, messages.Recall)
    assert recall.run == queued.run
    bench.say(busy, messages.Yielding(queued.task, queued.run, True))
    assert [run.task for run in bench.runs(idle)] == [queued.task]
    bench.now = 60.0
    bench.say(busy, messages.Heartbeat({}))
    bench.say(idle, messages.Heartbeat({}))
    assert not bench.take(busy, messages.Recall) + bench.take(idle, messages.Recall)
    assert running.task != queued.task


def test_large_data_does_not_move_for_a_short_task() -> None:
    bench = Bench()
    busy = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    (run,) = bench.runs(busy)
    bench.finish(busy, run, nbytes=10**9, duration_s=0.001)
    for number in range(2, 6):
        bench.submit(client, number, inputs=(1,))
    bench.worker()
    bench.now += 1.0
    bench.say(busy, messages.Heartbeat({}))
    assert not bench.take(busy, messages.Recall)


def test_a_run_that_started_is_not_asked_for_again() -> None:
    bench = Bench()
    busy = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    bench.submit(client, 2)
    _, queued = bench.runs(busy)
    bench.now = 30.0
    idle = bench.worker()
    assert bench.take(busy, messages.Recall)
    bench.say(busy, messages.Yielding(queued.task, queued.run, False))
    bench.now = 60.0
    bench.say(idle, messages.Heartbeat({}))
    assert not bench.take(busy, messages.Recall)


def test_a_task_that_seceded_makes_room_and_a_suspect_may_wait_for_its_own() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    (outer,) = bench.runs(one)
    for number in range(2, 12):
        bench.submit(client, number)
    before = len(bench.runs(one))
    bench.say(one, messages.Secession(outer.task, outer.run))
    assert len(bench.runs(one)) == 1
    bench.say(one, messages.Return(outer.task, outer.run))
    bench.finish(one, outer)
    assert before == 1


def test_a_client_that_leaves_with_many_futures_goes_in_parts() -> None:
    bench = Bench(release_numbers_max=10)
    one = bench.worker()
    client = bench.client()
    for number in range(1, 41):
        bench.submit(client, number, inputs=(number - 1,) if number > 1 else ())
    bench.feed(events.ClientLost(client))
    assert len(bench.machine.ledger.tasks) == 30
    for _ in range(3):
        bench.feed(events.Continued())
    assert not bench.machine.ledger.tasks and not bench.machine.ledger.functions
    assert bench.take(one, messages.Withdrawal)


def test_a_worker_retires_without_losing_data() -> None:
    bench = Bench()
    one = bench.worker(nthreads=2)
    client = bench.client()
    bench.submit(client, 1)
    (run,) = bench.runs(one)
    bench.finish(one, run)
    bench.feed(events.RetirementWanted([one]))
    progress = {one: ""}
    bench.feed(events.RetirementPursued(progress))
    assert "no other worker" in progress[one]
    other = bench.worker()
    bench.submit(client, 2)
    assert not bench.runs(one) and len(bench.runs(other)) == 1
    bench.feed(events.RetirementPursued(progress))
    (wanted,) = bench.take(other, messages.Acquisition)
    assert progress[one] == "copying" and wanted.items == [[run.task, 8, ["10.0.0.1:1"]]]
    bench.say(other, messages.Possession([[run.task, 8]]))
    bench.feed(events.RetirementPursued(progress))
    assert progress[one] == "done"
    bench.feed(events.WorkerLost(one))
    assert not bench.take(client, messages.Pending)
