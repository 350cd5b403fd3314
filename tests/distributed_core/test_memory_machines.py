"""Memory in the machines: when results go to disk, when a worker is paused, what is withheld from it."""

from __future__ import annotations

import dataclasses
import random
from functools import partial
from typing import Any

import pytest

from distributed_core import messages
from distributed_core.machines import nanny
from distributed_core.machines.scheduler import events, reasons
from distributed_core.machines.worker import WorkerMachine, instructions, invariants
from distributed_core.machines.worker import events as worker_events
from distributed_core.settings import WorkerSettings
from distributed_core.sim import run as simulation
from tests.benchmarks import model
from tests.distributed_core.test_scheduler_machine import Bench

MB = 1_000_000


# --- the worker's ---------------------------------------------------------------------------------


def taken(machine: WorkerMachine, process: int, held: int, spillable: int | None = None, spilled: int = 0) -> list[Any]:
    """Let the machine know what is taken, in MB; return what it asks for."""
    amounts = (process, held, held if spillable is None else spillable, spilled)
    out = machine.handle(worker_events.MemoryTaken(*(each * MB for each in amounts)), 0.0)
    invariants.check(machine)
    return out


def told(out: list[Any]) -> list[tuple[bool, int]]:
    return [
        (each.paused, each.spilled_bytes // MB)
        for asked in out
        if type(asked) is instructions.Report
        for each in asked.messages
    ]


def test_results_are_spilled_above_the_target_down_to_the_relief() -> None:
    machine = WorkerMachine(memory_limit_bytes=1000 * MB)
    assert taken(machine, 600, 600) == []
    assert taken(machine, 650, 601) == [instructions.Spill(201 * MB)]
    # Once is enough until it has ended.
    assert taken(machine, 650, 650) == []
    machine.handle(worker_events.SpillEnded(200 * MB), 0.0)
    assert taken(machine, 650, 650) == [instructions.Spill(250 * MB)]


def test_results_are_spilled_for_what_the_process_takes() -> None:
    machine = WorkerMachine(memory_limit_bytes=1000 * MB)
    assert taken(machine, 700, 100) == []
    assert taken(machine, 701, 100) == [instructions.Spill(100 * MB)]


def test_what_cannot_be_spilled_is_not_asked_for() -> None:
    machine = WorkerMachine(memory_limit_bytes=1000 * MB)
    assert taken(machine, 790, 790, 0) == []
    assert taken(machine, 790, 790, 10) == [instructions.Spill(10 * MB)]


def test_a_worker_is_paused_and_goes_on() -> None:
    machine = WorkerMachine(memory_limit_bytes=1000 * MB)
    assert told(taken(machine, 800, 0)) == []
    assert told(taken(machine, 801, 0)) == [(True, 0)]
    assert told(taken(machine, 900, 0)) == []
    assert told(taken(machine, 799, 0)) == [(False, 0)]


def test_news_of_the_disk_are_told_when_they_are_worth_it() -> None:
    machine = WorkerMachine(memory_limit_bytes=1000 * MB)
    assert told(taken(machine, 100, 100, spilled=15)) == []
    assert told(taken(machine, 100, 100, spilled=30)) == [(False, 30)]
    assert told(taken(machine, 100, 100, spilled=0)) == [(False, 0)]


def test_without_a_limit_nothing_is_decided() -> None:
    machine = WorkerMachine(WorkerSettings())
    assert taken(machine, 10**9, 10**9) == []


def test_a_run_whose_input_cannot_be_read_back_is_rejected() -> None:
    machine = WorkerMachine()
    machine.handle(worker_events.DataPut([(1, 8), (2, 8)]), 0.0)
    inputs = [[1, 8, []], [2, 8, []]]
    body = messages.FunctionBody(1, "f", b"")
    machine.handle(worker_events.Instructed([body, messages.Assignment(3, 7, 1, b"", inputs, 0.0)]), 0.0)
    out = machine.handle(worker_events.Executed([worker_events.RunStarved(7, (2,))]), 0.0)
    invariants.check(machine)
    assert out == [instructions.Discard([2]), instructions.Report([messages.Rejection(3, 7, [[2, ""]], [])])]


# --- the scheduler's: pause -----------------------------------------------------------------------


def pause(bench: Bench, worker: int, paused: bool = True, spilled: int = 0) -> None:
    bench.say(worker, messages.MemoryState(paused, spilled))


def test_a_paused_worker_gets_nothing_until_it_goes_on() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    pause(bench, one)
    bench.submit(client, 1)
    assert not bench.runs(one)
    assert "paused" in reasons.explain(bench.machine.ledger, "f-c2-1")
    assert bench.machine.worker_details()["10.0.0.1:1"]["paused"]
    pause(bench, one, False)
    (run,) = bench.runs(one)
    bench.finish(one, run)


def test_what_a_paused_worker_has_not_started_goes_to_others() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    for number in (1, 2):
        bench.submit(client, number)
    running, queued = bench.runs(one)
    other = bench.worker()
    bench.sent.clear()
    pause(bench, one)
    recalled = bench.take(one, messages.Recall)
    assert [each.run for each in recalled] in ([], [queued.run])  # or the idle newcomer had asked for it already
    bench.say(one, messages.Yielding(queued.task, queued.run, True))
    assert [run.task for run in bench.runs(other)] == [queued.task]
    bench.finish(one, running)
    assert len(bench.take(client, messages.Finished)) == 1


def test_nothing_is_recalled_where_no_other_worker_can_take_it() -> None:
    bench = Bench()
    one = bench.worker(name="alice")
    other = bench.worker(name="bob")
    client = bench.client()
    for number in (1, 2):
        bench.submit(client, number, workers=["alice"])
    assert len(bench.runs(one)) == 2
    pause(bench, one)
    assert not bench.take(one, messages.Recall)
    pause(bench, other)
    assert not bench.take(other, messages.Recall)


def test_a_suspect_does_not_run_on_a_paused_worker() -> None:
    bench = Bench()
    one = bench.worker()
    client = bench.client()
    bench.submit(client, 1)
    other = bench.worker()
    pause(bench, other)
    bench.feed(events.WorkerLost(one))
    assert not bench.runs(other)
    pause(bench, other, False)
    assert len(bench.runs(other)) == 1


def test_who_kills_its_workers_hears_of_their_memory() -> None:
    bench = Bench()
    client = bench.client()
    bench.submit(client, 1)
    while not (failed := bench.take(client, messages.Failed)):
        worker = bench.worker(memory_limit_bytes=300 << 20)
        assert len(bench.runs(worker)) == 1
        bench.feed(events.WorkerLost(worker, -9, 290 << 20))
    assert failed[0].kind == "KilledWorker"
    assert "took 290 MiB of memory (its limit is 300 MiB)" in failed[0].text


# --- the scheduler's: large results ---------------------------------------------------------------


def measured(bench: Bench, client: int, worker: int, nbytes: int, number: int = 1) -> None:
    """Let one run of F end, so that its results are known to be large, and release it."""
    bench.submit(client, number)
    (run,) = bench.runs(worker)
    bench.finish(worker, run, nbytes)
    bench.say(client, messages.Release([number]))


def test_large_results_are_withheld_above_half_of_the_limit() -> None:
    bench = Bench()
    one = bench.worker(nthreads=8, memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, one, 100 * MB)
    for number in range(2, 12):
        bench.submit(client, number)
    runs = bench.runs(one)
    assert len(runs) == 5
    assert bench.machine.ledger.workers[one].expected_bytes == 500 * MB
    assert "waits for memory" in reasons.explain(bench.machine.ledger, "f-c2-11")
    # It ends, and is held: nothing became free.
    bench.finish(one, runs[0], 100 * MB)
    assert not bench.runs(one)
    bench.say(client, messages.Release([2]))
    (sixth,) = bench.runs(one)
    assert sixth.task not in [run.task for run in runs]


def test_a_worker_that_runs_nothing_always_gets_one() -> None:
    bench = Bench()
    one = bench.worker(nthreads=4, memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, one, 800 * MB)
    for number in range(2, 8):
        bench.submit(client, number)
    for _ in range(2, 8):
        (run,) = bench.runs(one)
        bench.finish(one, run, 800 * MB)
    assert len(bench.take(client, messages.Finished)) == 7


def test_what_is_on_disk_leaves_space() -> None:
    bench = Bench()
    one = bench.worker(nthreads=4, memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, one, 200 * MB)
    for number in range(2, 12):
        bench.submit(client, number)
    first, second = bench.runs(one)
    bench.finish(one, first, 200 * MB)
    bench.finish(one, second, 200 * MB)
    assert len(bench.runs(one)) == 1
    pause(bench, one, False, spilled=400 * MB)
    assert len(bench.runs(one)) == 1


def test_reductions_go_before_more_large_ones() -> None:
    bench = Bench()
    one = bench.worker(memory_limit_bytes=1000 * MB)
    client = bench.client()
    bench.say(client, messages.Submission([[b"small", "small", b"body"]], []))
    measured(bench, client, one, 300 * MB)
    roots = range(2, 22)
    for number in roots:
        bench.submit(client, number)
    for number in roots:
        bench.say(client, messages.Submission([], [[number + 100, None, b"small", [], [number], 0, None]]))
    bench.say(client, messages.Release(list(roots)))
    worker = bench.machine.ledger.workers[one]
    functions = {each.id: each for each in bench.machine.ledger.functions.values()}
    most = 0
    while runs := bench.runs(one):
        for run in runs:
            bench.finish(one, run, 300 * MB if functions[run.function].name == "f" else 8)
            most = max(most, worker.nbytes + worker.expected_bytes)
    assert len(bench.take(client, messages.Finished)) == 21
    # One more than fits, where the only worker had nothing else to do.
    assert most < 700 * MB


def test_a_worker_without_a_limit_gets_all() -> None:
    bench = Bench()
    bounded = bench.worker(memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, bounded, 400 * MB)
    free = bench.worker(nthreads=8)
    for number in range(2, 9):
        bench.submit(client, number)
    assert len(bench.runs(free)) + len(bench.runs(bounded)) == 7
    assert bench.machine.ledger.workers[free].expected_bytes == 0


def test_a_large_task_is_not_recalled_for_a_worker_without_space() -> None:
    bench = Bench()
    free = bench.worker(nthreads=1)
    client = bench.client()
    measured(bench, client, free, 400 * MB)
    bench.submit(client, 2)
    bench.submit(client, 3)
    bench.worker(nthreads=1, memory_limit_bytes=500 * MB)
    assert not bench.take(free, messages.Recall)
    bench.worker(nthreads=1, memory_limit_bytes=5000 * MB)
    assert len(bench.take(free, messages.Recall)) == 1


def test_restricted_large_tasks_wait_for_space_too() -> None:
    bench = Bench()
    alice = bench.worker(nthreads=4, name="alice", memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, alice, 300 * MB)
    for number in (2, 3):
        bench.submit(client, number, workers=["alice"])
    (run,) = bench.runs(alice)
    bench.finish(alice, run, 300 * MB)
    assert len(bench.runs(alice)) == 1


def test_withheld_tasks_outlive_their_workers_and_may_be_released() -> None:
    bench = Bench()
    one = bench.worker(nthreads=4, memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, one, 500 * MB)
    for number in range(2, 6):
        bench.submit(client, number)
    assert len(bench.runs(one)) == 1
    bench.say(client, messages.Release([3]))
    bench.feed(events.WorkerLost(one))
    assert bench.machine.ledger.limited == 0
    two = bench.worker(nthreads=4, memory_limit_bytes=1000 * MB)
    ended = 0
    while runs := bench.runs(two):
        for run in runs:
            bench.finish(two, run, 500 * MB)
            ended += 1
    assert ended == 3
    bench.say(client, messages.Release([2, 4, 5]))
    assert not bench.machine.ledger.tasks


def test_many_withheld_tasks_are_set_aside_in_parts() -> None:
    bench = Bench(withheld_moves_max=10)
    one = bench.worker(nthreads=4, memory_limit_bytes=1000 * MB)
    client = bench.client()
    measured(bench, client, one, 500 * MB)
    tasks = [[number, None, b"digest", [], [], 0, None] for number in range(2, 102)]
    bench.say(client, messages.Submission([], tasks))
    turns = 0
    while bench.machine.ledger.unsorted:
        bench.feed(events.Continued())
        turns += 1
    assert turns == 9
    assert len(bench.runs(one)) == 1


def test_a_worker_that_says_nonsense_of_its_disk_is_dropped() -> None:
    bench = Bench()
    one = bench.worker()
    batch = [messages.MemoryState(False, -1)]
    out = bench.machine.handle(events.Received(one, batch), 0.0)
    assert any("on disk" in getattr(asked, "reason", "") for asked in out)


# --- the whole cluster ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_whole_worlds_with_little_memory_come_to_their_end(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of some bytes count as large, limits are tiny, workers pause at random: every future is right."""
    register = simulation.Simulation._register
    joined = events.WorkerJoined
    seen = {"withheld": 0, "paused": 0}

    def join(*args: Any) -> Any:
        return joined(*args[:4], {**args[4], "memory_limit_bytes": source.choice([0, 50, 300])}, *args[5:])

    def registered(self: Any, worker: Any, connection: Any) -> None:
        register(self, worker, connection)
        worker.machine.memory.limit_bytes = 1000
        for _ in range(source.randint(0, 3)):
            begin_s = source.uniform(0.0, 2.0)
            state = worker_events.MemoryTaken(900, 0, 0, source.choice([0, 500]))
            self.world.later(begin_s, partial(worker.feed, state))
            rest = worker_events.MemoryTaken(100, 0, 0, 0)
            self.world.later(begin_s + source.uniform(0.0, 1.0), partial(worker.feed, rest))

    handle = simulation.SchedulerMachine.handle

    def watched(self: Any, event: Any, now: float) -> Any:
        out = handle(self, event, now)
        seen["withheld"] += bool(self.ledger.withheld)
        seen["paused"] += any(worker.paused for worker in self.ledger.workers.values())
        return out

    settings = dataclasses.replace(simulation.SETTINGS, large_result_bytes_min=1.0, withheld_moves_max=2)
    monkeypatch.setattr(simulation, "SETTINGS", settings)
    monkeypatch.setattr(simulation.events, "WorkerJoined", join)
    monkeypatch.setattr(simulation.Simulation, "_register", registered)
    monkeypatch.setattr(simulation.SchedulerMachine, "handle", watched)
    for seed in range(first, first + 20):
        source = random.Random(seed)
        simulation.simulate(seed)
    assert seen["withheld"] > 20 and seen["paused"] > 20


def test_a_limit_costs_small_tasks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    free = model.counted("tree")
    joined = events.WorkerJoined

    def join(*args: Any) -> Any:
        return joined(*args[:4], {"memory_limit_bytes": 1 << 30})

    monkeypatch.setattr(model.events, "WorkerJoined", join)
    found = model.counted("tree")
    calls = "scheduler calls per 1,000 tasks"
    # Where a task may be recalled, its size is looked at.
    assert free[calls] <= found.pop(calls) < free.pop(calls) + 20
    assert found == free


def test_a_nanny_ends_what_takes_its_limit_and_not_what_nearly_did_once() -> None:
    machine = nanny.NannyMachine()
    machine.handle(nanny.StartWanted(), 0.0)
    machine.handle(nanny.ProcessRegistered(), 0.0)

    def kills(*parts: float) -> list[bool]:
        return [bool(machine.handle(nanny.MemoryMeasured(int(part * 1000), 1000), 0.0)) for part in parts]

    assert kills(0.94, 0.96, 0.94, 0.96, 0.96, 0.97) == [False, False, False, False, True, True]
    assert kills(0.5, 1.01) == [False, True]
