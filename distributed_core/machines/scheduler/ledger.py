"""All records of the scheduler, and its outbox.

`move` is the only place where the state of a task changes. It keeps the workers' books (who is assigned what, who holds
what, occupancy) in step with the states, so that no transition can forget to.
"""

from __future__ import annotations

import heapq
from typing import Any

from distributed_core.errors import InvariantBroken
from distributed_core.ids import FunctionId, PeerId, TaskId
from distributed_core.machines.scheduler.peers import ClientPeer, WorkerPeer
from distributed_core.machines.scheduler.table import MOVES
from distributed_core.machines.scheduler.tasks import Arriving, Assigned, Function, Held, Ready, Task, TaskState
from distributed_core.settings import SchedulerSettings


class Ledger:
    """The scheduler's memory."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.tasks: dict[TaskId, Task] = {}
        self.by_key: dict[str, Task] = {}
        self.functions: dict[bytes, Function] = {}
        self.workers: dict[PeerId, WorkerPeer] = {}
        self.clients: dict[PeerId, ClientPeer] = {}
        self.clients_by_name: dict[str, ClientPeer] = {}
        #: Workers that may get more work, the one that got work last at the end.
        self.open: dict[PeerId, WorkerPeer] = {}
        #: A heap of (priority, id) of ready tasks; entries of tasks that left that state are skipped.
        self.queue: list[tuple[int, TaskId]] = []
        self.outbox: dict[PeerId, list[Any]] = {}
        self.drops: dict[PeerId, str] = {}
        self._task_ids = 0
        self._run_ids = 0
        self._function_ids: FunctionId = 0

    # --- numbers ----------------------------------------------------------------------------------

    def next_task_id(self) -> TaskId:
        self._task_ids += 1
        return self._task_ids

    def next_run_id(self) -> int:
        self._run_ids += 1
        return self._run_ids

    def next_function_id(self) -> FunctionId:
        self._function_ids += 1
        return self._function_ids

    def find(self, key: str) -> Task | None:
        """Return the task of that name. A name may be one that a client made from its own name and a number."""
        task = self.by_key.get(key)
        if task is None:
            head, _, number = key.rpartition("-")
            client = self.clients_by_name.get(head.rpartition("-")[2])
            task = client.tasks.get(int(number)) if client is not None and number.isdecimal() else None
            if task is not None and task.key is None:
                # Its maker may let go of it first: from now on the name is its own.
                task.key = key
                self.by_key[key] = task
        return task

    # --- outbox -----------------------------------------------------------------------------------

    def send(self, peer: PeerId, message: Any) -> None:
        box = self.outbox.get(peer)
        if box is None:
            self.outbox[peer] = [message]
        else:
            box.append(message)

    # --- the state of a task ----------------------------------------------------------------------

    def move(self, task: Task, new: TaskState) -> None:
        """Change the state of `task`, and the workers' books with it.

        Raises
        ------
        InvariantBroken
            The table knows no such move.
        """
        old = task.state
        kind = type(new)
        if (type(old), kind) not in MOVES:
            raise InvariantBroken(f"task {task.id} cannot go from {type(old).__name__} to {kind.__name__}")
        if type(old) is Assigned:
            worker = old.worker
            del worker.assigned[task.id]
            worker.occupancy_s = worker.occupancy_s - old.expected_s if worker.assigned else 0.0
            if worker.id in self.workers:
                self.review(worker)
        elif type(old) is Held:
            for worker in old.workers:
                if kind is not Held or worker not in new.workers:  # type: ignore[attr-defined]
                    del worker.held[task.id]
                    worker.nbytes -= old.nbytes
        elif type(old) is Arriving and old.worker is not None:
            del old.worker.arriving[task.id]
        task.state = new
        if kind is Ready:
            heapq.heappush(self.queue, (task.priority, task.id))
        elif type(new) is Assigned:
            worker = new.worker
            worker.assigned[task.id] = task
            worker.occupancy_s += new.expected_s
            self.review(worker)
        elif type(new) is Arriving and new.worker is not None:
            new.worker.arriving[task.id] = task
        elif type(new) is Held:
            for worker in new.workers:
                if task.id not in worker.held:
                    worker.held[task.id] = task
                    worker.nbytes += new.nbytes

    def review(self, worker: WorkerPeer) -> None:
        """Put `worker` among those that may get more work, or take it out."""
        self.open.pop(worker.id, None)
        if not self.full(worker):
            self.open[worker.id] = worker

    def full(self, worker: WorkerPeer) -> bool:
        """Tell whether `worker` has enough to do until the scheduler hears of it again."""
        return len(worker.assigned) > worker.nthreads and worker.occupancy_s >= worker.nthreads * self.settings.fill_s

    def expected_s(self, function: Function | None) -> float:
        if function is None or function.duration_s is None:
            return self.settings.unknown_duration_s
        return function.duration_s
