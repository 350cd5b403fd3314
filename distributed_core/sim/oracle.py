"""What must be true of a world: at every moment, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.client.futures import CANCELLED, ERROR, FINISHED, LOST, PENDING
from distributed_core.machines.scheduler.tasks import Held
from distributed_core.sim.clients import RECONNECT_TIMEOUT_S, SimulatedClient
from distributed_core.sim.workload import Plan

if TYPE_CHECKING:
    from distributed_core.sim.run import Simulation
    from distributed_core.sim.scenario import Mishap
    from distributed_core.sim.workload import Job
    from distributed_core.sim.world import Pipe

#: A clock that is wrong by a tenth, and what was held up.
PATIENCE_S = 0.5
_REPORTS = (messages.Completion, messages.Failure, messages.Rejection)


class RunBook:
    """Which run of which task counts, read off the wire alone: the scheduler's books must say the same.

    A run counts from its assignment until its report has come, or it was withdrawn, or its worker was lost. One that a
    worker says goes on from before counts from when the scheduler takes it for that, which no message tells.
    """

    def __init__(self) -> None:
        self._runs: dict[int, tuple[int, int]] = {}
        self._continued: dict[tuple[int, int, int], None] = {}

    def told(self, peer: int, message: Any) -> None:
        """The scheduler sends this to a worker."""
        if type(message) is messages.Assignment:
            if message.task in self._runs:
                raise InvariantBroken(f"task {message.task} is assigned while a run of it counts")
            self._runs[message.task] = (peer, message.run)
        elif type(message) is messages.Withdrawal:
            self._end(peer, message)

    def heard(self, peer: int, message: Any) -> None:
        """A worker's message has reached the scheduler."""
        if type(message) is messages.Continuation:
            self._continued.update(((peer, task, run), None) for task, run in message.items)
        elif type(message) in _REPORTS or (type(message) is messages.Yielding and message.given):
            self._end(peer, message)

    def _end(self, peer: int, message: Any) -> None:
        self._continued.pop((peer, message.task, message.run), None)
        if self._runs.get(message.task) == (peer, message.run):
            del self._runs[message.task]

    def lost(self, peer: int) -> None:
        """The scheduler gave a worker up."""
        self._runs = {task: run for task, run in self._runs.items() if run[0] != peer}
        self._continued = {told: None for told in self._continued if told[0] != peer}

    def check(self, simulation: Simulation) -> None:
        """Compare the scheduler's books."""
        assigned: dict[int, tuple[int, int]] = {}
        for worker in simulation.scheduler.ledger.workers.values():
            for task in worker.assigned.values():
                assigned[task.id] = (worker.id, task.state.run)  # type: ignore[attr-defined]
        if self._continued:
            for number, (peer, run) in assigned.items():
                if number not in self._runs and (peer, number, run) in self._continued:
                    del self._continued[peer, number, run]
                    self._runs[number] = (peer, run)
        if assigned != self._runs:
            wrong = sorted(set(assigned.items()) ^ set(self._runs.items()))
            raise InvariantBroken(f"the scheduler's runs are not those that count: (task, (worker, run)) {wrong}")


def judge(simulation: Simulation) -> None:
    """All is at rest: every future is done and right, every worker is there and has what it should.

    Raises
    ------
    InvariantBroken
        Something is not as it should be.
    """
    if not simulation.process.alive:
        raise InvariantBroken("there is no scheduler")
    for client in simulation.clients:
        if not client.left:
            _judge_client(simulation, client)
    for worker in simulation.scheduler.ledger.workers.values():
        process = simulation.by_address[worker.address]
        for task in worker.held:
            if task not in process.data:
                raise InvariantBroken(f"{worker.address} should hold task {task}")
        for task in process.data:
            if task not in worker.held:
                raise InvariantBroken(f"{worker.address} keeps task {task}, of which the scheduler knows nothing")
        if worker.lingering and not any(Plan.opened(each.payload).kind for each in process.running.values()):
            raise InvariantBroken(f"{worker.address} never said that withdrawn runs are over")
    for keeper in simulation.keepers.values():
        if keeper.process is not None or keeper.shape.joins_s <= simulation.world.now:
            keeper.judge()


