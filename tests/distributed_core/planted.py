"""Bugs that are planted in the machines, one at a time, to show that the simulation finds them.

Each is a function that plants it with a `MonkeyPatch`, and seeds that found it once: they are tried first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines import nanny
from distributed_core.machines.client import ClientMachine
from distributed_core.machines.client import events as client_events
from distributed_core.machines.client.lineage import Lineage
from distributed_core.machines.client.window import Window
from distributed_core.machines.scheduler import (
    SchedulerMachine,
    copying,
    from_worker,
    ledger,
    placement,
    recovery,
    transitions,
)
from distributed_core.machines.scheduler import events as scheduler_events
from distributed_core.machines.scheduler.from_client import FROM_CLIENT
from distributed_core.machines.scheduler.from_worker import FROM_WORKER
from distributed_core.machines.scheduler.tasks import Assigned
from distributed_core.machines.worker import WorkerMachine
from distributed_core.machines.worker import events as worker_events
from distributed_core.sim import simulate

SEEDS_MAX = 1500
Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, tuple[Plant, tuple[int, ...]]] = {}


def planted(*seeds: int) -> Callable[[Plant], Plant]:
    def enter(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = plant, seeds
        return plant

    return enter


def scenario_of(name: str) -> Path:
    """Return where the smallest scenario is that shows a planted bug, if it was kept."""
    return Path(__file__).parent / "scenarios" / f"{name}.txt"


def found_by(seeds: Any) -> tuple[int, str] | None:
    """Return the first seed whose world shows the bug, and how; other errors than the oracle's do not count."""
    for seed in seeds:
        try:
            simulate(seed)
        except InvariantBroken as error:
            return seed, str(error)
        except Exception:
            continue
    return None


def _nothing(*_: Any, **__: Any) -> None:
    """Do not do what was to be done."""


# --- the scheduler --------------------------------------------------------------------------------


@planted(0)
def a_disposal_that_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "_dispose", _nothing)


@planted(0)
def a_disposal_that_is_lost_now_and_then(patch: pytest.MonkeyPatch) -> None:
    dispose = transitions._dispose
    patch.setattr(transitions, "_dispose", lambda *each: dispose(*each) if each[2].id % 7 else None)


@planted(1)
def a_release_that_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_CLIENT, messages.Release, _nothing)


@planted(8)
def a_retrial_that_is_dropped(patch: pytest.MonkeyPatch) -> None:
    # All of its futures are pending again, as told, and nothing runs.
    retry = transitions.retry

    def forget(books: ledger.Ledger, client: Any, numbers: Any) -> None:
        activate, transitions.activate = transitions.activate, _nothing
        try:
            retry(books, client, numbers)
        finally:
            transitions.activate = activate

    patch.setattr(transitions, "retry", forget)


@planted(134)
def a_stale_run_id_that_is_accepted(patch: pytest.MonkeyPatch) -> None:
    def current(books: ledger.Ledger, worker: Any, task_id: int, run: int) -> Any:
        task = worker.assigned.get(task_id)
        return task if task is not None and type(task.state) is Assigned else None

    patch.setattr(from_worker, "current", current)


@planted(27)
def a_report_of_another_worker_that_is_accepted(patch: pytest.MonkeyPatch) -> None:
    def current(books: ledger.Ledger, worker: Any, task_id: int, run: int) -> Any:
        task = books.tasks.get(task_id)
        return task if task is not None and type(task.state) is Assigned else None

    patch.setattr(from_worker, "current", current)


@planted(16)
def a_rejection_that_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_WORKER, messages.Rejection, _nothing)


@planted(2)
def a_requeue_that_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    requeue = transitions.requeue

    def forget(books: ledger.Ledger, task: Any) -> None:
        if task.state.worker.id in books.workers:
            requeue(books, task)

    patch.setattr(transitions, "requeue", forget)


@planted(1)
def a_task_that_is_assigned_twice(patch: pytest.MonkeyPatch) -> None:
    assign = placement.assign

    def assign_twice(books: ledger.Ledger, task: Any, worker: Any) -> None:
        assign(books, task, worker)
        if task.id % 11 == 0:
            books.send(worker.id, books.outbox[worker.id][-1]._replace(run=books.next_run_id()))

    patch.setattr(placement, "assign", assign_twice)


@planted(1)
def a_worker_that_is_asked_back_and_assigned_elsewhere(patch: pytest.MonkeyPatch) -> None:
    # The theft does not wait for the victim's answer.
    from distributed_core.machines.scheduler import stealing

    patch.setattr(stealing, "recall", lambda books, task, thief: transitions.requeue(books, task))


@planted(2)
def a_lost_answer_to_a_recall(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_WORKER, messages.Yielding, _nothing)


@planted(0)
def inputs_that_are_not_counted_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "_leave_active", lambda task: [])


@planted(0)
def a_possession_that_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_WORKER, messages.Possession, _nothing)


