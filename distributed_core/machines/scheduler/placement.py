"""Which worker gets a ready task: a pure policy over the ledger.

A task goes where it is expected to start first: after the work that the worker has already, and after the transfer of
the inputs that it lacks. So workers are filled by expected time and not by count, and data moves only where waiting for
its holder would take longer.
"""

from __future__ import annotations

import heapq
from itertools import islice

from distributed_core import messages
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.tasks import Assigned, Held, Ready, Task

#: Workers looked at for one task, so that the price of placing it does not grow with the cluster.
CANDIDATES_MAX = 8
#: Addresses of holders that travel with an input.
HOLDERS_MAX = 3


def assign_ready(ledger: Ledger) -> None:
    """Give ready tasks to workers, best priority first, while any worker has room."""
    while ledger.queue and ledger.open:
        _, task_id = heapq.heappop(ledger.queue)
        task = ledger.tasks.get(task_id)
        if task is not None and type(task.state) is Ready:
            assign(ledger, task, choose(ledger, task))


def choose(ledger: Ledger, task: Task) -> WorkerPeer:
    """Return the worker on which `task` is expected to start first."""
    candidates = dict.fromkeys(islice(ledger.open.values(), CANDIDATES_MAX))
    if not task.inputs:
        return min(candidates, key=load_s)
    for each in islice(task.inputs, CANDIDATES_MAX):
        if type(each.state) is Held:
            candidates.update(dict.fromkeys(islice(each.state.workers, HOLDERS_MAX)))
    return min(candidates, key=lambda worker: load_s(worker) + transfer_s(ledger, task, worker))


def load_s(worker: WorkerPeer) -> float:
    """Return the seconds until `worker` is expected to be done with what it has."""
    return worker.occupancy_s / worker.nthreads


def transfer_s(ledger: Ledger, task: Task, worker: WorkerPeer) -> float:
    """Return the seconds that bringing the missing inputs of `task` to `worker` is expected to take."""
    nbytes = missing = 0
    for each in task.inputs:
        if each.id not in worker.held and type(each.state) is Held:
            nbytes += each.state.nbytes
            missing += 1
    if not missing:
        return 0.0
    return ledger.settings.transfer_latency_s + nbytes / ledger.settings.bandwidth_bytes_per_s


def assign(ledger: Ledger, task: Task, worker: WorkerPeer) -> None:
    """Tell `worker` to run `task`, and the function first if it is new there."""
    function = task.function
    assert function is not None and task.payload is not None
    run = ledger.next_run_id()
    ledger.move(task, Assigned(worker, run, ledger.expected_s(function)))
    if function.id not in worker.functions:
        worker.functions[function.id] = None
        ledger.send(worker.id, messages.FunctionBody(function.id, function.name, function.body))
    inputs = [_locate(each, worker) for each in task.inputs] if task.inputs else []
    ledger.send(worker.id, messages.Assignment(task.id, run, function.id, task.payload, inputs))


def _locate(task: Task, worker: WorkerPeer) -> list[object]:
    state = task.state
    assert type(state) is Held
    if worker in state.workers:
        return [task.id, state.nbytes, []]
    return [task.id, state.nbytes, [holder.address for holder in state.workers[:HOLDERS_MAX]]]
