"""What can go wrong in a world, by the word that a scenario has for it.

kill      the process dies                                memory   it takes too much, and its nanny kills it
restart   its nanny is told to start it anew              stop     it and its nanny end; later others come
retire    it leaves once others have its data             copy     some data is copied to it
thin      copies are dropped                              reset    its connection breaks, the process lives
pause     the process stands still for a while            freeze   for so long that it is taken for dead
slow      whatever reads or writes data takes longer
silence   nothing passes to or from the scheduler         divide   for so long that it is taken for dead
falsify   its books, or the scheduler's of it, become wrong
apart     no data passes between two, then it goes on     estrange ... then their connection breaks

crash     the scheduler dies; another one comes           doom      none comes
unseen    a connection breaks, and the scheduler sees     unaware   ... and the other end sees it later
          it later
absent    a client's connection breaks, and for a while
          it finds no way to the scheduler
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import events
from distributed_core.machines.scheduler.tasks import Held
from distributed_core.machines.worker.replicas import Replica
from distributed_core.sim.oracle import held_states, judge_silence
from distributed_core.sim.scenario import Mishap

if TYPE_CHECKING:
    from distributed_core.sim.peers import Caller
    from distributed_core.sim.run import Simulation
    from distributed_core.sim.workers import SimulatedWorker

SLOW_DISK_S = 0.3
PURSUIT_S = 0.05
PHANTOM = 1 << 61
HEALED_S = 6.0
"""A worker that froze comes back within that, and has its heartbeats."""
PURSUITS_MAX = 100


def strike(simulation: Simulation, fault: Mishap) -> None:
    """Let a fault happen."""
    FAULTS[fault.kind](simulation, fault)


def _process(simulation: Simulation, fault: Mishap) -> SimulatedWorker | None:
    """Return the living process of that name, if there is one now."""
    keeper = simulation.keepers.get(fault.names[0])
    process = keeper.process if keeper is not None else None
    return process if process is not None and process.alive else None


def _caller(simulation: Simulation, fault: Mishap) -> Caller | None:
    """Return the client, or the living worker process, of that name."""
    for client in simulation.clients:
        if client.name == fault.names[0]:
            return client if not client.left and not client.machine.closed else None
    return _process(simulation, fault)


def _peer(simulation: Simulation, fault: Mishap) -> int:
    """Return what the scheduler calls it, or 0 if it is not registered now."""
    process = _process(simulation, fault)
    connection = process.connection if process is not None else None
    return connection.peer if connection is not None and connection.open else 0


# --- processes ------------------------------------------------------------------------------------


def _kill(simulation: Simulation, fault: Mishap) -> None:
    process = _process(simulation, fault)
    if process is not None:
        process.end(-9)


def _memory(simulation: Simulation, fault: Mishap) -> None:
    keeper = simulation.keepers.get(fault.names[0])
    process = _process(simulation, fault)
    if keeper is None or process is None or not keeper.shape.nanny:
        return
    registered = keeper.machine.state == "up"
    keeper.measure(2 << 30)
    if registered and process.alive:
        raise InvariantBroken(f"the nanny of {keeper.shape.name} lets it take more memory than its limit")


def _restart(simulation: Simulation, fault: Mishap) -> None:
    keeper = simulation.keepers.get(fault.names[0])
    if keeper is None or not keeper.shape.nanny:
        return
    peer = _peer(simulation, fault)
    if peer:
        simulation.feed(events.Received(peer, [messages.Sacrifice("it is restarted")]))
    keeper.restart()


def _stop(simulation: Simulation, fault: Mishap) -> None:
    keeper = simulation.keepers.get(fault.names[0])
    if keeper is not None and keeper.shape.nanny and keeper.process is not None:
        keeper.stop()


def _pause(simulation: Simulation, fault: Mishap) -> None:
    if fault.names == ["scheduler"]:
        simulation.process.pause()
        simulation.world.later(fault.for_s, simulation.process.resume)
        return
    process = _caller(simulation, fault)
    if process is None:
        return
    connection = process.connection
    process.pause()

    def end() -> None:
        judge_silence(simulation, fault, connection)
        process.resume()

    simulation.world.later(fault.for_s, end)


def _slow(simulation: Simulation, fault: Mishap) -> None:
    process = _process(simulation, fault)
    if process is None:
        return
    process.disk_s += SLOW_DISK_S

    def end() -> None:
        process.disk_s = max(0.0, process.disk_s - SLOW_DISK_S)

    simulation.world.later(fault.for_s, end)


# --- connections ----------------------------------------------------------------------------------


def _silence(simulation: Simulation, fault: Mishap) -> None:
    process = _caller(simulation, fault)
    connection = process.connection if process is not None else None
    if process is None or connection is None:
        return
    connection.hold()

    def end() -> None:
        judge_silence(simulation, fault, connection)
        connection.heal()
        if not connection.open:
            # The scheduler gave it up meanwhile: the first packet that gets there again is refused.
            process.wake(lambda: process.disconnected(connection))

    simulation.world.later(fault.for_s, end)


def _reset(simulation: Simulation, fault: Mishap) -> None:
    process = _caller(simulation, fault)
    if process is not None and process.connection is not None:
        simulation.break_connection(process.connection)


def _unseen(simulation: Simulation, fault: Mishap) -> None:
    process = _caller(simulation, fault)
    if process is not None and process.connection is not None:
        simulation.break_connection(process.connection, above_s=fault.for_s)


def _unaware(simulation: Simulation, fault: Mishap) -> None:
    process = _caller(simulation, fault)
    if process is not None and process.connection is not None:
        simulation.break_connection(process.connection, below_s=fault.for_s)


def _absent(simulation: Simulation, fault: Mishap) -> None:
    client = next((each for each in simulation.clients if each.name == fault.names[0]), None)
    if client is not None:
        client.away_s = simulation.world.now + fault.for_s
        _reset(simulation, fault)


def _crash(simulation: Simulation, fault: Mishap) -> None:
    simulation.crash(fault.for_s)


def _apart(simulation: Simulation, fault: Mishap) -> None:
    pair = frozenset(fault.names)
    if pair in simulation.partings:
        return
    waiting: list[Callable[[bool], None]] = []
    simulation.partings[pair] = waiting
    healed = fault.kind == "apart"

    def end() -> None:
        del simulation.partings[pair]
        for action in waiting:
            action(healed)

    simulation.world.later(fault.for_s, end)


# --- what is asked of the scheduler ---------------------------------------------------------------


def _retire(simulation: Simulation, fault: Mishap) -> None:
    peer = _peer(simulation, fault)
    if peer and len(simulation.scheduler.ledger.workers) > 1:
        simulation.feed(events.RetirementWanted([peer]))
        simulation.world.later(0.01, lambda: _pursue(simulation, peer, PURSUITS_MAX))


def _pursue(simulation: Simulation, peer: int, tries: int) -> None:
    def pursue() -> None:
        progress = {peer: ""}
        simulation.feed(events.RetirementPursued(progress))
        if progress[peer] == "done":
            simulation.send(peer, [messages.Dismissal("retired")])
        elif progress[peer] in ("running", "copying") and tries:
            simulation.world.later(PURSUIT_S, lambda: _pursue(simulation, peer, tries - 1))
        else:
            simulation.feed(events.RetirementEnded([peer]))

    simulation.process.wake(pursue)


def _copy(simulation: Simulation, fault: Mishap) -> None:
    peer = _peer(simulation, fault)
    if peer:
        pairs = [(number, peer) for number, _ in held_states(simulation)[:10]]
        simulation.feed(events.CopiesWanted(pairs))


def _thin(simulation: Simulation, fault: Mishap) -> None:
    peer = _peer(simulation, fault)
    pairs = [(number, peer) for number, state in held_states(simulation) if len(state.workers) > 1]
    simulation.feed(events.ReplicasUnwanted(pairs))


# --- wrong books ----------------------------------------------------------------------------------


def _falsify(simulation: Simulation, fault: Mishap) -> None:
    """Let a worker forget data and have some that nobody asked for, and let the scheduler believe in copies there."""
    process, peer = _process(simulation, fault), _peer(simulation, fault)
    ledger = simulation.scheduler.ledger
    worker = ledger.workers.get(peer)
    if process is None or worker is None:
        return
    simulation.falsified = True
    machine = process.machine
    needed = {task for run in machine.waiting.values() for task in run.inputs}
    for number in [each for each in worker.held if each % 2 and each not in needed]:
        task, replica = ledger.tasks[number], machine.replicas.get(number)
        # What cannot be made again may be lost for good.
        if task.function is not None and task.options is None and replica is not None and replica.held:
            del machine.replicas[number], process.data[number]
    for number, state in held_states(simulation):
        if number % 3 == 0 and worker not in state.workers and ledger.tasks[number].options is None:
            ledger.move(ledger.tasks[number], Held((*state.workers, worker), state.nbytes))
    phantom = machine.replicas[PHANTOM] = Replica(PHANTOM, 8)
    phantom.held = True
    process.data[PHANTOM] = 0
    simulation.world.later(HEALED_S, lambda: _see_heartbeats(simulation))


def _see_heartbeats(simulation: Simulation) -> None:
    """Keep the world going, which heartbeats do not, until views can be compared again and were."""
    if simulation.scheduler.ledger.recovery is not None and simulation.process.alive:
        simulation.world.later(HEALED_S, lambda: _see_heartbeats(simulation))
    else:
        simulation.world.later(HEALED_S, lambda: None)


FAULTS: dict[str, Callable[[Simulation, Mishap], None]] = {
    "kill": _kill,
    "memory": _memory,
    "restart": _restart,
    "stop": _stop,
    "retire": _retire,
    "copy": _copy,
    "thin": _thin,
    "pause": _pause,
    "freeze": _pause,
    "slow": _slow,
    "silence": _silence,
    "divide": _silence,
    "apart": _apart,
    "estrange": _apart,
    "reset": _reset,
    "unseen": _unseen,
    "unaware": _unaware,
    "absent": _absent,
    "crash": _crash,
    "doom": _crash,
    "falsify": _falsify,
}
