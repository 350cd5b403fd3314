"""What must be true of a world: at every moment, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler.tasks import Held
from distributed_core.sim.clients import SimulatedClient

if TYPE_CHECKING:
    from distributed_core.sim.run import Simulation
    from distributed_core.sim.scenario import Mishap
    from distributed_core.sim.world import Pipe

_REPORTS = (messages.Completion, messages.Failure, messages.Rejection)


class RunBook:
    """Which run of which task counts, read off the wire alone: the scheduler's books must say the same.

    A run counts from its assignment until its report has come, or it was withdrawn, or its worker was lost.
    """

    def __init__(self) -> None:
        self._runs: dict[int, tuple[int, int]] = {}

    def told(self, peer: int, message: Any) -> None:
        """The scheduler sends this to a worker."""
        if type(message) is messages.Assignment:
            if message.task in self._runs:
                raise InvariantBroken(f"task {message.task} is assigned while a run of it counts")
            self._runs[message.task] = (peer, message.run)
        elif type(message) is messages.Withdrawal and self._runs.get(message.task) == (peer, message.run):
            del self._runs[message.task]

    def heard(self, peer: int, message: Any) -> None:
        """A worker's message has reached the scheduler."""
        ends = type(message) in _REPORTS or (type(message) is messages.Yielding and message.given)
        if ends and self._runs.get(message.task) == (peer, message.run):
            del self._runs[message.task]

    def lost(self, peer: int) -> None:
        """The scheduler gave a worker up."""
        self._runs = {task: run for task, run in self._runs.items() if run[0] != peer}

    def check(self, simulation: Simulation) -> None:
        """Compare the scheduler's books."""
        assigned: dict[int, tuple[int, int]] = {}
        for worker in simulation.scheduler.ledger.workers.values():
            for task in worker.assigned.values():
                assigned[task.id] = (worker.id, task.state.run)  # type: ignore[attr-defined]
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
    for client in simulation.clients:
        if not client.left:
            assert client.connection is not None
            kept = client.gone.keys() & simulation.scheduler.ledger.clients[client.connection.peer].tasks.keys()
            if kept:
                raise InvariantBroken(f"{client.name} let go of {sorted(kept)}, and the scheduler holds them for it")
            for number in client.jobs:
                _judge_future(simulation, client, number)
    for worker in simulation.scheduler.ledger.workers.values():
        process = simulation.by_address[worker.address]
        for task in worker.held:
            if task not in process.data:
                raise InvariantBroken(f"{worker.address} should hold task {task}")
        for task in process.data:
            if task not in worker.held:
                raise InvariantBroken(f"{worker.address} keeps task {task}, of which the scheduler knows nothing")
        if worker.lingering and not any(each.payload[1] for each in process.running.values()):
            raise InvariantBroken(f"{worker.address} never said that withdrawn runs are over")
    for keeper in simulation.keepers.values():
        if keeper.process is not None or keeper.shape.joins_s <= simulation.world.now:
            keeper.judge()


def _judge_future(simulation: Simulation, client: SimulatedClient, number: int) -> None:
    job, status = client.jobs[number], client.status[number]
    if number in client.gone or status == "cancelled":
        return
    if status == "pending":
        raise InvariantBroken(f"future {number} of {client.name} is never done")
    if status == "error":
        reason = client.reasons[number]
        if reason not in job.reasons and not _excused(simulation, client, number, reason):
            raise InvariantBroken(f"future {number} of {client.name} failed with {reason} for no reason")
    elif job.reasons:
        raise InvariantBroken(f"future {number} of {client.name} is finished, and should have failed")
    else:
        _look_up(simulation, client, number)
    quiet = (
        not simulation.deaths
        and not simulation.falsified
        and not any(each.retried or each.left for each in simulation.clients)
    )
    if quiet and not job.adopted and simulation.attempts.get(job.label, 0) > 1 + job.flakes:
        raise InvariantBroken(f"future {number} of {client.name} ran twice, and no worker died")


def _excused(simulation: Simulation, client: SimulatedClient, number: int, reason: str) -> bool:
    job = client.jobs[number]
    if reason == "DataLost":
        return job.fragile and bool(simulation.deaths or any(each.gone or each.left for each in simulation.clients))
    if reason == "KilledWorker":
        return simulation.deaths > simulation.scheduler.settings.allowed_failures
    if reason == "DataUnreachable":
        # Nothing else keeps data out of reach for long: the dead are noticed sooner.
        apart_s = sum(fault.for_s for fault in simulation.scenario.faults if fault.kind in ("apart", "estrange"))
        return apart_s > simulation.scheduler.settings.unreachable_max_s
    return False


def _look_up(simulation: Simulation, client: SimulatedClient, number: int) -> None:
    expected = client.jobs[number].expected
    found = [client.values[number]] if number in client.values else []
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
    if ledger.tasks or ledger.functions or ledger.by_key or ledger.recalls:
        raise InvariantBroken(f"the scheduler keeps {[task for _, task in ledger.tasks.items()]} for nobody")
    for worker in ledger.workers.values():
        process = simulation.by_address[worker.address]
        left = (process.data, process.machine.replicas, process.machine.runs, process.machine.waiting)
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
