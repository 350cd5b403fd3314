"""What comes back after a connection, or a whole scheduler, was lost.

Nothing of this is on a disk. Workers kept data and runs, clients kept what they submitted; both say so when they
connect again, in any order. The number of a task is made of its client's name and the client's own number
(`task_base`), so that it means the same to a scheduler that never heard of it.

What workers tell of tasks that nobody asked for yet waits here to be claimed. While clients still say what they want,
and until the workers are there that they knew, nothing is assigned, so that nothing runs again that is about to turn
up. In the end what nobody claimed is disposed of.
"""

from __future__ import annotations

from zlib import crc32

from distributed_core import messages
from distributed_core.ids import Number, PeerId, RunId, TaskId
from distributed_core.machines.scheduler import transitions
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import ClientPeer, Lingering, Recovery, WorkerPeer
from distributed_core.machines.scheduler.tasks import Arriving, Assigned, Held, Ready, Reason, Task, Waiting

NUMBER_BITS = 32


def task_base(client: str) -> TaskId:
    """Return what is added to a client's own number of a task; the same for the same name, at any scheduler."""
    return (crc32(client.encode()) & 0x0FFFFFFF) << NUMBER_BITS


# --- beginning and end ----------------------------------------------------------------------------


def begin(ledger: Ledger) -> Recovery:
    """A peer came back: expect others to."""
    if ledger.recovery is None:
        ledger.recovery = Recovery()
    ledger.recovery.until_s = ledger.now + ledger.settings.recovery_s
    return ledger.recovery


def expect(ledger: Ledger, client: ClientPeer) -> None:
    """A client came back: assign nothing until it has said what it wants, for a while at most."""
    recovery = begin(ledger)
    recovery.clients[client.id] = None
    recovery.wait_until_s = ledger.now + ledger.settings.recovery_wait_s


def waits(ledger: Ledger) -> bool:
    """Tell whether nothing is to be assigned yet."""
    recovery = ledger.recovery
    if recovery is None or ledger.now >= recovery.wait_until_s:
        return False
    there = sum(not worker.returning for worker in ledger.workers.values())
    return bool(recovery.clients) or there < recovery.expected


def next_check_s(ledger: Ledger) -> float:
    """Return how long until something ends."""
    recovery = ledger.recovery
    assert recovery is not None
    ends = [each for each in (recovery.wait_until_s, recovery.until_s) if each > ledger.now]
    return min(ends, default=ledger.now) - ledger.now


def check(ledger: Ledger) -> None:
    """A timer ended: grant what waited for nothing more, and dispose of what nobody claimed in time."""
    recovery = ledger.recovery
    if recovery is None:
        return
    if not waits(ledger):
        grant_wishes(ledger)
    if ledger.now < recovery.until_s:
        return
    ledger.recovery = None
    tell_roster(ledger)
    for task_id, holders in recovery.held.items():
        for worker_id in holders:
            if worker_id in ledger.workers:
                ledger.send(worker_id, messages.Disposal([task_id]))
    for task_id, (worker_id, run) in recovery.runs.items():
        worker = ledger.workers.get(worker_id)
        if worker is not None:
            # Nobody waits for it, and it may never end: what was cancelled while there was no scheduler is among these.
            _withdraw(ledger, worker, task_id, run, interrupt=True)
    unclaimed = {run: None for _, run in recovery.runs.values()}
    for worker in ledger.workers.values():
        for run, lingering in worker.lingering.items():
            if lingering.foreign and run not in unclaimed:
                ledger.send(worker.id, messages.Withdrawal(0, run, True))
    for task in recovery.reclaimed.values():
        if type(task.state) is Arriving and task.state.worker is None:
            text = "no worker that came back has this data, which a client had scattered; scatter it again"
            transitions.fail(ledger, task, Reason("DataLost", text, None))


def roster(ledger: Ledger) -> int:
    """Return how many workers another scheduler should wait for: those that this one still waits for count too."""
    expected = ledger.recovery.expected if ledger.recovery is not None else 0
    return max(len(ledger.workers), expected)


