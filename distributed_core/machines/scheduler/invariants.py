"""What must hold between any two events. Tests and the simulation call `check` after each."""

from __future__ import annotations

from collections.abc import Iterable

from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler.machine import SchedulerMachine
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.recovery import waits
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


def check(machine: SchedulerMachine, tasks: Iterable[Task] | None = None) -> None:
    """Raise InvariantBroken where the scheduler's books contradict each other.

    Parameters
    ----------
    tasks
        Look at these tasks only, beside the workers: those that an event may have changed. None is everything.
    """
    ledger = machine.ledger
    for task in ledger.tasks.values() if tasks is None else tasks:
        _check_task(machine, task)
    for worker in ledger.workers.values():
        _check_worker(machine, worker)
    _demand(not ledger.outbox and not ledger.drops, "messages were left in the outbox")
    if tasks is None:
        _check_rest(machine)


def _check_worker(machine: SchedulerMachine, worker: WorkerPeer) -> None:
    # Texts are made only for what is wrong, as in `_check_task`.
    ledger = machine.ledger
    expected_s = 0.0
    for task in worker.assigned.values():
        state = task.state
        if type(state) is not Assigned or state.worker is not worker:
            raise InvariantBroken(f"{task} not assigned to {worker}")
        expected_s += state.expected_s
    nbytes = 0
    for task in worker.held.values():
        held = task.state
        if type(held) is not Held or worker not in held.workers:
            raise InvariantBroken(f"{task} not held by {worker}")
        nbytes += held.nbytes
    if worker.nbytes != nbytes:
        raise InvariantBroken(f"{worker} counts {worker.nbytes} bytes, holds {nbytes}")
    _check_memory(machine, worker)
    if abs(worker.occupancy_s - expected_s) >= 1e-6:
        raise InvariantBroken(f"{worker} has a wrong occupancy")
    if (worker.id in ledger.open) is ledger.full(worker):
        raise InvariantBroken(f"{worker} is wrongly open or closed")
    _check_threads(machine, worker)


def _check_rest(machine: SchedulerMachine) -> None:
    """Look at what takes all tasks to see."""
    ledger = machine.ledger
    for client in ledger.clients.values():
        for number, task in client.tasks.items():
            if task.client is client and task.number == number:
                continue
            if not any(want.client is client and want.number == number for want in task.wants):
                raise InvariantBroken(f"{client} wants {task} as {number}, which does not know it")
    ready = [task for task in ledger.tasks.values() if type(task.state) is Ready]
    if ledger.open and not ledger.unsorted and not waits(ledger):
        _demand(not any(_easy(machine, task) for task in ready), "a task is ready and a worker is open")
    if any(_withheld(machine, task) for task in ready):
        idle = [worker for worker in ledger.open.values() if not worker.active]
        _demand(not idle, f"tasks are withheld, and {idle} run nothing")
    limited = sum(worker.limit_bytes > 0 for worker in ledger.workers.values())
    _demand(ledger.limited == limited, f"{ledger.limited} workers are said to have a limit, {limited} have")
    for task in ledger.cut_off.values():
        blamed = task.troubles is not None and bool(task.troubles.unreachable)
        _demand(blamed and type(task.state) in (Waiting, Ready, Assigned), f"{task} is cut off from nothing")
    for task in ledger.retrying.values():
        _demand(task.id in ledger.cut_off, f"{task} is tried again, and is not cut off")
    for run, thief in ledger.recalls.items():
        told = [task.state for task in ledger.tasks.values() if type(task.state) is Assigned and task.state.run == run]
        _demand(len(told) == 1 and told[0].recalled, f"run {run} is recalled for {thief}, and nobody has it")
    for worker in ledger.workers.values():
        count = sum(thief is worker for thief in ledger.recalls.values())
        if worker.incoming != count:
            raise InvariantBroken(f"{worker} expects {worker.incoming} recalled runs, there are {count}")


def _withheld(machine: SchedulerMachine, task: Task) -> bool:
    heap = machine.ledger.withheld.get(task.function) if task.function is not None else None
    return not task.suspect and heap is not None and (task.priority, task.id) in heap


def _check_memory(machine: SchedulerMachine, worker: WorkerPeer) -> None:
    """What its runs are expected to add, and who gets no work."""
    expected = sum(task.state.expected_bytes for task in worker.assigned.values() if type(task.state) is Assigned)
    if worker.expected_bytes != expected:
        raise InvariantBroken(f"{worker} expects {worker.expected_bytes} bytes, not {expected}")
    if worker.paused and worker.id in machine.ledger.open:
        raise InvariantBroken(f"{worker} is paused and open")
    if expected and not worker.limit_bytes:
        raise InvariantBroken(f"{worker} has no limit, and its runs count against one")


def _easy(machine: SchedulerMachine, task: Task) -> bool:
    """Tell whether any worker may run it beside others, now."""
    options = task.options
    if _withheld(machine, task) or task.id in machine.ledger.cut_off:
        return False
    return not task.suspect and (options is None or not (options.workers or options.resources))


