"""Large results: a task waits where its result would bring the workers' memory above a part of their limits.

How large the results of a function are is measured, as its duration is; one that never ended is taken for small, and a
worker first gets a few of its tasks only. So a graph of many large tasks, each soon reduced, runs as fast as the
reductions free memory, whatever its shape. A worker that runs nothing may always get one: there is progress.
"""

from __future__ import annotations

import heapq

from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Ready, Task


def is_large(ledger: Ledger, task: Task) -> bool:
    """Tell whether the results of the task's function are large in the mean, and some worker has a limit."""
    function = task.function
    return ledger.limited > 0 and function is not None and function.nbytes >= ledger.settings.large_result_bytes_min


def has_space(ledger: Ledger, worker: WorkerPeer, task: Task) -> bool:
    """Tell whether `worker` may hold the result of `task` beside what it holds and what its runs will give."""
    if not worker.space_bytes:
        return True
    assert task.function is not None
    held = max(0, worker.nbytes - worker.spilled_bytes)
    return held + worker.expected_bytes + task.function.nbytes <= worker.space_bytes


def withhold(ledger: Ledger, task: Task) -> None:
    """Set a ready task aside until a worker has space for its result."""
    assert task.function is not None
    heapq.heappush(ledger.withheld.setdefault(task.function, []), (task.priority, task.id))


def first_withheld(ledger: Ledger) -> list[Task]:
    """Return the best ready task of each function that has withheld ones; forget what is ready no more."""
    found = []
    for function, heap in list(ledger.withheld.items()):
        while heap:
            task = ledger.tasks.get(heap[0][1])
            if task is not None and type(task.state) is Ready and not task.suspect:
                found.append(task)
                break
            heapq.heappop(heap)
        if not heap:
            del ledger.withheld[function]
    found.sort(key=lambda task: (task.priority, task.id))
    return found


def take_first(ledger: Ledger, task: Task) -> None:
    """`task`, one of `first_withheld`, is withheld no more."""
    assert task.function is not None
    heapq.heappop(ledger.withheld[task.function])
