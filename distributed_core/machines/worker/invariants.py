"""What must hold in a worker between any two events."""

from __future__ import annotations

from distributed_core.errors import InvariantBroken
from distributed_core.machines.worker.machine import WorkerMachine


def check(machine: WorkerMachine) -> None:
    """Raise InvariantBroken where the worker's books contradict each other."""
    for run in machine.runs.values():
        missing = 0
        for task in dict.fromkeys(run.inputs):
            replica = machine.replicas.get(task)
            if run.payload is not None and (replica is None or not replica.held):
                missing += 1
                _demand(replica is not None and run.run in replica.waiters, f"run {run.run} waits for lost {task}")
        _demand(run.missing == missing, f"run {run.run} counts {run.missing} missing inputs, has {missing}")
        _demand((run.run in machine.waiting) is (run.payload is not None), f"run {run.run} wrongly waits or not")
        _demand((run.payload is None) is (run.missing == 0), f"run {run.run} has its inputs and did not start")
    for task, replica in machine.replicas.items():
        _demand(all(run in machine.runs for run in replica.waiters), f"unknown runs wait for {task}")
        if replica.held:
            _demand(not replica.waiters and replica.source is None, f"{task} is held and still waited for")
        elif replica.waiters or replica.errand:
            _demand(replica.source is not None, f"{task} is waited for and nobody was asked")
            queued = task in machine.queues.get(replica.source or ("", False), {})
            _demand(queued or replica.source in machine.asked, f"{task} is in no queue and in no request")
    for lane in machine.queues:
        _demand(lane in machine.asked, f"requests to {lane} are queued and none is under way")


def _demand(fact: bool, text: str) -> None:
    if not fact:
        raise InvariantBroken(text)
