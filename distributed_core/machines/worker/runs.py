"""One attempt at a task."""

from __future__ import annotations

from distributed_core.ids import FunctionId, RunId, TaskId
from distributed_core.messages import Payload


class Run:
    """An assignment of the scheduler, from its message to its report.

    `missing` is the number of inputs that are not held yet; at 0 it is handed to the executor.
    """

    __slots__ = ("function", "inputs", "missing", "payload", "run", "task")

    def __init__(
        self, task: TaskId, run: RunId, function: FunctionId, payload: Payload, inputs: tuple[TaskId, ...]
    ) -> None:
        self.task = task
        self.run = run
        self.function = function
        self.payload: Payload | None = payload
        self.inputs = inputs
        self.missing = 0
