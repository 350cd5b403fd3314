"""Inputs that cannot be fetched: who is tried next, when a task is given up for it, and when that is forgotten."""

from __future__ import annotations

from distributed_core import messages
from distributed_core.machines.scheduler import events
from tests.distributed_core.test_scheduler_machine import Bench


def unreachable(bench: Bench, worker: int, run: messages.Assignment) -> None:
    """`worker` could not fetch any of the inputs that it lacks."""
    pairs = [[each[0], address] for each in run.inputs for address in each[2]]
    bench.say(worker, messages.Rejection(run.task, run.run, [], pairs))


def parted(bench: Bench, client: int, *workers: int) -> None:
    """Each of the workers holds the data of the future of its own number; future 9 needs all of that."""
    for worker in workers:
        bench.submit(client, worker, workers=[f"w{worker}"])
        (run,) = bench.runs(worker)
        bench.finish(worker, run)
    bench.submit(client, 9, inputs=workers)


def test_a_run_that_could_not_fetch_goes_to_the_worker_that_has_its_input_however_busy() -> None:
    bench = Bench()
    one, two, client = bench.worker(), bench.worker(), bench.client()
    bench.submit(client, 1, workers=["w1"])
    bench.finish(one, bench.runs(one)[0])
    for number in range(2, 6):
        bench.submit(client, number, workers=["w1"])
    bench.submit(client, 9, inputs=(1,))
    (run,) = [each for each in bench.runs(two) if each.task == 9]
    bench.runs(one)
    unreachable(bench, two, run)
    assert [each.task for each in bench.runs(one)] == [9]
    # Nor does the idle one take it from there.
    bench.now += 10.0
    bench.feed(events.LivenessChecked())
    assert not bench.take(one, messages.Recall)
    assert not bench.runs(two)


def test_two_workers_that_are_parted_do_not_spin_and_the_task_fails_after_its_time() -> None:
    bench = Bench()
    one, two, client = bench.worker(), bench.worker(), bench.client()
    parted(bench, client, one, two)
    tries = 0
    started_s = bench.now
    while not bench.take(client, messages.Failed):
        given = [(worker, run) for worker in (one, two) for run in bench.runs(worker)]
        for worker, run in given:
            tries += 1
            unreachable(bench, worker, run)
        if not given:
            # Both were tried: nothing goes on before the next check.
            bench.now += bench.machine.settings.liveness_interval_s
            for each in (one, two):
                bench.say(each, messages.Heartbeat({}))
            bench.feed(events.LivenessChecked())
    passed_s = bench.now - started_s
    assert 90.0 < passed_s < 100.0
    assert tries <= 4 * passed_s / bench.machine.settings.liveness_interval_s + 4
    assert not bench.machine.ledger.cut_off


def test_many_tries_within_a_short_time_are_no_reason_and_one_try_after_a_long_one_neither() -> None:
    bench = Bench(allowed_fetch_failures=3)
    one, two, client = bench.worker(), bench.worker(), bench.client()
    parted(bench, client, one, two)
    for _ in range(50):
        for worker in (one, two):
            for run in bench.runs(worker):
                unreachable(bench, worker, run)
        bench.feed(events.LivenessChecked())
    assert not bench.take(client, messages.Failed)

    bench = Bench(allowed_fetch_failures=3)
    one, two, client = bench.worker(), bench.worker(), bench.client()
    parted(bench, client, one, two)
    for _ in range(3):
        ((worker, run),) = [(worker, run) for worker in (one, two) for run in bench.runs(worker)]
        unreachable(bench, worker, run)
        bench.now += 100.0
        bench.feed(events.LivenessChecked())
    assert not bench.take(client, messages.Failed)


def test_an_input_that_comes_to_another_worker_ends_the_blame() -> None:
    bench = Bench(allowed_fetch_failures=2)
    one, two, client = bench.worker(), bench.worker(), bench.client()
    parted(bench, client, one, two)
    for _ in range(2):
        for worker in (one, two):
            for run in bench.runs(worker):
                unreachable(bench, worker, run)
    # Where there is a third one, it goes there, and what comes to that worker can be fetched after all.
    three = bench.worker()
    bench.now += 10.0
    bench.feed(events.LivenessChecked())
    given = [(worker, run) for worker in (one, two, three) for run in bench.runs(worker)]
    while given[0][0] != three:
        unreachable(bench, *given[0])
        given = [(worker, run) for worker in (one, two, three) for run in bench.runs(worker)]
        assert given, bench.sent
    ((_, run),) = given
    bench.say(three, messages.Possession([[one, 8]]))
    troubles = bench.machine.ledger.tasks[9].troubles
    assert troubles is not None
    assert list(troubles.unreachable) == [two]
    bench.say(three, messages.Possession([[two, 8]]))
    assert not bench.machine.ledger.cut_off
    assert not troubles.fetch_failures
    bench.finish(three, run)
    assert 9 in [each.number for each in bench.take(client, messages.Finished)]


def test_a_holder_that_died_is_no_blame() -> None:
    bench = Bench()
    one, two, client = bench.worker(), bench.worker(), bench.client()
    bench.submit(client, 1, workers=["w1"], loose=True)
    bench.finish(one, bench.runs(one)[0])
    bench.submit(client, 9, inputs=(1,), workers=["w2"])
    (run,) = bench.runs(two)
    bench.feed(events.WorkerLost(one))
    unreachable(bench, two, run)
    assert not bench.machine.ledger.cut_off
    assert [each.task for each in bench.runs(two)] == [1]


def test_a_failure_that_does_not_last_costs_no_time() -> None:
    bench = Bench()
    one, two, client = bench.worker(), bench.worker(), bench.client()
    bench.submit(client, 1, workers=["w1"])
    bench.finish(one, bench.runs(one)[0])
    bench.submit(client, 9, inputs=(1,), workers=["w2"])
    (run,) = bench.runs(two)
    unreachable(bench, two, run)
    (run,) = bench.runs(two)
    unreachable(bench, two, run)
    assert not bench.runs(two)
    bench.feed(events.LivenessChecked())
    assert [each.task for each in bench.runs(two)] == [9]
