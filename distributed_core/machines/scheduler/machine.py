"""Events in, instructions out: the scheduler's decisions from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed_core import messages
from distributed_core.ids import PeerId
from distributed_core.machines.scheduler import events, placement, transitions
from distributed_core.machines.scheduler.instructions import Drop, SchedulerInstruction, Send, WatchLiveness
from distributed_core.machines.scheduler.ledger import Ledger
from distributed_core.machines.scheduler.peers import ClientPeer, WorkerPeer
from distributed_core.machines.scheduler.tasks import (
    Arriving,
    Assigned,
    Function,
    Held,
    Reason,
    Released,
    Task,
    TaskOptions,
)
from distributed_core.settings import SchedulerSettings


class Misbehaved(Exception):
    """A peer sent what it cannot mean; it is dropped, and nobody else is harmed."""


class SchedulerMachine:
    """The scheduler as a pure machine.

    Parameters
    ----------
    settings
        Limits and intervals.
    """

    def __init__(self, settings: SchedulerSettings | None = None) -> None:
        self.settings = settings or SchedulerSettings()
        self.ledger = Ledger(self.settings)
        self._now = 0.0
        self._watching = False

    # --- the one door -----------------------------------------------------------------------------

    def handle(self, event: events.SchedulerEvent, now: float) -> list[SchedulerInstruction]:
        """Apply what happened at `now` seconds; return what is to be done, in order."""
        self._now = now
        self._ON_EVENT[type(event)](self, event)
        placement.assign_ready(self.ledger)
        ledger = self.ledger
        instructions: list[SchedulerInstruction] = [Send(peer, batch) for peer, batch in ledger.outbox.items()]
        ledger.outbox = {}
        if ledger.drops:
            instructions.extend(Drop(peer, reason) for peer, reason in ledger.drops.items())
            ledger.drops = {}
        if ledger.workers and not self._watching:
            self._watching = True
            instructions.append(WatchLiveness(self.settings.liveness_interval_s))
        return instructions

    # --- questions that the servers answer without an event ---------------------------------------

    def worker_details(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each worker, by address."""
        return {
            worker.address: {
                **worker.details,
                "name": worker.name,
                "nthreads": worker.nthreads,
                "assigned": len(worker.assigned),
                "held": len(worker.held),
                "nbytes": worker.nbytes,
                "metrics": worker.metrics,
            }
            for worker in self.ledger.workers.values()
        }

    def holders(self, client: PeerId, numbers: list[int]) -> list[list[Any]]:
        """Return `[number, task, addresses]` for those futures of a client whose data is held somewhere."""
        tasks = self.ledger.clients[client].tasks
        found = []
        for number in numbers:
            task = tasks.get(number)
            if task is not None and type(task.state) is Held:
                found.append([number, task.id, [worker.address for worker in task.state.workers]])
        return found

    # --- peers come and go ------------------------------------------------------------------------

    def _on_worker_joined(self, event: events.WorkerJoined) -> None:
        worker = WorkerPeer(event.worker, event.address, event.name, event.nthreads, event.details)
        worker.last_seen = self._now
        self.ledger.workers[event.worker] = worker
        self.ledger.review(worker)

    def _on_worker_lost(self, event: events.WorkerLost) -> None:
        ledger = self.ledger
        worker = ledger.workers.pop(event.worker, None)
        if worker is None:
            return
        ledger.open.pop(worker.id, None)
        for place, task in enumerate(list(worker.assigned.values())):
            # Tasks run in the order in which they were assigned: only the first ones can have been running.
            if place < worker.nthreads:
                task.deaths += 1
            if task.deaths > self.settings.allowed_failures:
                transitions.fail(ledger, task, self._killed(task, worker))
            elif type(task.state) is Assigned and task.state.worker is worker:
                transitions.requeue(ledger, task)
        for task in list(worker.held.values()):
            transitions.lose_replica(ledger, task, worker)
        for task in list(worker.arriving.values()):
            text = f"the worker {worker.address} died before the scattered data reached it; scatter it again"
            transitions.fail(ledger, task, Reason("DataLost", text, None))
        ledger.outbox.pop(worker.id, None)

    def _killed(self, task: Task, worker: WorkerPeer) -> Reason:
        name = task.function.name if task.function else "?"
        text = (
            f"{task.deaths} workers died while they ran {name}, the last one {worker.address}: it probably ends its "
            "process (a crash in native code, or more memory than the limit); look at the worker's log"
        )
        return Reason("KilledWorker", text, None)

    def _on_client_joined(self, event: events.ClientJoined) -> None:
        client = self.ledger.clients[event.client] = ClientPeer(event.client, event.id)
        self.ledger.clients_by_name[event.id] = client

    def _on_client_lost(self, event: events.ClientLost) -> None:
        client = self.ledger.clients.pop(event.client, None)
        if client is None:
            return
        if self.ledger.clients_by_name.get(client.name) is client:
            del self.ledger.clients_by_name[client.name]
        transitions.unwant(self.ledger, client, list(client.tasks))
        for function in client.functions.values():
            function.clients -= 1
            transitions.drop_function(self.ledger, function)
        self.ledger.outbox.pop(client.id, None)

    def _on_liveness_checked(self, event: events.LivenessChecked) -> None:
        self._watching = False
        silence_s = self.settings.worker_silence_max_s
        for worker in self.ledger.workers.values():
            if self._now - worker.last_seen > silence_s:
                self.ledger.drops[worker.id] = f"it sent nothing for {silence_s:.0f} s"

    # --- messages ---------------------------------------------------------------------------------

    def _on_received(self, event: events.Received) -> None:
        ledger = self.ledger
        peer: Any = ledger.workers.get(event.peer)
        if peer is not None:
            handlers = self._FROM_WORKER
            peer.last_seen = self._now
        else:
            peer = ledger.clients.get(event.peer)
            if peer is None:
                return
            handlers = self._FROM_CLIENT
        try:
            for message in event.messages:
                handler = handlers.get(type(message))
                if handler is None:
                    raise Misbehaved(f"it sent {type(message).__name__}, which is not for a scheduler")
                handler(self, peer, message)
        except Misbehaved as error:
            ledger.drops[event.peer] = str(error)

    def _on_submission(self, client: ClientPeer, message: messages.Submission) -> None:
        ledger = self.ledger
        for digest, name, body in self._checked(message.functions, (bytes, str, bytes)):
            if digest in client.functions:
                continue
            function = ledger.functions.get(digest)
            if function is None:
                function = Function(ledger.next_function_id(), digest, name, body)
                ledger.functions[digest] = function
            function.clients += 1
            client.functions[digest] = function
        shape = (int, (str, type(None)), bytes, list, list, int, (dict, type(None)))
        for number, key, digest, payload, inputs, priority, options in self._checked(message.tasks, shape):
            if number in client.tasks:
                raise Misbehaved(f"it used the number {number} twice")
            task = ledger.by_key.get(key) if key is not None else None
            if task is None:
                function = client.functions.get(digest)
                try:
                    needs = tuple([client.tasks[each] for each in inputs])
                except (KeyError, TypeError):
                    raise Misbehaved("it submitted a task on a future that it does not hold") from None
                if function is None or len(set(inputs)) != len(inputs):
                    raise Misbehaved("it submitted a task with an unknown function or with an input twice")
                task = self._new_task(key, function, payload, needs, priority, _options(options))
            transitions.want(ledger, client, number, task)

    def _new_task(
        self,
        key: str | None,
        function: Function | None,
        payload: Any,
        inputs: tuple[Task, ...],
        priority: int,
        options: TaskOptions | None = None,
    ) -> Task:
        ledger = self.ledger
        task = Task(ledger.next_task_id(), key, function, payload, inputs, -priority, options)
        ledger.tasks[task.id] = task
        if key is not None:
            ledger.by_key[key] = task
        if function is not None:
            function.tasks += 1
        for each in inputs:
            if each.users is None:
                each.users = {task.id: task}
            else:
                each.users[task.id] = task
        return task

    def _on_scattering(self, client: ClientPeer, message: messages.Scattering) -> None:
        ledger = self.ledger
        planned: dict[PeerId, int] = {}
        for number, key, nbytes in self._checked(message.items, (int, (str, type(None)), int)):
            if number in client.tasks:
                raise Misbehaved(f"it used the number {number} twice")
            task = ledger.by_key.get(key) if key is not None else None
            if task is not None and type(task.state) is not Released:
                transitions.want(ledger, client, number, task)
                continue
            worker = min(ledger.workers.values(), key=lambda each: each.nbytes + planned.get(each.id, 0), default=None)
            if task is None:
                task = self._new_task(key, None, None, (), 0)
            ledger.move(task, Arriving(worker))
            transitions.want(ledger, client, number, task)
            if worker is None:
                text = "there is no worker to scatter data to; start one first"
                transitions.fail(ledger, task, Reason("DataLost", text, None))
                continue
            planned[worker.id] = planned.get(worker.id, 0) + nbytes
            ledger.send(client.id, messages.Placement(number, task.id, worker.address))

    def _on_release(self, client: ClientPeer, message: messages.Release) -> None:
        transitions.unwant(self.ledger, client, self._numbers(message.numbers))

    def _on_cancellation(self, client: ClientPeer, message: messages.Cancellation) -> None:
        transitions.cancel(self.ledger, client, self._numbers(message.numbers))

    def _on_wish(self, client: ClientPeer, message: messages.Wish) -> None:
        for number, key in self._checked(message.items, (int, str)):
            if number in client.tasks:
                raise Misbehaved(f"it used the number {number} twice")
            task = self.ledger.find(key)
            if task is None:
                self.ledger.send(client.id, messages.Cancelled(number, f"no task is named {key:.200}"))
            else:
                transitions.want(self.ledger, client, number, task)

    def _on_complaint(self, client: ClientPeer, message: messages.Complaint) -> None:
        for number, address in self._checked(message.items, (int, str)):
            task = client.tasks.get(number)
            if task is not None:
                self._disbelieve(task, address)

    def _on_completion(self, worker: WorkerPeer, message: messages.Completion) -> None:
        task = self._current(worker, message.task, message.run)
        if task is not None:
            self._learn(task, message.duration_s)
            transitions.hold(self.ledger, task, worker, message.nbytes, message.payload)

    def _on_failure(self, worker: WorkerPeer, message: messages.Failure) -> None:
        task = self._current(worker, message.task, message.run)
        if task is not None:
            self._learn(task, message.duration_s)
            transitions.fail(self.ledger, task, Reason("exception", message.text, message.payload))

    def _on_rejection(self, worker: WorkerPeer, message: messages.Rejection) -> None:
        ledger = self.ledger
        task = self._current(worker, message.task, message.run)
        if task is None:
            return
        for each, address in self._checked(message.absent, (int, str)):
            lost = ledger.tasks.get(each)
            if lost is not None:
                self._disbelieve(lost, address or worker.address)
        unreachable = self._checked(message.unreachable, (int, str))
        if unreachable:
            task.fetch_failures += 1
        if task.fetch_failures > self.settings.allowed_fetch_failures:
            addresses = ", ".join(dict.fromkeys(address for _, address in unreachable))
            text = f"worker {worker.address} could not fetch inputs from {addresses}; check the network between workers"
            transitions.fail(ledger, task, Reason("DataUnreachable", text, None))
        elif type(task.state) is Assigned:
            transitions.requeue(ledger, task)

    def _disbelieve(self, task: Task, address: str) -> None:
        """The worker at `address` does not have the data that it should: the books were wrong."""
        if type(task.state) is Held:
            for worker in task.state.workers:
                if worker.address == address:
                    self.ledger.send(worker.id, messages.Disposal([task.id]))
                    transitions.lose_replica(self.ledger, task, worker)

    def _on_possession(self, worker: WorkerPeer, message: messages.Possession) -> None:
        ledger = self.ledger
        for task_id, nbytes in self._checked(message.items, (int, int)):
            task = ledger.tasks.get(task_id)
            state = task.state if task is not None else None
            if task is not None and type(state) is Arriving and state.worker is worker:
                transitions.hold(ledger, task, worker, nbytes, None)
            elif task is not None and type(state) is Held:
                if worker not in state.workers:
                    ledger.move(task, Held((*state.workers, worker), state.nbytes))
            elif not (type(state) is Assigned and state.worker is worker):
                # Nobody knows of this copy. Where the task is assigned to the same worker, its run replaces the copy.
                ledger.send(worker.id, messages.Disposal([task_id]))

    def _on_heartbeat(self, worker: WorkerPeer, message: messages.Heartbeat) -> None:
        worker.metrics = message.metrics

    def _current(self, worker: WorkerPeer, task_id: int, run: int) -> Task | None:
        """Return the task if this run of it is the one that counts."""
        task = self.ledger.tasks.get(task_id)
        if task is None:
            return None
        state = task.state
        if type(state) is Assigned and state.run == run and state.worker is worker:
            return task
        return None

    def _learn(self, task: Task, duration_s: float) -> None:
        function = task.function
        assert function is not None
        old = function.duration_s
        weight = self.settings.duration_weight
        function.duration_s = duration_s if old is None else old + weight * (duration_s - old)

    @staticmethod
    def _numbers(numbers: list[Any]) -> list[int]:
        if not all(type(number) is int for number in numbers):
            raise Misbehaved("it sent numbers that are not integers")
        return numbers

    @staticmethod
    def _checked(items: list[Any], shape: tuple[Any, ...]) -> list[Any]:
        """Return `items` if each is an array of this shape."""
        for item in items:
            if type(item) is not list or len(item) != len(shape) or not all(map(isinstance, item, shape)):
                raise Misbehaved("it sent an array of the wrong shape")
        return items

    _ON_EVENT: dict[type, Callable[..., None]] = {
        events.WorkerJoined: _on_worker_joined,
        events.WorkerLost: _on_worker_lost,
        events.ClientJoined: _on_client_joined,
        events.ClientLost: _on_client_lost,
        events.Received: _on_received,
        events.LivenessChecked: _on_liveness_checked,
    }
    _FROM_CLIENT: dict[type, Callable[..., None]] = {
        messages.Submission: _on_submission,
        messages.Scattering: _on_scattering,
        messages.Release: _on_release,
        messages.Cancellation: _on_cancellation,
        messages.Complaint: _on_complaint,
        messages.Wish: _on_wish,
    }
    _FROM_WORKER: dict[type, Callable[..., None]] = {
        messages.Completion: _on_completion,
        messages.Failure: _on_failure,
        messages.Rejection: _on_rejection,
        messages.Possession: _on_possession,
        messages.Heartbeat: _on_heartbeat,
    }


def _options(given: dict[str, Any] | None) -> TaskOptions | None:
    """Return the options of a task as its client sent them."""
    if not given:
        return None
    try:
        workers = given.get("workers")
        resources = given.get("resources") or {}
        if not all(type(amount) in (int, float) and amount >= 0 for amount in resources.values()):
            raise ValueError
        return TaskOptions(
            retries=int(given.get("retries", 0)),
            resources=tuple(sorted((str(name), float(amount)) for name, amount in resources.items())),
            workers=None if workers is None else frozenset(map(str, workers)),
            loose=bool(given.get("loose")),
            timeout_s=float(given.get("timeout_s", 0.0)),
            actor=bool(given.get("actor")),
        )
    except (TypeError, ValueError, AttributeError):
        raise Misbehaved("it sent options of a task that make no sense") from None