@planted(2)
def a_replica_that_is_not_given_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "lose_replica", _nothing)


@planted(0)
def a_worker_that_is_never_reopened(patch: pytest.MonkeyPatch) -> None:
    def review(self: ledger.Ledger, worker: Any) -> None:
        if self.full(worker):
            self.open.pop(worker.id, None)

    patch.setattr(ledger.Ledger, "review", review)


@planted(2)
def resources_that_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_WORKER, messages.Departure, _nothing)


@planted(1)
def resources_that_are_given_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(placement, "has_free", lambda *_: True)


@planted(2)
def suspects_that_have_company(patch: pytest.MonkeyPatch) -> None:
    full = ledger.Ledger.full

    def not_alone(self: ledger.Ledger, worker: Any) -> bool:
        alone, worker.alone = worker.alone, 0
        try:
            return full(self, worker)
        finally:
            worker.alone = alone

    patch.setattr(ledger.Ledger, "full", not_alone)


@planted(2)
def suspects_that_are_convicted_too_soon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SchedulerMachine, "_suspect", lambda self, task, alone: setattr(task.trouble(), "alone_deaths", 9))


@planted(206)
def workers_that_leave_with_the_only_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copying, "pursue_retirement", lambda *_: "done")


@planted(6)
def restrictions_that_are_forgotten_while_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(placement, "place_parked", _nothing)


@planted(123)
def a_standstill_that_costs_all_workers(patch: pytest.MonkeyPatch) -> None:
    def check(self: SchedulerMachine, event: Any) -> None:
        self._check_due = self.ledger.now
        on_liveness_checked(self, event)

    on_liveness_checked = SchedulerMachine._ON_EVENT[_liveness_checked()]
    patch.setitem(SchedulerMachine._ON_EVENT, _liveness_checked(), check)


@planted(33)
def silence_that_is_never_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(
        SchedulerMachine._ON_EVENT, _liveness_checked(), lambda self, event: setattr(self, "_watching", False)
    )


def _liveness_checked() -> type:
    from distributed_core.machines.scheduler.events import LivenessChecked

    return LivenessChecked


# --- whoever is the scheduler next ----------------------------------------------------------------


@planted(29)
def a_scheduler_that_assigns_during_recovery(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "waits", lambda books: False)


@planted(1)
def a_reunion_that_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_CLIENT, messages.Reunion, _nothing)


@planted(21)
def a_dead_connection_that_is_believed(patch: pytest.MonkeyPatch) -> None:
    def ignore(self: SchedulerMachine, event: Any) -> None:
        if not event.alive:
            on_worker_lost(self, event)

    on_worker_lost = SchedulerMachine._ON_EVENT[scheduler_events.WorkerLost]
    patch.setitem(SchedulerMachine._ON_EVENT, scheduler_events.WorkerLost, ignore)


@planted(8)
def data_that_nobody_claims_and_that_stays(patch: pytest.MonkeyPatch) -> None:
    check = recovery.check

    def forget(books: ledger.Ledger) -> None:
        if books.recovery is not None and books.now >= books.recovery.until_s:
            books.recovery.held.clear()
        check(books)

    patch.setattr(recovery, "check", forget)


@planted(1040)
def a_run_that_nobody_claims_and_that_is_not_interrupted(patch: pytest.MonkeyPatch) -> None:
    withdraw = recovery._withdraw
    patch.setattr(recovery, "_withdraw", lambda *each, interrupt=False: withdraw(*each))


@planted(2)
def a_crash_during_recovery_that_hides_who_is_missing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "roster", lambda books: len(books.workers))


@planted(1)
def claims_that_are_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "claim", _nothing)


# --- clients --------------------------------------------------------------------------------------


@planted(24)
def a_ruin_that_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClientMachine, "_ruins", lambda self, message: iter(()))


@planted(1)
def releases_that_are_not_said_again(patch: pytest.MonkeyPatch) -> None:
    words = Lineage.words

    def forget(self: Lineage, *each: Any) -> Any:
        return (word for word in words(self, *each) if type(word) is not messages.Release)

    patch.setattr(Lineage, "words", forget)


@planted(308)
def tasks_that_are_not_said_again_because_their_release_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "waits", lambda self, number: number in self._waiting or number in self._released)


@planted(1)
def a_client_that_says_nothing_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClientMachine, "_words", lambda self, another: [messages.Reunion(0)])


@planted(32)
def a_client_that_waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(ClientMachine._ON_EVENT, client_events.SearchEnded, lambda self, event: [])


@planted(1)
def a_client_that_gives_up_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(
        ClientMachine._ON_EVENT, client_events.Disconnected, lambda self, event: self._close("it was not there")
    )


@planted(0)
def room_that_is_not_made(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "done", _nothing)


# --- workers --------------------------------------------------------------------------------------


@planted(2)
def a_withdrawal_that_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WorkerMachine._FROM_SCHEDULER, messages.Withdrawal, _nothing)