def _judge_client(simulation: Simulation, client: SimulatedClient) -> None:
    if client.machine.closed:
        _judge_loss(client)
        return
    if client.connection is None or not client.connection.open:
        raise InvariantBroken(f"{client.name} is not connected, and waits for nothing")
    book = simulation.scheduler.ledger.clients.get(client.connection.peer)
    if book is None:
        raise InvariantBroken(f"the scheduler does not know {client.name}, which is connected")
    kept = client.gone.keys() & book.tasks.keys()
    if kept:
        raise InvariantBroken(f"{client.name} let go of {sorted(kept)}, and the scheduler holds them for it")
    if book.said is not None:
        raise InvariantBroken(f"{client.name} never said that it had said all")
    for number in client.jobs:
        _judge_future(simulation, client, number)


def _judge_loss(client: SimulatedClient) -> None:
    """A client has given up: nothing is pending, and it did not wait for longer than it should, nor shorter."""
    for number, future in client.futures.items():
        if future.status == PENDING:
            raise InvariantBroken(f"future {number} of {client.name} is pending, and there will be no scheduler")
        if future.status == LOST and (future.reason or ("",))[0] != "SchedulerLost":
            raise InvariantBroken(f"future {number} of {client.name} is lost for another reason: {future.reason}")
        if future.status == FINISHED and future.payload not in (None, [client.jobs[number].expected]):
            raise InvariantBroken(f"future {number} of {client.name} has the value {future.payload!r}, which is wrong")
    waited_s = client.ended_s - client.lost_s
    if client.returns and abs(waited_s - RECONNECT_TIMEOUT_S) > PATIENCE_S:
        raise InvariantBroken(f"{client.name} looked for the scheduler for {waited_s} s")


def judge_losses(simulation: Simulation) -> None:
    """The scheduler never came back: every client has given up, and nothing waits.

    Raises
    ------
    InvariantBroken
        A client still waits, or gave up too early or too late.
    """
    for client in simulation.clients:
        if not client.left:
            if not client.machine.closed:
                raise InvariantBroken(f"{client.name} looks for the scheduler for ever")
            _judge_loss(client)


def _judge_future(simulation: Simulation, client: SimulatedClient, number: int) -> None:
    if number in client.gone:
        return
    future = client.futures.get(number)
    if future is None or future.status == PENDING:
        raise InvariantBroken(f"future {number} of {client.name} is never done")
    job, status = client.jobs[number], future.status
    if status == CANCELLED:
        if not _may_be_cancelled(simulation, client, job):
            raise InvariantBroken(f"future {number} of {client.name} is cancelled, and nobody did that")
        return
    if status == ERROR:
        reason = (future.reason or ("",))[0]
        if reason not in job.reasons and not _excused(simulation, client, number, reason):
            raise InvariantBroken(f"future {number} of {client.name} failed with {reason} for no reason")
    elif job.reasons:
        raise InvariantBroken(f"future {number} of {client.name} is finished, and should have failed")
    else:
        _look_up(simulation, client, number)
    _judge_runs(simulation, client, job)


def _judge_runs(simulation: Simulation, client: SimulatedClient, job: Job) -> None:
    """Where no worker was lost, and no client but with the scheduler, nothing runs twice."""
    quiet = not simulation.deaths and not simulation.breaks and not simulation.falsified
    quiet &= not any(each.retried or each.left or each.machine.closed for each in simulation.clients)
    crashed = simulation.generation > 1
    known = client.failed.get(job.number)
    if quiet and _prompt(simulation) and known is not None and simulation.attempts.get(job.label, 0) > known:
        raise InvariantBroken(f"job {job.number} of {client.name} ran again, and it was known to fail")
    # The report of a failure may be lost with the scheduler, and nobody else knows of it.
    if not quiet or job.adopted or (crashed and (job.kind or job.flakes or not _prompt(simulation))):
        return
    if simulation.attempts.get(job.label, 0) > 1 + job.flakes:
        raise InvariantBroken(f"job {job.number} of {client.name} ran twice, and no worker died")


