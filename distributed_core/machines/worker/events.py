"""What can happen to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from distributed_core.ids import RunId, TaskId
from distributed_core.messages import Payload


@dataclass(frozen=True, slots=True)
class Instructed:
    """A whole batch of messages of the scheduler."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class SchedulerGone:
    """The connection to the scheduler ended; the worker looks for it, or for another one in its place."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The worker has a scheduler again, which may know nothing of it."""


class RunFinished(NamedTuple):
    """A run returned; the server keeps its result. `payload` is the result, where it is small."""

    run: RunId
    nbytes: int
    duration_s: float
    payload: Payload | None


class RunFailed(NamedTuple):
    """A run raised."""

    run: RunId
    payload: Payload
    text: str
    duration_s: float


class RunDeclined(NamedTuple):
    """A run asked to be run elsewhere, or later."""

    run: RunId


class RunStarved(NamedTuple):
    """A run could not start: these inputs, which were held here, cannot be read back."""

    run: RunId
    tasks: tuple[TaskId, ...]


RunReport = RunFinished | RunFailed | RunDeclined | RunStarved


@dataclass(frozen=True, slots=True)
class Executed:
    """What the executor's threads got done since the last time, oldest first."""

    reports: list[RunReport]


@dataclass(frozen=True, slots=True)
class RunTaken:
    """The answer to `TakeBack`: whether the run had not started, and now will not."""

    run: RunId
    taken: bool


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A thread began a run that has a time limit."""

    run: RunId


@dataclass(frozen=True, slots=True)
class RunSeceded:
    """A run left its thread's seat to others."""

    run: RunId


@dataclass(frozen=True, slots=True)
class RunReturned:
    """A run that had seceded has a seat again."""

    run: RunId


@dataclass(frozen=True, slots=True)
class TimerEnded:
    """A timer of `SetTimer` fired."""

    run: RunId
    purpose: str


@dataclass(frozen=True, slots=True)
class DataFetched:
    """A peer answered: `arrived` are (task, bytes) that the server keeps now, `absent` it does not have."""

    address: str
    arrived: list[tuple[TaskId, int]]
    absent: list[TaskId]
    small: bool = False


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """A peer did not answer, or the connection broke before these tasks had arrived."""

    address: str
    tasks: list[TaskId]
    small: bool = False


@dataclass(frozen=True, slots=True)
class DataPut:
    """A client brought data, (task, bytes) each; the server keeps it."""

    items: list[tuple[TaskId, int]]


@dataclass(frozen=True, slots=True)
class MemoryTaken:
    """What was measured: of the process, of large results in memory, of those that could go to disk, of those there."""

    process_bytes: int
    held_bytes: int
    spillable_bytes: int
    spilled_bytes: int


@dataclass(frozen=True, slots=True)
class SpillEnded:
    """What `Spill` asked for is done, or as much as could be: so many bytes went to disk."""

    freed_bytes: int


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """A heartbeat leaves now: what is believed here goes with it."""


WorkerEvent = (
    Instructed
    | SchedulerGone
    | Registered
    | Executed
    | RunTaken
    | RunStarted
    | RunSeceded
    | RunReturned
    | TimerEnded
    | DataFetched
    | PeerUnreachable
    | DataPut
    | MemoryTaken
    | SpillEnded
    | HeartbeatDue
)
