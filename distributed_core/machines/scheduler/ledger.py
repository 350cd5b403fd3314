"""All records of the scheduler, and its outbox.

`move` is the only place where the state of a task changes. It keeps the workers' books (who is assigned what, who holds
what, occupancy, resources) in step with the states, so that no transition can forget to.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from distributed_core.errors import InvariantBroken
from distributed_core.ids import FunctionId, Number, PeerId, RunId, TaskId
from distributed_core.machines.pages import Pages
from distributed_core.machines.scheduler.fairness import Shares
from distributed_core.machines.scheduler.peers import ClientPeer, Lingering, Recovery, WorkerPeer
from distributed_core.machines.scheduler.table import MOVES
from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Function,
    Held,
    Ready,
    Task,
    TaskOptions,
    TaskState,
    Waiting,
)
from distributed_core.settings import SchedulerSettings

#: One line of the log: when, which task, what it became, and the worker's address or another detail.
LogLine = tuple[float, TaskId, str, str]


#: Numbers of futures fit into 64 bits.
NUMBER_DIGITS_MAX = 20
#: The peer id of nobody: of the client that keeps vows.
VOWS: PeerId = 0
#: The peer id of the scheduler itself, as a client.
KEEPER: PeerId = -1


class Ledger:
    """The scheduler's memory."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.now = 0.0
        self.tasks: Pages[Task] = Pages()
        self.by_key: dict[str, Task] = {}
        self.functions: dict[bytes, Function] = {}
        self.workers: dict[PeerId, WorkerPeer] = {}
        #: It wants what clients want to be run although nobody holds it (`Vow`).
        self.vows = ClientPeer(VOWS, "vows")
        #: It holds the futures inside of what extensions keep.
        self.keeper = ClientPeer(KEEPER, "keeper")
        self.clients: dict[PeerId, ClientPeer] = {VOWS: self.vows, KEEPER: self.keeper}
        self.clients_by_name: dict[str, ClientPeer] = {}
        #: Clients that left, with the futures that are still to be released, a part in each turn.
        self.leaving: dict[PeerId, ClientPeer] = {}
        #: Workers that may get more work, the one that got work last at the end.
        self.open: dict[PeerId, WorkerPeer] = {}
        #: Workers with more to do than threads: others may take some of it.
        self.crowded: dict[PeerId, WorkerPeer] = {}
        #: Ready tasks without demands, by client.
        self.shares = Shares()
        #: Ready tasks that no worker could take, by their demands: heaps of (priority, id), as those of shares.
        self.parked: dict[TaskOptions, list[tuple[int, TaskId]]] = {}
        #: Ready tasks that are to run alone.
        self.suspects: dict[TaskId, Task] = {}
        #: Tasks that some worker could not fetch an input for, until that comes to another worker or the task ends.
        self.cut_off: dict[TaskId, Task] = {}
        #: Those of them that are ready and to be placed now; others wait for the next check of liveness.
        self.retrying: dict[TaskId, Task] = {}
        #: Ready tasks whose results no worker had space for, by their functions: heaps as those of shares.
        self.withheld: dict[Function, list[tuple[int, TaskId]]] = {}
        #: How many workers have a limit of memory.
        self.limited = 0
        #: Whether there were too many ready tasks to set aside in one turn.
        self.unsorted = False
        #: Workers of which something became free since parked tasks were looked at.
        self.fresh: dict[PeerId, WorkerPeer] = {}
        #: Runs that a worker was asked to give back, and the worker that is idle meanwhile.
        self.recalls: dict[RunId, WorkerPeer] = {}
        self.outbox: dict[PeerId, list[Any]] = {}
        self.drops: dict[PeerId, str] = {}
        #: What peers that came back told, while it lasts.
        self.recovery: Recovery | None = None
        #: Runs that were withdrawn because another one counts, by their tasks.
        self.strays: dict[TaskId, list[tuple[WorkerPeer, RunId]]] = {}
        #: How many things were mended that scheduler and workers believed differently: see `views.py`.
        self.mended = 0
        self.log: deque[LogLine] = deque(maxlen=settings.log_lines_max)
        self._run_ids = 0
        self._function_ids: FunctionId = 0
        self._vow_numbers: Number = 0

    # --- numbers ----------------------------------------------------------------------------------

    def note_run(self, run: RunId) -> None:
        """Somebody knows a run of this number: make none like it."""
        self._run_ids = max(self._run_ids, run)

    def next_run_id(self) -> int:
        self._run_ids += 1
        return self._run_ids

    def next_function_id(self) -> FunctionId:
        self._function_ids += 1
        return self._function_ids

    def next_vow(self) -> Number:
        self._vow_numbers += 1
        return self._vow_numbers

    def find(self, key: str) -> Task | None:
        """Return the task of that name. A name may be one that a client made from its own name and a number."""
        task = self.by_key.get(key)
        if task is None:
            head, _, number = key.rpartition("-")
            client = self.clients_by_name.get(head.rpartition("-")[2])
            task = client.tasks.get(int(number)) if client is not None and _counts(number) else None
        return task

    def claim(self, key: str) -> Task | None:
        """Return the task of that name for somebody who wants it: the name is its own from now on.

        Its maker may let go of it first. Mere questions use `find`, which leaves the books as they are.
        """
        task = self.find(key)
        if task is not None and task.key is None:
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
            self._unassign(task, old)
        elif type(old) is Held:
            for worker in old.workers:
                if kind is not Held or worker not in new.workers:  # type: ignore[attr-defined]
                    del worker.held[task.id]
                    worker.nbytes -= old.nbytes
                    if worker.limit_bytes and (self.withheld or self.parked) and worker.id in self.workers:
                        self.fresh[worker.id] = worker
        elif type(old) is Arriving and old.worker is not None:
            del old.worker.arriving[task.id]
        task.state = new
        detail = ""
        if kind is Ready:
            if task.troubles is not None and task.troubles.suspect:
                self.suspects[task.id] = task
            elif task.troubles is not None and task.id in self.cut_off:
                self.retrying[task.id] = task
            else:
                self.shares.push(task.share, task.priority, task.id)
        elif type(new) is Assigned:
            worker = new.worker
            detail = worker.address
            if not worker.assigned:
                worker.progress_at = self.now
            worker.assigned[task.id] = task
            worker.occupancy_s += new.expected_s
            if new.expected_bytes:
                worker.expected_bytes += new.expected_bytes
            if task.options is not None:
                self._take(worker, task.options.resources)
            self.review(worker)
        elif type(new) is Arriving and new.worker is not None:
            new.worker.arriving[task.id] = task
        elif type(new) is Held:
            for worker in new.workers:
                if task.id not in worker.held:
                    detail = worker.address
                    worker.held[task.id] = task
                    worker.nbytes += new.nbytes
                    if self.cut_off:
                        self._pardon_users(task)
        if task.troubles is not None and kind not in (Waiting, Ready, Assigned):
            self.cut_off.pop(task.id, None)
            self.retrying.pop(task.id, None)
        self.log.append((self.now, task.id, kind.__name__, detail))

    def _pardon_users(self, task: Task) -> None:
        """The data of `task` has come to a worker: those that it could not be fetched for may be tried anywhere."""
        for user in task.users.values() if task.users else ():
            troubles = user.troubles
            if troubles is None or troubles.unreachable.pop(task.id, None) is None:
                continue
            troubles.misses = {}
            ready = type(user.state) is Ready and not troubles.suspect
            if troubles.unreachable:
                if ready:
                    self.retrying[user.id] = user
                continue
            troubles.fetch_failures = 0
            self.cut_off.pop(user.id, None)
            self.retrying.pop(user.id, None)
            if ready:
                self.shares.push(user.share, user.priority, user.id)

    def _unassign(self, task: Task, old: Assigned) -> None:
        worker = old.worker
        del worker.assigned[task.id]
        worker.occupancy_s = worker.occupancy_s - old.expected_s if worker.assigned else 0.0
        if old.expected_bytes:
            worker.expected_bytes -= old.expected_bytes
        if old.seceded:
            worker.seceded -= 1
        if worker.alone == task.id:
            worker.alone = 0
        if old.recalled:
            self.forget_recall(old)
        if worker.id in self.workers:
            if task.options is not None:
                self.give_back(worker, task.options.resources)
            self.review(worker)

    def linger(self, task: Task, state: Assigned, clients: tuple[PeerId, ...]) -> None:
        """The run of an assigned task is withdrawn: until the worker says that it is over, its resources are taken.

        Call it before the task moves on.
        """
        worker = state.worker
        resources = task.options.resources if task.options is not None else ()
        worker.lingering[state.run] = Lingering(resources, clients)
        self._take(worker, resources)

    def depart(self, worker: WorkerPeer, run: RunId) -> None:
        """A withdrawn run is over."""
        lingering = worker.lingering.pop(run, None)
        if lingering is not None:
            self.give_back(worker, lingering.resources)
            self.review(worker)

    def forget_recall(self, state: Assigned) -> None:
        """The question whether a run can be given back is answered, or has become idle."""
        state.recalled = False
        thief = self.recalls.pop(state.run, None)
        if thief is not None:
            thief.incoming -= 1

    # --- workers ----------------------------------------------------------------------------------

    @staticmethod
    def _take(worker: WorkerPeer, resources: tuple[tuple[str, float], ...]) -> None:
        for name, amount in resources:
            worker.free[name] = worker.free.get(name, 0.0) - amount

    @staticmethod
    def give_back(worker: WorkerPeer, resources: tuple[tuple[str, float], ...]) -> None:
        for name, amount in resources:
            worker.free[name] += amount

    def review(self, worker: WorkerPeer) -> None:
        """Put `worker` among those that may get more work, and among those that have too much, or take it out."""
        self.open.pop(worker.id, None)
        if not self.full(worker):
            self.open[worker.id] = worker
        if worker.active > worker.nthreads:
            self.crowded[worker.id] = worker
        else:
            self.crowded.pop(worker.id, None)
        if self.parked or self.suspects or self.withheld:
            self.fresh[worker.id] = worker

    def full(self, worker: WorkerPeer) -> bool:
        """Tell whether `worker` has enough to do until the scheduler hears of it again, or may get nothing more."""
        if worker.alone or worker.reserved or worker.retiring or worker.paused or worker.returning:
            return True
        return worker.active > worker.nthreads and worker.occupancy_s >= worker.nthreads * self.settings.fill_s

    def expected_s(self, function: Function | None) -> float:
        if function is None or function.duration_s is None:
            return self.settings.unknown_duration_s
        return function.duration_s

    def charged_s(self, expected_s: float) -> float:
        """Return what a client pays in advance for a run that is expected to take so long."""
        # A mere guess must not outweigh what others really took.
        return self.settings.fill_s if expected_s == self.settings.unknown_duration_s else expected_s


def _counts(text: str) -> bool:
    """Tell whether a text may be a future's number; Python does not read numbers of thousands of digits."""
    return len(text) <= NUMBER_DIGITS_MAX and text.isdecimal()