def _check_threads(machine: SchedulerMachine, worker: WorkerPeer) -> None:
    """Who is where in the worker's threads, and what they take."""
    states = [task.state for task in worker.assigned.values() if type(task.state) is Assigned]
    if worker.seceded != sum(state.seceded for state in states):
        raise InvariantBroken(f"{worker} miscounts who seceded")
    if (worker.id in machine.ledger.crowded) is not (worker.active > worker.nthreads):
        raise InvariantBroken(f"{worker} is wrongly crowded or not")
    if worker.alone:
        seated = [task.id for task in worker.assigned.values() if not task.state.seceded]  # type: ignore[attr-defined]
        if seated != [worker.alone] or worker.lingering:
            raise InvariantBroken(f"{worker} runs a suspect beside others")
    taken: dict[str, float] = {}
    demands = [task.options.resources for task in worker.assigned.values() if task.options is not None]
    for resources in [*demands, *(lingering.resources for lingering in worker.lingering.values())]:
        for name, amount in resources:
            taken[name] = taken.get(name, 0.0) + amount
    for name in {**worker.free, **taken}:
        free = worker.resources.get(name, 0.0) - taken.get(name, 0.0)
        if abs(worker.free.get(name, 0.0) - free) >= 1e-6:
            raise InvariantBroken(f"{worker} miscounts its {name}")
        if free <= -1e-6:
            raise InvariantBroken(f"{worker} has given away more {name} than it has")


def _check_task(machine: SchedulerMachine, task: Task) -> None:
    # Texts are made only for what is wrong: this runs for every task after every event of the simulation.
    ledger = machine.ledger
    state = task.state
    if type(state) is Forgotten:
        raise InvariantBroken(f"{task} is forgotten and in the books")
    if task.key is not None and ledger.by_key.get(task.key) is not task:
        raise InvariantBroken(f"{task} is not found by its key")
    for each in task.inputs:
        if ledger.tasks.get(each.id) is not each:
            raise InvariantBroken(f"{task} needs {each}, which is not in the books")
        if not (bool(each.users) and task.id in (each.users or {})):
            raise InvariantBroken(f"{each} does not know its user {task}")
    users = list((task.users or {}).values())
    if not (task.users is None or bool(users)):
        raise InvariantBroken(f"{task} has an empty table of users")
    needed = sum(type(user.state) in (Waiting, Ready, Assigned) for user in users)
    if not (task.needed == needed):
        raise InvariantBroken(f"{task} counts {task.needed} active users, has {needed}")
    for want in task.wants if task.client is not None else ():
        known = ledger.clients.get(want.client.id) or ledger.leaving.get(want.client.id)
        if known is not want.client:
            raise InvariantBroken(f"{task} is wanted by a client that left")
        if want.client.tasks.get(want.number) is not task:
            raise InvariantBroken(f"{task} is wanted by a client that does not know it")
    wanted = bool(task.client is not None or task.needed)
    if type(state) is Waiting:
        missing = sum(type(each.state) is not Held for each in task.inputs)
        if not (state.missing == missing > 0):
            raise InvariantBroken(f"{task} counts {state.missing} missing inputs, has {missing}")
        if any(type(each.state) in (Erred, Released) for each in task.inputs):
            raise InvariantBroken(f"{task} waits in vain")
    elif type(state) is Ready:
        if not (all(type(each.state) is Held for each in task.inputs)):
            raise InvariantBroken(f"{task} is ready without its inputs")
        entry = (task.priority, task.id)
        parked = task.options is not None and entry in ledger.parked.get(task.options, ())
        queued = task.id in ledger.cut_off or parked or entry in task.share.queue
        if task.suspect:
            queued = task.id in ledger.suspects
        if not (queued or _withheld(machine, task)):
            raise InvariantBroken(f"{task} is ready and in no queue")
    elif type(state) is Assigned:
        if ledger.workers.get(state.worker.id) is not state.worker:
            raise InvariantBroken(f"{task} is assigned to a worker that left")
        if task.id not in state.worker.assigned:
            raise InvariantBroken(f"{state.worker} does not know that it runs {task}")
    elif type(state) is Held:
        if not (len(state.workers) > 0):
            raise InvariantBroken(f"{task} is held by nobody")
        for worker in state.workers:
            if ledger.workers.get(worker.id) is not worker:
                raise InvariantBroken(f"{task} is held by a worker that left")
            if task.id not in worker.held:
                raise InvariantBroken(f"{worker} does not know that it holds {task}")
    if type(state) in (Waiting, Ready, Assigned, Held, Arriving):
        if not (wanted):
            raise InvariantBroken(f"{task} is kept for nobody")
    elif type(state) is Released:
        if not (not wanted and bool(users)):
            raise InvariantBroken(f"{task} is released, and wanted or useless")
    elif type(state) is Erred and not (task.wants or users):
        raise InvariantBroken(f"{task} has failed and nobody could ask for it")


def _demand(fact: bool, text: str) -> None:
    if not fact:
        raise InvariantBroken(text)
