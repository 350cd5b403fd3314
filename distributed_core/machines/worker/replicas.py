"""Data of tasks, as a worker sees it: wanted, in flight, held."""

from __future__ import annotations

from distributed_core.ids import RunId, TaskId

#: The address of a peer, and whether it is asked for what is small: that does not wait behind what is large.
Lane = tuple[str, bool]


class Replica:
    """The data of one task.

    Attributes
    ----------
    waiters
        Runs that need it and do not have it yet.
    holders
        Addresses that should have it and were not tried in vain.
    source
        The lane to the peer that was asked for it, or None.
    nbytes
        Its size where it is held, else what the scheduler said.
    held
        Whether the worker has it.
    run
        The run that made it here, 0 where it came from elsewhere.
    absent, unreachable
        Addresses that were tried in vain.
    errand
        The scheduler wants a copy here, whether a run needs it or not.
    """

    __slots__ = ("absent", "errand", "held", "holders", "nbytes", "run", "source", "task", "unreachable", "waiters")

    def __init__(self, task: TaskId, nbytes: int) -> None:
        self.task = task
        self.nbytes = nbytes
        self.held = False
        self.run: RunId = 0
        self.source: Lane | None = None
        self.holders: list[str] = []
        self.waiters: dict[RunId, None] = {}
        self.absent: list[str] = []
        self.unreachable: list[str] = []
        self.errand = False

    @property
    def address(self) -> str | None:
        """The address that was asked for it, or None."""
        return self.source[0] if self.source is not None else None


def next_request(
    queue: dict[TaskId, None], lane: Lane, replicas: dict[TaskId, Replica], tasks_max: int, bytes_max: int
) -> list[TaskId]:
    """Take from a queue what one request to a peer asks for; what is no longer sought there leaves it too."""
    batch: list[TaskId] = []
    nbytes = 0
    for task in list(queue):
        replica = replicas.get(task)
        if replica is None or replica.held or replica.source != lane:
            del queue[task]
            continue
        if batch and nbytes + replica.nbytes > bytes_max:
            break
        del queue[task]
        batch.append(task)
        nbytes += replica.nbytes
        if len(batch) == tasks_max:
            break
    return batch
