"""What the scheduler believes of the others."""

from __future__ import annotations

from typing import Any

from distributed_core.ids import FunctionId, Number, PeerId, TaskId
from distributed_core.machines.scheduler.tasks import Function, Task


class WorkerPeer:
    """A worker: what it was told to run (`assigned`, oldest first) and which data it holds.

    `arriving` is scattered data that a client is about to bring to it.
    `occupancy_s` is the time that its assigned tasks are expected to take, added up over its threads.
    """

    __slots__ = (
        "address",
        "arriving",
        "assigned",
        "details",
        "functions",
        "held",
        "id",
        "last_seen",
        "metrics",
        "name",
        "nbytes",
        "nthreads",
        "occupancy_s",
    )

    def __init__(self, id: PeerId, address: str, name: str, nthreads: int, details: dict[str, Any]) -> None:
        self.id = id
        self.address = address
        self.name = name
        self.nthreads = nthreads
        self.details = details
        self.assigned: dict[TaskId, Task] = {}
        self.arriving: dict[TaskId, Task] = {}
        self.held: dict[TaskId, Task] = {}
        self.functions: dict[FunctionId, None] = {}
        self.nbytes = 0
        self.occupancy_s = 0.0
        self.last_seen = 0.0
        self.metrics: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<WorkerPeer {self.id} {self.address}>"


class ClientPeer:
    """A client: its futures by number, and the functions that it may name by their digest."""

    __slots__ = ("functions", "id", "name", "tasks")

    def __init__(self, id: PeerId, name: str) -> None:
        self.id = id
        self.name = name
        self.tasks: dict[Number, Task] = {}
        self.functions: dict[bytes, Function] = {}

    def __repr__(self) -> str:
        return f"<ClientPeer {self.id} {self.name}>"
