"""What must hold between any two events. Tests and the simulation call `check` after each."""

from __future__ import annotations

from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler.machine import SchedulerMachine
from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Erred,
    Forgotten,
    Held,
    Ready,
    Released,
    Task,
    Waiting,
)


def check(machine: SchedulerMachine) -> None:
    """Raise InvariantBroken where the scheduler's books contradict each other."""
    ledger = machine.ledger
    for task in ledger.tasks.values():
        _check_task(machine, task)
    for worker in ledger.workers.values():
        for task in worker.assigned.values():
            _demand(type(task.state) is Assigned and task.state.worker is worker, f"{task} not assigned to {worker}")
        for task in worker.held.values():
            _demand(type(task.state) is Held and worker in task.state.workers, f"{task} not held by {worker}")
        nbytes = sum(task.state.nbytes for task in worker.held.values() if type(task.state) is Held)
        _demand(worker.nbytes == nbytes, f"{worker} counts {worker.nbytes} bytes, holds {nbytes}")
        expected_s = sum(task.state.expected_s for task in worker.assigned.values() if type(task.state) is Assigned)
        _demand(abs(worker.occupancy_s - expected_s) < 1e-6, f"{worker} has a wrong occupancy")
        _demand((worker.id in ledger.open) is not ledger.full(worker), f"{worker} is wrongly open or closed")
    for client in ledger.clients.values():
        for number, task in client.tasks.items():
            _demand(
                any(want.client is client and want.number == number for want in task.wants),
                f"{client} wants {task} as {number}, which does not know it",
            )
    _demand(not ledger.outbox and not ledger.drops, "messages were left in the outbox")
    if ledger.open:
        _demand(
            not any(type(task.state) is Ready for task in ledger.tasks.values()),
            "a task is ready and a worker is open",
        )


def _check_task(machine: SchedulerMachine, task: Task) -> None:
    ledger = machine.ledger
    state = task.state
    _demand(type(state) is not Forgotten, f"{task} is forgotten and in the books")
    if task.key is not None:
        _demand(ledger.by_key.get(task.key) is task, f"{task} is not found by its key")
    for each in task.inputs:
        _demand(ledger.tasks.get(each.id) is each, f"{task} needs {each}, which is not in the books")
        _demand(bool(each.users) and task.id in (each.users or {}), f"{each} does not know its user {task}")
    users = list((task.users or {}).values())
    _demand(task.users is None or bool(users), f"{task} has an empty table of users")
    needed = sum(type(user.state) in (Waiting, Ready, Assigned) for user in users)
    _demand(task.needed == needed, f"{task} counts {task.needed} active users, has {needed}")
    for want in task.wants:
        _demand(ledger.clients.get(want.client.id) is want.client, f"{task} is wanted by a client that left")
        _demand(want.client.tasks.get(want.number) is task, f"{task} is wanted by a client that does not know it")
    wanted = bool(task.wants or task.needed)
    if type(state) is Waiting:
        missing = sum(type(each.state) is not Held for each in task.inputs)
        _demand(state.missing == missing > 0, f"{task} counts {state.missing} missing inputs, has {missing}")
        _demand(not any(type(each.state) in (Erred, Released) for each in task.inputs), f"{task} waits in vain")
    elif type(state) is Ready:
        _demand(all(type(each.state) is Held for each in task.inputs), f"{task} is ready without its inputs")
        _demand((task.priority, task.id) in ledger.queue, f"{task} is ready and not in the queue")
    elif type(state) is Assigned:
        _demand(ledger.workers.get(state.worker.id) is state.worker, f"{task} is assigned to a worker that left")
        _demand(task.id in state.worker.assigned, f"{state.worker} does not know that it runs {task}")
    elif type(state) is Held:
        _demand(len(state.workers) > 0, f"{task} is held by nobody")
        for worker in state.workers:
            _demand(ledger.workers.get(worker.id) is worker, f"{task} is held by a worker that left")
            _demand(task.id in worker.held, f"{worker} does not know that it holds {task}")
    if type(state) in (Waiting, Ready, Assigned, Held, Arriving):
        _demand(wanted, f"{task} is kept for nobody")
    elif type(state) is Released:
        _demand(not wanted and bool(users), f"{task} is released, and wanted or useless")
    elif type(state) is Erred:
        _demand(bool(task.wants) or bool(users), f"{task} has failed and nobody could ask for it")


def _demand(fact: bool, text: str) -> None:
    if not fact:
        raise InvariantBroken(text)
