"""What can happen to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed_core.ids import PeerId, TaskId


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker registered. `address` is where it serves its data; `details` are shown to people.

    One that `returns` has data or runs from before, of which it tells next; `Presence` is the last word of that.
    """

    worker: PeerId
    address: str
    name: str
    nthreads: int
    details: dict[str, Any]
    returns: bool = False


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The connection to a worker ended; its nanny may have told what became of the process.

    With `alive` it is known that the process lives: it has another connection.
    """

    worker: PeerId
    exit_code: int | None = None
    memory_bytes: int = 0
    alive: bool = False


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client connected. One that `returns` says next what it still wants; `Reunion` is the last word of that."""

    client: PeerId
    id: str
    weight: float = 1.0
    returns: bool = False


@dataclass(frozen=True, slots=True)
class ClientLost:
    """The connection to a client ended; nobody else holds its futures."""

    client: PeerId


@dataclass(frozen=True, slots=True)
class Received:
    """A whole batch of messages of one peer: all are applied, then one scheduling pass follows."""

    peer: PeerId
    messages: list[Any]


@dataclass(frozen=True, slots=True)
class LivenessChecked:
    """The timer that `WatchLiveness` asked for."""


@dataclass(frozen=True, slots=True)
class Continued:
    """The turn that `Continue` asked for."""


@dataclass(frozen=True, slots=True)
class RecoveryChecked:
    """The timer that `WatchRecovery` asked for."""


@dataclass(frozen=True, slots=True)
class CopiesWanted:
    """Data is to be on more workers: (task, worker) each."""

    pairs: list[tuple[TaskId, PeerId]]


@dataclass(frozen=True, slots=True)
class ReplicasUnwanted:
    """These workers may forget their copies, (task, worker) each; an only copy stays."""

    pairs: list[tuple[TaskId, PeerId]]


@dataclass(frozen=True, slots=True)
class RetirementWanted:
    """These workers are to get nothing more, and to leave once nothing depends on them."""

    workers: list[PeerId]


@dataclass(frozen=True, slots=True)
class RetirementPursued:
    """See how far these are, and do what is next; the machine writes each one's progress."""

    progress: dict[PeerId, str]


@dataclass(frozen=True, slots=True)
class RetirementEnded:
    """These workers stay after all."""

    workers: list[PeerId]


SchedulerEvent = (
    WorkerJoined
    | WorkerLost
    | ClientJoined
    | ClientLost
    | Received
    | LivenessChecked
    | Continued
    | RecoveryChecked
    | CopiesWanted
    | ReplicasUnwanted
    | RetirementWanted
    | RetirementPursued
    | RetirementEnded
)
