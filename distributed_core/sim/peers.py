"""How workers and clients find the scheduler, and how both ends hear that a connection is no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions
from distributed_core.sim.clients import SimulatedClient
from distributed_core.sim.nannies import Keeper
from distributed_core.sim.oracle import lengthy_names
from distributed_core.sim.workers import SimulatedWorker
from distributed_core.sim.world import Link, Pipe, Process, World

GREETING_S = 0.002
RETRY_S = 0.05
REFUSED_MAX_S = 3.0
"""A worker that the scheduler refuses for so long ends, by its clock."""
LOSSY_DEATHS = 0.3
"""So many processes die so that what they had sent, and that is still under way, is lost too."""
BROKEN_S = 0.005
"""An end sees so late that its connection broke."""
PUT_MAX_S = 0.05

Caller = SimulatedWorker | SimulatedClient


class Peers:
    """The part of a world that connects it.

    Attributes
    ----------
    process
        The scheduler's, while it lives; the last one that lived while there is none.
    callers
        The owner of each connection, by the scheduler's number of it.
    breaks
        Connections that ended while both processes lived.
    """

    world: World
    process: Process
    scheduler: SchedulerMachine
    keepers: dict[str, Keeper]
    doomed: bool
    generation: int
    feed: Callable[[events.SchedulerEvent], None]

    def __init__(self) -> None:
        self.connections: dict[int, Pipe] = {}
        self.callers: dict[int, Caller] = {}
        self.by_address: dict[str, SimulatedWorker] = {}
        self.clients: list[SimulatedClient] = []
        self.deaths = 0
        self.breaks = 0
        self.partings: dict[frozenset[str], list[Callable[[bool], None]]] = {}
        self._knocking: dict[Caller, None] = {}
        self._peers = 0

    # --- to the scheduler's door ------------------------------------------------------------------

    def knock(self, caller: Caller) -> None:
        """Let a process look for the scheduler."""
        returns = caller.machine.returns if isinstance(caller, SimulatedWorker) else caller.returns
        delay_s = GREETING_S + RETRY_S * self.world.draw("knock", caller.name, self.world.events)
        self.world.later(delay_s, lambda: self._open(caller, returns), idle=self.doomed)

    def _open(self, caller: Caller, returns: bool) -> None:
        if not caller.alive or caller.connection is not None or caller.coming is not None or caller in self._knocking:
            return
        if isinstance(caller, SimulatedClient) and (caller.machine.closed or caller.left):
            return
        away = isinstance(caller, SimulatedClient) and caller.away_s > self.world.now
        if not self.process.alive or away:
            caller.wake(lambda: caller.turned_away(0.0))
            return
        self._knocking[caller] = None
        self.process.wake(lambda: self._answer(caller, returns))

    def _answer(self, caller: Caller, returns: bool) -> None:
        del self._knocking[caller]
        if not caller.alive:
            return
        if isinstance(caller, SimulatedClient):
            if not caller.left and not caller.machine.closed:
                self._welcome_client(caller, returns)
            return
        known = [each for each in self.scheduler.ledger.workers.values() if each.name == caller.name]
        if any(each.address != caller.address for each in known):
            # Its predecessor is dead, and nobody knows yet.
            caller.refused_s = caller.refused_s or caller.now
            caller.wake(lambda: caller.turned_away(REFUSED_MAX_S))
            return
        for each in known:
            # Its own earlier connection is dead, and nobody knew.
            self.connections.pop(each.id).cut()
            self.feed(events.WorkerLost(each.id, alive=True))
        connection = self._connect(caller, f"{caller.name} {self._peers + 1}")
        details = {"resources": caller.resources}
        shape = caller.shape
        self._say_welcome(connection, lambda: self._register(caller, connection))
        join = events.WorkerJoined(connection.peer, caller.address, caller.name, shape.nthreads, details, returns)
        self.feed(join)

    def _register(self, worker: SimulatedWorker, connection: Pipe) -> None:
        worker.registered(connection)
        keeper = self.keepers[worker.name]
        if keeper.process is worker and worker.connection is connection:
            keeper.hear_registered()

    def _welcome_client(self, client: SimulatedClient, returns: bool) -> None:
        old = self.scheduler.ledger.clients_by_name.get(client.name) if returns else None
        connection = self._connect(client, f"{client.name} {self._peers + 1}")
        scheduler = f"scheduler-{self.generation}"
        self._say_welcome(connection, lambda: client.connected(connection, scheduler))
        number = old.id if old is not None else 0
        self.feed(events.ClientJoined(connection.peer, client.name, client.shape.weight, returns))
        if number:
            dead = self.connections.pop(number)
            dead.cut()
            self.process.after(0.0, lambda: self.feed(events.ClientLost(number)))

    def _connect(self, caller: Caller, name: str) -> Pipe:
        self._peers += 1
        peer, shape, server = self._peers, caller.shape, self.process

        def take(batch: list[Any]) -> None:
            server.wake(lambda: self.feed(events.Received(peer, batch)))

        def receive(batch: list[Any]) -> None:
            caller.receive(connection, batch)

        up = Link(self.world, f"{name} up", take, shape.delay_s, shape.jitter)
        down = Link(self.world, f"{name} down", receive, shape.delay_s, shape.jitter)
        connection = self.connections[peer] = Pipe(peer, up, down, server)
        self.callers[peer] = caller
        caller.coming = connection
        return connection

    def _say_welcome(self, connection: Pipe, act: Callable[[], None]) -> None:
        caller = self.callers[connection.peer]
        connection.down.carry(lambda: caller.wake(act))

    # --- how connections end ----------------------------------------------------------------------

    def break_connection(self, connection: Pipe, *, above_s: float = 0.01, below_s: float = BROKEN_S) -> None:
        """Cut a connection whose processes live; the scheduler sees it after one time, the other end after another."""
        if not connection.open:
            return
        connection.cut()
        self.breaks += 1
        caller = self.callers[connection.peer]
        self.lose_later(connection, above_s)
        caller.after(below_s, lambda: caller.disconnected(connection))

    def lose_later(self, connection: Pipe, delay_s: float) -> None:
        """The scheduler sees a connection end."""
        peer = connection.peer
        if isinstance(self.callers[peer], SimulatedWorker):
            event: events.SchedulerEvent = events.WorkerLost(peer)
            self.deaths += 1
        else:
            event = events.ClientLost(peer)
        connection.server.after(delay_s, lambda: self._lose(connection, event))

    def _lose(self, connection: Pipe, event: events.SchedulerEvent) -> None:
        if self.connections.pop(connection.peer, None) is not None:
            self.feed(event)

    def drop(self, asked: instructions.Drop) -> None:
        """The scheduler ends a connection.

        Raises
        ------
        InvariantBroken
            It had no reason to.
        """
        connection = self.connections.pop(asked.peer, None)
        caller = self.callers[asked.peer]
        worker = self.scheduler.ledger.workers.get(asked.peer)
        if worker is None or not isinstance(caller, SimulatedWorker):
            raise InvariantBroken(f"{caller.name}, a client, was dropped: {asked.reason}")
        dead = not caller.alive or connection not in (caller.connection, caller.coming) or connection is None
        if not dead and worker.name not in lengthy_names(self):  # type: ignore[arg-type]
            raise InvariantBroken(f"{worker.name} was dropped, and had not been silent: {asked.reason}")
        if connection is not None:
            connection.cut()
            self.deaths += 1
            connection.server.after(0.0, lambda: self.feed(events.WorkerLost(asked.peer)))
            # A partition, if it is one, lets it know only when it heals.
            connection.down.cut = False
            connection.down.carry(lambda: caller.wake(lambda: caller.disconnected(connection)))

    def hang_up_all(self) -> None:
        """The scheduler's process is dead: the others see their connections end, with or without what was under way."""
        for peer, connection in self.connections.items():
            caller = self.callers[peer]
            connection.open = False
            connection.up.cut = True
            self._tell_of_death(caller, connection)
        self.connections = {}
        knocking, self._knocking = self._knocking, {}
        for caller in knocking:
            caller.wake(lambda caller=caller: caller.turned_away(0.0))  # type: ignore[misc]

    def _tell_of_death(self, caller: Caller, connection: Pipe) -> None:
        if self.world.draw("hang up", connection.peer) < LOSSY_DEATHS:
            connection.down.cut = True
            caller.after(BROKEN_S, lambda: caller.disconnected(connection))
        else:
            connection.down.carry(lambda: caller.wake(lambda: caller.disconnected(connection)))

    def process_ended(self, worker: SimulatedWorker, exit_code: int, *, gently: bool) -> None:
        """A worker's process is gone: its keeper hears of it, and sooner or later the scheduler."""
        connection = worker.connection or worker.coming
        if connection is not None and connection.open:
            connection.open = False
            connection.down.cut = True
            self.deaths += not worker.dismissed
            server = connection.server
            lost = events.WorkerLost(connection.peer, exit_code or None)
            if not gently and self.world.draw("death", worker.name, connection.peer) < LOSSY_DEATHS:
                connection.up.cut = True
                self.lose_later(connection, 0.01)
            else:
                connection.up.carry(lambda: server.wake(lambda: self._lose(connection, lost)))
        else:
            self.deaths += not worker.dismissed
        keeper = self.keepers[worker.name]
        if keeper.process is worker:
            keeper.hear_end(exit_code, left=exit_code == 0)

    def end_client(self, client: SimulatedClient) -> None:
        """A client leaves by its own wish."""
        if client.left:
            return
        client.left = True
        connection = client.connection or client.coming
        if connection is not None and connection.open:
            connection.cut()
            connection.server.wake(lambda: self._lose(connection, events.ClientLost(connection.peer)))

    # --- between workers, and from clients to them ------------------------------------------------

    def parted(self, one: str, other: str, action: Callable[[bool], None]) -> bool:
        """Tell whether no data passes between two workers now; then `action` follows: with whether it does again."""
        waiting = self.partings.get(frozenset((one, other)))
        if waiting is None:
            return False
        waiting.append(action)
        return True

    def put(self, client: SimulatedClient, message: messages.Placement) -> None:
        """A client brings data to a worker."""
        worker = self.by_address[message.address]
        value = client.jobs[message.number].expected
        delay_s = PUT_MAX_S * self.world.draw("put", client.name, message.number) + worker.disk_s

        def arrive() -> None:
            if not worker.alive or worker.connection is None:
                client.wake(lambda: client.fail_to_put(message.number))
            else:
                worker.wake(lambda: worker.put(message.task, value))

        self.world.later(delay_s, arrive)