def _prompt(simulation: Simulation) -> bool:
    """Tell whether all come back before a new scheduler waits for them no longer.

    It counts who is there: newcomers stand for those that it should wait for.
    """
    scenario = simulation.scenario
    newcomers = any(worker.joins_s for worker in scenario.workers)
    return not newcomers and all(fault.kind in ("crash", "slow") for fault in scenario.faults)


def _may_be_cancelled(simulation: Simulation, client: SimulatedClient, job: Job) -> bool:
    """Tell whether it was built on what was cancelled, or adopted what its maker had let go of."""
    if job.adopted:
        return True
    seen, stack = {job.number: None}, [job]
    while stack:
        for each in stack.pop().inputs:
            if each in client.cancelled or client.jobs[each].adopted:
                return True
            if each not in seen:
                seen[each] = None
                stack.append(client.jobs[each])
    return False


def _excused(simulation: Simulation, client: SimulatedClient, number: int, reason: str) -> bool:
    job = client.jobs[number]
    if reason == "DataLost":
        # A scheduler lets go at once of what a client has whose connection ended.
        lost = simulation.deaths or simulation.breaks or simulation.generation > 1
        return job.fragile and bool(lost or any(each.gone or each.left for each in simulation.clients))
    if reason == "KilledWorker":
        return simulation.deaths > simulation.scheduler.settings.allowed_failures
    if reason == "DataUnreachable":
        # Nothing else keeps data out of reach for long: the dead are noticed sooner.
        apart_s = sum(fault.for_s for fault in simulation.scenario.faults if fault.kind in ("apart", "estrange"))
        return apart_s > simulation.scheduler.settings.unreachable_max_s
    return False


def _look_up(simulation: Simulation, client: SimulatedClient, number: int) -> None:
    expected = client.jobs[number].expected
    payload = client.futures[number].payload
    found = [payload[0]] if payload is not None else []
    assert client.connection is not None
    held = simulation.scheduler.holders(client.connection.peer, [number])
    if not held:
        raise InvariantBroken(f"future {number} of {client.name} is finished, and nobody holds it")
    _, task, addresses = held[0]
    for address in addresses:
        data = simulation.by_address[address].data
        if task not in data:
            raise InvariantBroken(f"{address} should hold task {task}")
        found.append(data[task])
    for value in found:
        if value != expected:
            raise InvariantBroken(f"future {number} of {client.name} has the value {value}, which is wrong")


def judge_emptiness(simulation: Simulation) -> None:
    """All clients have left: nothing may stay, neither at the scheduler nor on the workers."""
    ledger = simulation.scheduler.ledger
    if ledger.recovery is not None or ledger.leaving or len(ledger.clients) > 2 or len(ledger.clients_by_name):
        raise InvariantBroken("the scheduler waits for clients, and all have left")
    if ledger.tasks or ledger.functions or ledger.by_key or ledger.recalls or ledger.strays:
        raise InvariantBroken(f"the scheduler keeps {[task for _, task in ledger.tasks.items()]} for nobody")
    for worker in ledger.workers.values():
        process = simulation.by_address[worker.address]
        left = (process.data, process.machine.replicas, process.machine.runs, process.machine.waiting, process.bodies)
        if any(left):
            raise InvariantBroken(f"worker {worker.address} keeps {left} for nobody")


def lengthy_names(simulation: Simulation) -> set[str]:
    """Return the workers that were silent for so long that they may be given up."""
    long = ("freeze", "divide")
    return {name for fault in simulation.scenario.faults if fault.kind in long for name in fault.names} | {
        name for name, silent_s in simulation.silent_s.items() if silent_s >= simulation.long_s
    }


def judge_silence(simulation: Simulation, fault: Mishap, connection: Pipe | None) -> None:
    """A worker was silent for so long that it must have been given up, if the scheduler ran all the time."""
    watching = not any("scheduler" in each.names for each in simulation.scenario.faults)
    if fault.kind in ("freeze", "divide") and watching and connection is not None and connection.open:
        raise InvariantBroken(f"{fault.names[0]} was silent for {fault.for_s} s, and nobody noticed")


def held_states(simulation: Simulation) -> list[tuple[int, Held]]:
    """Return the tasks whose data is somewhere, with where."""
    tasks = simulation.scheduler.ledger.tasks
    return [(number, task.state) for number, task in tasks.items() if type(task.state) is Held]