def tell_roster(ledger: Ledger) -> None:
    """Tell clients how many workers there are; not those that did not yet say of how many they had heard."""
    count = roster(ledger)
    for client in ledger.clients.values():
        if client.id > 0 and client.said is None:
            ledger.send(client.id, messages.Roster(count))


def grant_wishes(ledger: Ledger) -> None:
    """Answer clients that wished for tasks of others, which may not have been there before those came back."""
    recovery = ledger.recovery
    if recovery is None:
        return
    wishes, recovery.wishes = recovery.wishes, []
    for client, number, key in wishes:
        if ledger.clients.get(client.id) is client and number not in client.tasks:
            wish(ledger, client, number, key)


def withdraw_wishes(ledger: Ledger, client: ClientPeer, numbers: list[Number]) -> None:
    """The client let go of futures; some of them it may only have wished for until now."""
    recovery = ledger.recovery
    if recovery is not None and recovery.wishes:
        recovery.wishes = [each for each in recovery.wishes if each[0] is not client or each[1] not in numbers]


def wish(ledger: Ledger, client: ClientPeer, number: Number, key: str) -> None:
    """Give a client a future of the task of that name."""
    task = ledger.claim(key)
    if task is not None:
        transitions.want(ledger, client, number, task)
    elif waits(ledger) and ledger.recovery is not None:
        ledger.recovery.wishes.append((client, number, key))
    else:
        ledger.send(client.id, messages.Cancelled(number, f"no task is named {key:.200}"))


# --- data out of reach ----------------------------------------------------------------------------


def cut_off(ledger: Ledger, task: Task, worker: WorkerPeer, inputs: list[Task]) -> bool:
    """A worker could not fetch these inputs of its task; return whether that has been so for too long."""
    troubles = task.trouble()
    troubles.fetch_failures += 1
    troubles.misses[worker.id] = troubles.misses.get(worker.id, 0) + 1
    ledger.cut_off[task.id] = task
    for each in inputs:
        troubles.unreachable.setdefault(each.id, ledger.now)
    since_s = min(troubles.unreachable[each.id] for each in inputs)
    settings = ledger.settings
    often = troubles.fetch_failures > settings.allowed_fetch_failures
    return often and ledger.now - since_s > settings.unreachable_max_s


def try_again(ledger: Ledger) -> None:
    """Some time has passed: workers that could not fetch data may try once more."""
    for task in ledger.cut_off.values():
        task.trouble().misses = {}
        if type(task.state) is Ready and not task.suspect:
            ledger.retrying[task.id] = task


# --- claims ---------------------------------------------------------------------------------------


def claim(ledger: Ledger, task: Task) -> None:
    """A task is wanted: take what workers have of it."""
    recovery = ledger.recovery
    if recovery is None:
        return
    for worker_id, nbytes in recovery.held.pop(task.id, {}).items():
        worker = ledger.workers.get(worker_id)
        if worker is not None:
            gain(ledger, task, worker, nbytes)
    worker_id, run = recovery.runs.pop(task.id, (0, 0))
    worker = ledger.workers.get(worker_id)
    if worker is not None:
        ledger.depart(worker, run)
        adopt(ledger, task, worker, run)


def gain(ledger: Ledger, task: Task, worker: WorkerPeer, nbytes: int) -> None:
    """`worker` has the data of a task, as a copy or from before."""
    state = task.state
    if type(state) is Arriving and state.worker in (worker, None):
        transitions.hold(ledger, task, worker, nbytes, None)
    elif type(state) is Held:
        if task.options is not None and task.options.actor:
            # What others get of an actor is a proxy, no copy; and it would keep the actor alive.
            if worker not in state.workers:
                ledger.send(worker.id, messages.Disposal([task.id]))
        elif worker not in state.workers:
            ledger.move(task, Held((*state.workers, worker), state.nbytes))
    elif type(state) in (Waiting, Ready) and not (task.options and task.options.actor and not worker.returning):
        # Its other holders died while this copy was under way: nothing has to run again.
        transitions.hold(ledger, task, worker, nbytes, None)
    elif type(state) is Assigned and state.worker is worker:
        pass  # Its run replaces the copy.
    elif type(state) is Assigned and worker.returning:
        # It was given to another worker while this one was away.
        ledger.linger(task, state, ())
        ledger.send(state.worker.id, messages.Withdrawal(task.id, state.run, False))
        transitions.hold(ledger, task, worker, nbytes, None)
    else:
        # Nobody knows of this copy.
        ledger.send(worker.id, messages.Disposal([task.id]))


