"""What can happen to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed_core.ids import PeerId


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker registered. `address` is where it serves its data; `details` are shown to people."""

    worker: PeerId
    address: str
    name: str
    nthreads: int
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The connection to a worker ended."""

    worker: PeerId


@dataclass(frozen=True, slots=True)
class ClientJoined:
    client: PeerId
    id: str


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


SchedulerEvent = WorkerJoined | WorkerLost | ClientJoined | ClientLost | Received | LivenessChecked