@planted(10)
def interruptions_that_are_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerMachine, "_interrupt", _nothing)


@planted(16)
def a_peer_that_is_asked_in_vain_for_ever(patch: pytest.MonkeyPatch) -> None:
    from distributed_core.machines.worker import events

    def forget(self: WorkerMachine, event: Any) -> None:
        self.asked.pop((event.address, event.small), None)

    patch.setitem(WorkerMachine._ON_EVENT, events.PeerUnreachable, forget)


@planted(6)
def a_result_that_outlives_its_withdrawal(patch: pytest.MonkeyPatch) -> None:
    on_withdrawal = WorkerMachine._FROM_SCHEDULER[messages.Withdrawal]

    def forget(self: WorkerMachine, message: Any) -> None:
        replica = self.replicas.get(message.task)
        if replica is not None:
            replica.run = 0
        on_withdrawal(self, message)

    patch.setitem(WorkerMachine._FROM_SCHEDULER, messages.Withdrawal, forget)


@planted(2535)
def a_time_limit_that_ends_with_its_future(patch: pytest.MonkeyPatch) -> None:
    from distributed_core.machines.worker import events

    on_timer_ended = WorkerMachine._ON_EVENT[events.TimerEnded]

    def forget(self: WorkerMachine, event: Any) -> None:
        if event.purpose != "timeout" or event.run in self.runs:
            on_timer_ended(self, event)

    patch.setitem(WorkerMachine._ON_EVENT, events.TimerEnded, forget)


def _without(*kinds: type) -> Any:
    """Return a way to come back that leaves out some words."""
    on_registered = WorkerMachine._ON_EVENT[worker_events.Registered]

    def silent(self: WorkerMachine, event: Any) -> None:
        on_registered(self, event)
        self._reports = [each for each in self._reports if type(each) not in kinds]

    return silent


@planted(21)
def a_run_that_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WorkerMachine._ON_EVENT, worker_events.Registered, _without(messages.Continuation))


@planted(1)
def data_that_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WorkerMachine._ON_EVENT, worker_events.Registered, _without(messages.Possession))


@planted(1)
def a_worker_that_never_says_that_it_has_told_all(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WorkerMachine._ON_EVENT, worker_events.Registered, _without(messages.Presence))


@planted(69)
def runs_that_wait_for_data_of_a_scheduler_that_is_gone(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(WorkerMachine._ON_EVENT, worker_events.SchedulerGone, _nothing)


@planted(1081)
def withdrawn_runs_whose_numbers_come_again(patch: pytest.MonkeyPatch) -> None:
    on_registered = WorkerMachine._ON_EVENT[worker_events.Registered]

    def forget(self: WorkerMachine, event: Any) -> None:
        lingering, self.lingering = self.lingering, {}
        on_registered(self, event)
        self.lingering = lingering

    patch.setitem(WorkerMachine._ON_EVENT, worker_events.Registered, forget)


@planted(1)
def a_scheduler_that_compares_no_views(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FROM_WORKER, messages.Tally, lambda ledger, worker, message: None)


# --- nannies --------------------------------------------------------------------------------------


@planted(92)
def a_nanny_that_does_not_restart(patch: pytest.MonkeyPatch) -> None:
    def ended(self: nanny.NannyMachine, now: float) -> list[Any]:
        asked = on_ended(self, now)
        return [each for each in asked if not isinstance(each, nanny.WaitBackoff)]

    on_ended = nanny.NannyMachine._ended
    patch.setattr(nanny.NannyMachine, "_ended", ended)


@planted(212)
def a_nanny_that_leaves_an_unwilling_process_alone(patch: pytest.MonkeyPatch) -> None:
    handle = nanny.NannyMachine.handle

    def lenient(self: nanny.NannyMachine, event: Any, now: float) -> list[Any]:
        return [] if isinstance(event, nanny.GraceEnded) else handle(self, event, now)

    patch.setattr(nanny.NannyMachine, "handle", lenient)


@planted(9)
def a_nanny_that_lets_memory_grow(patch: pytest.MonkeyPatch) -> None:
    handle = nanny.NannyMachine.handle

    def lenient(self: nanny.NannyMachine, event: Any, now: float) -> list[Any]:
        return [] if isinstance(event, nanny.MemoryMeasured) else handle(self, event, now)

    patch.setattr(nanny.NannyMachine, "handle", lenient)


@planted(23)
def a_nanny_that_starts_another_one_beside_the_first(patch: pytest.MonkeyPatch) -> None:
    handle = nanny.NannyMachine.handle

    def hasty(self: nanny.NannyMachine, event: Any, now: float) -> list[Any]:
        asked = handle(self, event, now)
        return [nanny.StartProcess()] if isinstance(event, nanny.RestartWanted) and asked else asked

    patch.setattr(nanny.NannyMachine, "handle", hasty)
