"""One task that a client knows under two numbers, both of them inputs of another: raw messages, on both machines."""

from __future__ import annotations

from typing import Any

import pytest

from distributed_core import messages
from distributed_core.machines.scheduler import events
from distributed_core.machines.worker import WorkerMachine, instructions, invariants
from distributed_core.machines.worker import events as worker_events
from tests.distributed_core.test_scheduler_machine import Bench, F


def shared(bench: Bench) -> tuple[int, int]:
    """Return a worker, and a client whose numbers 1, 2 and 3 are of two tasks: 1 and 3 of the same one."""
    worker, client = bench.worker(), bench.client()
    bench.say(client, messages.Submission([], [[1, "one", F, [], [], 0, None], [2, None, F, [], [], 0, None]]))
    bench.say(client, messages.Wish([[3, "one"]]))
    return worker, client


def finish_all(bench: Bench, worker: int) -> list[messages.Assignment]:
    """Finish all runs that come to the worker, one after the other, and return them."""
    runs: list[messages.Assignment] = []
    waiting = bench.runs(worker)
    while waiting:
        bench.finish(worker, waiting[0])
        runs.append(waiting.pop(0))
        waiting += bench.runs(worker)
    return runs


@pytest.mark.parametrize("early", [True, False])
def test_the_scheduler_counts_it_once_and_names_it_at_each_of_its_places(early: bool) -> None:
    bench = Bench()
    worker, client = shared(bench)
    if not early:
        assert [run.task for run in finish_all(bench, worker)] == [1, 2]
    bench.submit(client, 9, inputs=(3, 2, 1))
    tasks = bench.machine.ledger.tasks
    assert tasks[9].inputs == (tasks[1], tasks[2])
    # All is counted anew where its worker is lost.
    bench.feed(events.WorkerLost(worker))
    runs = finish_all(bench, bench.worker())
    assert [run.task for run in runs] == [1, 2, 9]
    assert [each[0] for each in runs[-1].inputs] == [1, 2, 1]
    assert 9 in [each.number for each in bench.take(client, messages.Finished)]
    bench.say(client, messages.Release([1, 2, 3, 9]))
    assert not list(tasks.values())


def test_the_same_number_twice_is_no_submission() -> None:
    bench = Bench()
    _, client = shared(bench)
    with pytest.raises(AssertionError, match="an input twice"):
        bench.submit(client, 9, inputs=(1, 1))


class Hand:
    """A worker's machine and what it asked for."""

    def __init__(self) -> None:
        self.machine = WorkerMachine()
        self.feed(worker_events.Instructed([messages.FunctionBody(1, "f", b"body")]))

    def feed(self, event: worker_events.WorkerEvent) -> list[Any]:
        out = self.machine.handle(event, 0.0)
        invariants.check(self.machine)
        return out

    def assign(self, *inputs: list[Any]) -> list[Any]:
        return self.feed(worker_events.Instructed([messages.Assignment(9, 5, 1, [], list(inputs), 0.0)]))


FAR = [1, 8, ["10.0.0.9:1"]]


def test_a_worker_fetches_it_once_and_gives_it_to_each_place() -> None:
    hand = Hand()
    assert hand.assign(FAR, FAR) == [instructions.Fetch("10.0.0.9:1", [1], small=True)]
    out = hand.feed(worker_events.DataFetched("10.0.0.9:1", [(1, 8)], [], small=True))
    (execute,) = [each for each in out if type(each) is instructions.Execute]
    assert execute.inputs == (1, 1)
    assert not hand.machine.waiting


def test_a_worker_that_cannot_fetch_it_or_loses_it_says_so_once() -> None:
    hand = Hand()
    hand.assign(FAR, FAR)
    (report,) = hand.feed(worker_events.PeerUnreachable("10.0.0.9:1", [1], small=True))
    assert report.messages == [messages.Rejection(9, 5, [], [[1, "10.0.0.9:1"]])]

    hand = Hand()
    hand.feed(worker_events.DataPut([(1, 8)]))
    (execute,) = hand.assign([1, 8, []], [1, 8, []])
    assert execute.inputs == (1, 1)
    out = hand.feed(worker_events.Executed([worker_events.RunStarved(5, [1, 1])]))
    assert [each.messages for each in out if type(each) is instructions.Report] == [
        [messages.Rejection(9, 5, [[1, ""]], [])]
    ]

    # Withdrawn while it waits, nothing of it is left.
    hand = Hand()
    hand.assign(FAR, FAR)
    hand.feed(worker_events.Instructed([messages.Withdrawal(9, 5, False)]))
    hand.feed(worker_events.DataFetched("10.0.0.9:1", [], [1], small=True))
    assert not hand.machine.runs
    assert not hand.machine.replicas
