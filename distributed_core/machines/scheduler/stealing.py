"""Work stealing: a task that waits behind others goes back, when a worker is idle that would start it sooner.

The scheduler asks the crowded worker for it (`Recall`); only when that has given it back is it ready again, so nothing
runs twice. It moves where it is expected to start sooner although its data has to move, by the measure by which it was
placed: so it is not moved back, and the whole comes to rest. Large data is not moved for a short task.
"""

from __future__ import annotations

from itertools import islice

from distributed_core import messages
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.scheduler.placement import has_free, load_s, transfer_s, willing
from distributed_core.machines.scheduler.tasks import Assigned, Task
from distributed_core.machines.scheduler.withholding import has_space, is_large

#: Workers and tasks looked at in one pass, so that its price does not grow with the cluster.
THIEVES_MAX = 8
VICTIMS_MAX = 16
TASKS_MAX = 8


def balance(ledger: Ledger) -> None:
    """Recall queued tasks of crowded workers for workers with an idle thread, where nothing else is ready."""
    if not ledger.crowded or not ledger.open or ledger.shares.turn() is not None:
        return
    for thief in list(islice(ledger.open.values(), THIEVES_MAX)):
        room = thief.nthreads - thief.active - thief.incoming
        while room > 0:
            found = find_for(ledger, thief)
            if found is None:
                break
            recall(ledger, found, thief)
            room -= 1


def find_for(ledger: Ledger, thief: WorkerPeer) -> Task | None:
    """Return a task that `thief` would start sooner than the worker that has it."""
    victims = sorted(islice(ledger.crowded.values(), VICTIMS_MAX), key=lambda worker: -load_s(ledger, worker))
    for victim in victims:
        if victim is thief:
            continue
        # The last ones wait longest; those in front may be running.
        waiting = victim.active - victim.nthreads
        for task in islice(reversed(victim.assigned.values()), min(waiting, TASKS_MAX)):
            if worth_moving(ledger, task, victim, thief):
                return task
    return None


def worth_moving(ledger: Ledger, task: Task, victim: WorkerPeer, thief: WorkerPeer) -> bool:
    """Tell whether `task` would start sooner on `thief`, by enough to pay for the move of its data."""
    state = task.state
    assert type(state) is Assigned
    if state.recalled or state.started or state.seceded:
        return False
    if task.troubles is not None and (task.troubles.suspect or task.id in ledger.cut_off):
        return False
    options = task.options
    if options is not None and (options.actor or not _accepts(thief, task)):
        return False
    if ledger.limited and is_large(ledger, task) and not has_space(ledger, thief, task):
        # It would not be given to the thief, but come back.
        return False
    cost_s = transfer_s(ledger, task, thief)
    # What it adds to its worker's load itself is no reason to go.
    waits_s = load_s(ledger, victim) - state.expected_s / victim.nthreads
    settings = ledger.settings
    if cost_s > state.expected_s and waits_s < cost_s * settings.steal_transfer_factor:
        return False
    return waits_s > load_s(ledger, thief) + cost_s + settings.steal_latency_s


def _accepts(worker: WorkerPeer, task: Task) -> bool:
    options = task.options
    if options is None:
        return True
    return has_free(worker, options) and (options.workers is None or worker.answers_to(options.workers))


def relieve(ledger: Ledger, worker: WorkerPeer) -> None:
    """`worker` wants no more tasks: take back what it did not start, where another worker may run it."""
    others = [each for each in ledger.workers.values() if not (each is worker or each.paused or each.retiring)]
    if not others:
        return
    for place, task in enumerate(list(worker.assigned.values())):
        state = task.state
        if type(state) is not Assigned or place < worker.nthreads + worker.seceded:
            continue
        if state.recalled or state.started or state.seceded or task.suspect:
            continue
        options = task.options
        if options is None or any(each in others for each in willing(ledger, options)):
            recall(ledger, task, None)


def recall(ledger: Ledger, task: Task, thief: WorkerPeer | None) -> None:
    """Ask for a task back, for `thief` or because its worker is to leave."""
    state = task.state
    assert type(state) is Assigned
    state.recalled = True
    if thief is not None:
        ledger.recalls[state.run] = thief
        thief.incoming += 1
    ledger.send(state.worker.id, messages.Recall(task.id, state.run))
