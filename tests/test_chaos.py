"""The judge and the schedule of `python -m tests chaos`, without any process."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Faults
from tests.chaos.oracle import Happened, Oracle
from tests.chaos.schedule import KINDS, Fault, plan

WORKERS = ["w0", "w1", "w2", "w3"]


def planned(seed: int) -> list[list[Fault]]:
    return plan(seed, 40, 20.0, WORKERS, ["w3"], list(KINDS), 3)


def test_the_same_seed_plans_the_same_faults_and_another_one_others() -> None:
    assert planned(1) == planned(1)
    assert planned(1) != planned(2)


def test_every_kind_comes_and_can_be_done_and_each_fault_is_over_when_its_round_is() -> None:
    faults = [fault for each in planned(1) for fault in each]
    assert {fault.kind for fault in faults} == set(KINDS) == set(Faults._BEGIN)
    assert all(fault.at_s + fault.lasts_s <= 20.01 for fault in faults)
    assert all(fault.kind in Faults._HEAL for fault in faults if fault.lasts_s and fault.kind != "kill-scheduler")


def test_no_host_has_two_faults_at_once() -> None:
    for faults in planned(3):
        for one in faults:
            later = [other for other in faults if other.number > one.number and set(other.hosts) & set(one.hosts)]
            assert all(other.at_s >= one.at_s + one.lasts_s for other in later)


def judged(kind: str, verdict: str, error: str, deaths: int) -> list[str]:
    oracle = Oracle()
    oracle.hear("c1", {"event": "begun", "job": "c1-1", "kind": kind, "at_s": 1.0})
    oracle.happened.append(Happened(Fault(1, 1.0, "kill-worker", ("w0",), 0.0, 0.5), 2.0, 2.0, deaths))
    said = {"event": "ended", "job": "c1-1", "at_s": 3.0, "tasks": 0, "verdict": verdict, "error": error, "text": ""}
    oracle.hear("c1", said)
    oracle.judge(0.0)
    return oracle.complaints


@pytest.mark.parametrize(
    ("kind", "verdict", "error", "deaths", "justified"),
    [
        ("chain", "right", "", 0, True),
        ("chain", "wrong", "WrongResult", 9, False),
        ("chain", "error", "KilledWorker", 3, False),
        ("chain", "error", "KilledWorker", 4, True),
        ("chain", "error", "DataLost", 4, False),
        ("scattered", "error", "DataLost", 1, True),
        ("scattered", "wrong", "WrongResult", 1, False),
        ("tree", "error", "SchedulerLost", 9, False),
    ],
)
def test_an_error_must_be_due(kind: str, verdict: str, error: str, deaths: int, justified: bool) -> None:
    assert bool(judged(kind, verdict, error, deaths)) != justified
