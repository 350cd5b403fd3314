"""Who holds what and who runs what, by the names of tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from distributed_core.machines.scheduler.tasks import Assigned, Held, Task
from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.operations import Operations, chosen_workers

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler


def task_name(task: Task) -> str:
    """Return the key of a task, or the name that its client made from its function, its own id and a number.

    A task that has neither, because its client let go of it while others need it, gets one from its id.
    """
    if task.key is not None:
        return task.key
    name = _prefix(task)
    if task.client is not None:
        return f"{name}-{task.client.name}-{task.number}"
    return f"{name}-task-{task.id}"


def _prefix(task: Task) -> str:
    return task.function.name if task.function is not None else "data"


class Questions(Extension):
    """Answers about tasks, data and workers."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.started_at = time.time()
        self.handlers = {
            "who_has": self._handle_who_has,
            "has_what": self._handle_has_what,
            "nbytes": self._handle_nbytes,
            "nthreads": self._handle_nthreads,
            "processing": self._handle_processing,
            "call_stack": self._handle_call_stack,
            "task_names": self._handle_task_names,
        }

    def _tasks(self, keys: list[str] | None) -> Iterable[tuple[str, Task | None]]:
        ledger = self.scheduler.machine.ledger
        if keys is None:
            return [(task_name(task), task) for task in ledger.tasks.values()]
        return [(key, ledger.find(key)) for key in keys]

    async def _handle_who_has(self, keys: list[str] | None = None, **context: Any) -> dict[str, Any]:
        return {
            name: [worker.address for worker in task.state.workers]
            if task is not None and type(task.state) is Held
            else []
            for name, task in self._tasks(keys)
        }

    async def _handle_has_what(self, workers: list[str] | None = None, **context: Any) -> dict[str, Any]:
        chosen = chosen_workers(self.scheduler, workers)
        return {worker.address: [task_name(task) for task in worker.held.values()] for worker in chosen}

    async def _handle_processing(self, workers: list[str] | None = None, **context: Any) -> dict[str, Any]:
        chosen = chosen_workers(self.scheduler, workers)
        return {worker.address: [task_name(task) for task in worker.assigned.values()] for worker in chosen}

    async def _handle_nthreads(self, workers: list[str] | None = None, **context: Any) -> dict[str, Any]:
        return {worker.address: worker.nthreads for worker in chosen_workers(self.scheduler, workers)}

    async def _handle_nbytes(
        self, keys: list[str] | None = None, summary: bool = True, **context: Any
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, task in self._tasks(keys):
            if task is not None and type(task.state) is Held:
                word = _prefix(task) if summary else name
                found[word] = found.get(word, 0) + task.state.nbytes
        return found

    async def _handle_task_names(self, numbers: list[int], **context: Any) -> dict[int, str]:
        tasks = self.scheduler.machine.ledger.tasks
        return {number: task_name(tasks[number]) for number in numbers if number in tasks}

    async def _handle_call_stack(self, keys: list[str] | None = None, **context: Any) -> dict[str, Any]:
        """Return, by worker and by task, the frames of what its threads are at."""
        workers = self.scheduler.machine.ledger.workers
        chosen = list(workers.values())
        wanted: dict[int, str] | None = None
        if keys is not None:
            tasks = [(name, task) for name, task in self._tasks(keys) if task is not None]
            wanted = {task.id: name for name, task in tasks}
            busy = {task.state.worker.id for _, task in tasks if type(task.state) is Assigned}
            chosen = [worker for worker in chosen if worker.id in busy]
        operations = next(each for each in self.scheduler.extensions if type(each) is Operations)
        answers = await operations.call_each(chosen, "call_stack")
        found: dict[str, Any] = {}
        for address, (well, stacks) in answers.items():
            for number, name, frames in stacks if well else ():
                if wanted is not None and number not in wanted:
                    continue
                task = self.scheduler.machine.ledger.tasks.get(number)
                key = wanted[number] if wanted is not None else task_name(task) if task else f"{name}-task-{number}"
                found.setdefault(address, {})[key] = frames
        return found