def adopt(ledger: Ledger, task: Task, worker: WorkerPeer, run: RunId) -> None:
    """A run that began under another connection counts again, if the task still needs one."""
    if type(task.state) in (Waiting, Ready) and task.function is not None:
        state = Assigned(worker, run, ledger.expected_s(task.function), ledger.now)
        state.started = True
        ledger.move(task, state)
    else:
        # Another run counts. This one is dropped without haste, until somebody cancels the task.
        ledger.strays.setdefault(task.id, []).append((worker, run))
        _withdraw(ledger, worker, task.id, run)


def _withdraw(ledger: Ledger, worker: WorkerPeer, task: TaskId, run: RunId, *, interrupt: bool = False) -> None:
    worker.lingering[run] = Lingering((), (), foreign=True)
    ledger.send(worker.id, messages.Withdrawal(task, run, interrupt))
    ledger.review(worker)


# --- what a worker says that is back --------------------------------------------------------------


def continued(ledger: Ledger, worker: WorkerPeer, items: list[tuple[TaskId, RunId]]) -> None:
    """These runs go on at a worker."""
    for task_id, run in items:
        ledger.note_run(run)
        if not task_id:
            worker.lingering[run] = Lingering((), (), foreign=True)
            continue
        task = ledger.tasks.get(task_id)
        if task is not None:
            adopt(ledger, task, worker, run)
        elif ledger.recovery is None or task_id in ledger.recovery.runs:
            _withdraw(ledger, worker, task_id, run)
        else:
            ledger.recovery.runs[task_id] = (worker.id, run)
            # It takes a thread, whosever it is.
            worker.lingering[run] = Lingering((), (), foreign=True)


def keep(ledger: Ledger, worker: WorkerPeer, task_id: TaskId, nbytes: int) -> bool:
    """Keep in mind that a worker has data of a task that nobody asked for yet; return False where that is no use."""
    recovery = ledger.recovery
    if recovery is None:
        return False
    recovery.held.setdefault(task_id, {})[worker.id] = nbytes
    return True


def ended(ledger: Ledger, worker: WorkerPeer, task_id: TaskId, run: RunId, nbytes: int | None) -> None:
    """A run ended that nobody claimed yet: with data of `nbytes`, or None if it failed."""
    recovery = ledger.recovery
    if recovery is not None and recovery.runs.get(task_id) == (worker.id, run):
        del recovery.runs[task_id]
        ledger.depart(worker, run)
        if nbytes is not None:
            keep(ledger, worker, task_id, nbytes)


# --- what a client says that is back --------------------------------------------------------------


def reattach(ledger: Ledger, peer: PeerId, name: str) -> ClientPeer | None:
    """Return the client of that name under its new number, if this scheduler still has its futures."""
    client = ledger.clients_by_name.get(name)
    if client is None:
        client = next((each for each in ledger.leaving.values() if each.name == name), None)
    if client is None:
        return None
    for book in (ledger.clients, ledger.leaving, ledger.outbox):
        book.pop(client.id, None)
    client.id = peer
    client.leaves = False
    return client


def reunited(ledger: Ledger, client: ClientPeer, workers: int) -> None:
    """A client has said all that it wants: let go of what it did not name."""
    said, client.said = client.said, None
    if said is not None:
        transitions.unwant(ledger, client, [number for number in client.tasks if number not in said])
    recovery = ledger.recovery
    if recovery is not None:
        recovery.clients.pop(client.id, None)
        recovery.expected = max(recovery.expected, workers)
        if not waits(ledger):
            grant_wishes(ledger)
    ledger.send(client.id, messages.Roster(roster(ledger)))
