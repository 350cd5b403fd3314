"""One attempt at a task."""

from __future__ import annotations

from distributed_core.ids import FunctionId, RunId, TaskId
from distributed_core.messages import Payload


class Run:
    """An assignment of the scheduler, from its message to its report.

    Attributes
    ----------
    missing
        How many inputs are not held yet; at 0 it is handed to the executor, and `payload` is None.
    timeout_s
        How long it may run, 0 for ever; `timed_out` once it took longer and was interrupted.
    recalled
        The scheduler asked for it back, and the executor was asked.
    interrupt
        It was withdrawn, and is to be interrupted if it runs.
    orphaned
        Its scheduler was lost, and the executor was asked for it back: nobody wants to hear of that.
    """

    __slots__ = (
        "function",
        "inputs",
        "interrupt",
        "missing",
        "orphaned",
        "payload",
        "recalled",
        "run",
        "task",
        "timed_out",
        "timeout_s",
    )

    def __init__(
        self,
        task: TaskId,
        run: RunId,
        function: FunctionId,
        payload: Payload,
        inputs: tuple[TaskId, ...],
        timeout_s: float = 0.0,
    ) -> None:
        self.task = task
        self.run = run
        self.function = function
        self.payload: Payload | None = payload
        self.inputs = inputs
        self.missing = 0
        self.timeout_s = timeout_s
        self.timed_out = False
        self.recalled = False
        self.interrupt = False
        self.orphaned = False
