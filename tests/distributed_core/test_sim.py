"""The cluster on virtual time: many worlds, and the same seed gives the same one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import (
    SchedulerMachine,
    copying,
    ledger,
    placement,
    transitions,
)
from distributed_core.machines.scheduler.from_worker import FROM_WORKER
from distributed_core.machines.worker import WorkerMachine
from distributed_core.sim import simulate

SEEDS = int(os.environ.get("SIM_SEEDS", "200"))
PLANTED_SEEDS = 400


def test_every_world_ends_well() -> None:
    outcomes = [simulate(seed) for seed in range(SEEDS)]
    # The worlds are not empty: workers die in them, and work is done.
    assert sum(outcome.kills for outcome in outcomes) > SEEDS / 2
    assert sum(outcome.futures for outcome in outcomes) > 20 * SEEDS


@pytest.mark.slow
def test_same_seed_same_trace_under_two_hash_seeds() -> None:
    code = "from distributed_core.sim import simulate; print([simulate(seed).trace for seed in range(40)])"
    traces = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1


def found_by_simulation() -> bool:
    for seed in range(PLANTED_SEEDS):
        try:
            simulate(seed)
        except (InvariantBroken, KeyError, AssertionError):
            return True
    return False


def test_finds_a_dropped_disposal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "_dispose", lambda *_: None)
    assert found_by_simulation()


def test_finds_a_lost_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FROM_WORKER, messages.Rejection, lambda *_: None)
    assert found_by_simulation()


def test_finds_inputs_that_are_not_counted_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "_leave_active", lambda task: [])
    assert found_by_simulation()


def test_finds_a_worker_that_forgets_to_tell_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FROM_WORKER, messages.Possession, lambda *_: None)
    assert found_by_simulation()


def test_finds_a_replica_that_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "lose_replica", lambda *_: None)
    assert found_by_simulation()


@pytest.mark.slow
def test_finds_a_withdrawal_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WorkerMachine._FROM_SCHEDULER, messages.Withdrawal, lambda *_: None)
    assert found_by_simulation()


def test_finds_a_worker_that_is_never_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    def review(self: ledger.Ledger, worker: object) -> None:
        if self.full(worker):  # type: ignore[arg-type]
            self.open.pop(worker.id, None)  # type: ignore[attr-defined]

    monkeypatch.setattr(ledger.Ledger, "review", review)
    assert found_by_simulation()


def test_finds_a_lost_answer_to_a_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FROM_WORKER, messages.Yielding, lambda *_: None)
    assert found_by_simulation()


@pytest.mark.slow
def test_finds_resources_that_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FROM_WORKER, messages.Departure, lambda *_: None)
    assert found_by_simulation()


def test_finds_resources_that_are_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "has_free", lambda *_: True)
    assert found_by_simulation()


def test_finds_suspects_that_have_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        SchedulerMachine, "_suspect", lambda self, task, alone: setattr(task.trouble(), "alone_deaths", 9)
    )
    assert found_by_simulation()


def test_finds_workers_that_leave_with_the_only_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "pursue_retirement", lambda *_: "done")
    assert found_by_simulation()


def test_finds_restrictions_that_are_forgotten_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "place_parked", lambda *_: None)
    assert found_by_simulation()


def test_finds_interruptions_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerMachine, "_interrupt", lambda *_: None)
    assert found_by_simulation()
