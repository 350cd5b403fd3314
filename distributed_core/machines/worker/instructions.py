"""What a worker's machine can ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed_core.ids import FunctionId, RunId, TaskId
from distributed_core.messages import Payload


@dataclass(frozen=True, slots=True)
class Report:
    """Send these messages to the scheduler, in one packet."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a function in a thread; all `inputs` are held. Runs start in the order of these instructions."""

    run: RunId
    task: TaskId
    function: FunctionId
    payload: Payload
    inputs: tuple[TaskId, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take a run back from the executor if no thread has begun it, and feed `RunTaken`."""

    run: RunId


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise `TaskInterrupted` in the thread that is at this run."""

    run: RunId


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Feed `TimerEnded` after this time."""

    run: RunId
    purpose: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class EndProcess:
    """End this process at once, once what was reported has left; its nanny starts another one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Close this worker, with exit code 0."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the worker at `address` for the data of these tasks; what is `small` goes beside what is large."""

    address: str
    tasks: list[TaskId]
    small: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """The data of these tasks is not needed any more."""

    tasks: list[TaskId]


@dataclass(frozen=True, slots=True)
class Spill:
    """Write the least recently used results to disk until `nbytes` of memory are free, then feed `SpillEnded`."""

    nbytes: int


@dataclass(frozen=True, slots=True)
class KeepFunction:
    function: FunctionId
    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class DropFunctions:
    functions: list[FunctionId]


WorkerInstruction = (
    Report
    | Execute
    | TakeBack
    | Interrupt
    | SetTimer
    | EndProcess
    | Leave
    | Fetch
    | Discard
    | Spill
    | KeepFunction
    | DropFunctions
)
