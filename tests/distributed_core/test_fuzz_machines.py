"""Machines fed by peers that mean harm, or have gone mad: those are dropped, the books stay right, others go on.

By default 1,500 sequences of messages run, about 9,000 messages; see `fuzzing.FACTOR`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_core import messages
from distributed_core.errors import ProtocolError
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions, invariants, reasons
from distributed_core.machines.scheduler.events import Received
from distributed_core.machines.worker import WorkerMachine
from distributed_core.machines.worker import events as worker_events
from distributed_core.machines.worker import instructions as worker_instructions
from distributed_core.machines.worker import invariants as worker_invariants
from distributed_core.protocol.codec import decode, encode
from distributed_core.protocol.plain import from_plain, to_plain
from tests.distributed_core.fuzzing import ANY_WORD, FROM_CLIENT, FROM_SCHEDULER, FROM_WORKER, inputs

F = b"digest"
HOSTILE_CLIENT, HOSTILE_WORKER = 3, 2


class Town:
    """Two workers and two clients, of which one each is honest; the messages of the others come through the codec."""

    def __init__(self) -> None:
        self.machine = SchedulerMachine()
        self.now = 0.0
        self.dropped: list[int] = []
        self.runs: list[messages.Assignment] = []
        self.finished: dict[int, Any] = {}
        for worker in (1, HOSTILE_WORKER):
            details = {"resources": {"GPU": 1.0}}
            self.feed(events.WorkerJoined(worker, f"10.0.0.{worker}:1", f"w{worker}", 1, details))
        for client in (HOSTILE_CLIENT, 4):
            self.feed(events.ClientJoined(client, f"c{client}"))
        self.say(4, messages.Submission([[F, "f", b"body"]], []))
        self.submit(1)
        self.submit(2, [1])

    def submit(self, number: int, needs: tuple[int, ...] | list[int] = ()) -> None:
        self.say(4, messages.Submission([], [[number, None, F, b"", list(needs), 0, None]]))

    def say(self, peer: int, *words: Any) -> None:
        if peer not in self.dropped:
            self.feed(Received(peer, list(words)))

    def hear(self, peer: int, word: Any) -> None:
        """A hostile peer says something, as it would arrive."""
        try:
            batch = decode(encode([to_plain(word)]))
            said = [from_plain(plain) for plain in batch]
        except ProtocolError:
            self.lose(peer)
            return
        except Exception:
            # It could not even be written: nested too deep. On the wire it could be.
            said = [word]
        self.say(peer, *said)

    def lose(self, peer: int) -> None:
        if peer not in self.dropped:
            self.dropped.append(peer)
            lost: type[Any] = events.WorkerLost if peer in (1, HOSTILE_WORKER) else events.ClientLost
            self.feed(lost(peer))

    def feed(self, event: Any) -> None:
        self.now += 0.01
        for asked in self.machine.handle(event, self.now):
            if isinstance(asked, instructions.Drop):
                assert asked.peer in (HOSTILE_CLIENT, HOSTILE_WORKER), asked
                self.lose(asked.peer)
            elif isinstance(asked, instructions.Send):
                for word in asked.messages:
                    decode(encode([to_plain(word)]))  # whatever is sent can be sent, and read
                    self.note(asked.peer, word)
            elif isinstance(asked, instructions.Continue):
                self.feed(events.Continued())
        invariants.check(self.machine)

    def note(self, peer: int, word: Any) -> None:
        if peer == 1 and type(word) is messages.Assignment:
            self.runs.append(word)
        elif peer == 4 and type(word) in (messages.Finished, messages.Failed, messages.Cancelled, messages.Pending):
            self.finished[word.number] = word

    def end(self) -> None:
        """Whatever was said before: the honest worker serves, and the honest client gets what it asks for."""
        decode(encode([[self.machine.worker_details()], [[reasons.whole_state(self.machine.ledger)]]]))
        for peer in (HOSTILE_WORKER, HOSTILE_CLIENT):
            self.lose(peer)
        for number in (101, 102, 103):
            self.submit(number)
        for _ in range(1000):
            if not self.runs:
                break
            run = self.runs.pop()
            self.say(1, messages.Completion(run.task, run.run, 8, 0.001, b"x"))
        for number in (101, 102, 103):
            assert type(self.finished[number]) is messages.Finished
        worker = self.machine.ledger.workers[1]
        assert math.isfinite(worker.occupancy_s)
        for client in self.machine.ledger.clients.values():
            assert math.isfinite(client.share.virtual_s)


@inputs(500)
@given(st.lists(st.one_of(FROM_CLIENT, FROM_CLIENT, FROM_CLIENT, ANY_WORD), min_size=1, max_size=10))
def test_a_hostile_client_harms_nobody(words: list[Any]) -> None:
    """500 sequences by default."""
    town = Town()
    for word in words:
        town.hear(HOSTILE_CLIENT, word)
    town.end()


@inputs(500)
@given(st.lists(st.one_of(FROM_WORKER, FROM_WORKER, FROM_WORKER, ANY_WORD), min_size=1, max_size=10))
def test_a_hostile_worker_harms_nobody(words: list[Any]) -> None:
    """500 sequences by default."""
    town = Town()
    for number in (11, 12, 13, 14):
        town.submit(number)
    for word in words:
        town.hear(HOSTILE_WORKER, word)
    town.end()


@inputs(500)
@given(st.lists(st.one_of(FROM_SCHEDULER, FROM_SCHEDULER, ANY_WORD, st.just("work")), min_size=1, max_size=12))
def test_a_hostile_scheduler_gets_a_right_worker_or_none(words: list[Any]) -> None:
    """500 sequences by default: each message is done, with the books right after it, or refused as a whole."""
    machine = WorkerMachine()
    started: list[int] = []
    requests: dict[Any, list[int]] = {}

    def feed(event: Any) -> None:
        for asked in machine.handle(event, 0.0):
            if isinstance(asked, worker_instructions.Execute):
                started.append(asked.run)
            elif isinstance(asked, worker_instructions.Fetch):
                requests[asked.address, asked.small] = asked.tasks
            elif isinstance(asked, worker_instructions.SetTimer):
                assert 0 <= asked.delay_s < math.inf
            elif isinstance(asked, worker_instructions.Report):
                encode([to_plain(word) for word in asked.messages])
        worker_invariants.check(machine)

    for word in words:
        if word == "work":
            ended = [worker_events.RunFinished(run, 8, 0.1, None) for run in started]
            started.clear()
            feed(worker_events.Executed(ended))
            for address, small in list(requests):
                feed(worker_events.PeerUnreachable(address, requests.pop((address, small)), small))
            continue
        try:
            feed(worker_events.Instructed([word]))
        except (ProtocolError, TypeError, ValueError, LookupError, AttributeError):
            return  # `Worker` gives this registration up, and its books with it


# --- what was found -------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


def nested(depth: int = 1015) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize(
    "options",
    [
        {"retries": INF},
        {"retries": NAN},
        {"timeout_s": NAN},
        {"timeout_s": -1.0},
        {"timeout_s": "5"},
        {"resources": {"GPU": NAN}},
        {"resources": {"GPU": -1}},
        {"resources": [1]},
        {"workers": "alice"},
        {"workers": 5},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    town = Town()
    town.say(HOSTILE_CLIENT, messages.Submission([[F, "f", b""]], [[1, None, F, b"", [], 0, options]]))
    assert town.dropped == [HOSTILE_CLIENT]
    town.end()


def test_a_time_limit_beyond_all_clocks_is_none() -> None:
    town = Town()
    town.lose(HOSTILE_WORKER)
    for number, limit in ((1, INF), (2, 1e300)):
        submission = [[number, None, F, b"", [], 0, {"timeout_s": limit}]]
        town.say(HOSTILE_CLIENT, messages.Submission([[F, "f", b""]], submission))
    town.end()
    assert not town.dropped[1:] or town.dropped[1:] == [HOSTILE_CLIENT]


def test_a_number_twice_also_as_true() -> None:
    town = Town()
    for number in (1, True):
        town.say(HOSTILE_CLIENT, messages.Submission([[F, "f", b""]], [[number, None, F, b"", [], 0, None]]))
    assert town.dropped == [HOSTILE_CLIENT]


def test_a_name_with_thousands_of_digits() -> None:
    town = Town()
    name = "x-c3-" + "9" * 5000
    town.say(HOSTILE_CLIENT, messages.Wish([[1, name]]))
    assert town.dropped == []
    assert "no task is named" in reasons.explain(town.machine.ledger, name)


def assigned(town: Town) -> tuple[int, int]:
    """Let the hostile worker have a run; return its task and its number."""
    worker = town.machine.ledger.workers[HOSTILE_WORKER]
    for number in range(50):
        if worker.assigned:
            break
        town.submit(1000 + len(town.machine.ledger.tasks) + number)
    (task, *_) = worker.assigned.values()
    return task.id, task.state.run  # type: ignore[attr-defined]


@pytest.mark.parametrize("peer", [HOSTILE_CLIENT, HOSTILE_WORKER])
def test_a_payload_that_could_not_be_sent_on(peer: int) -> None:
    town = Town()
    if peer == HOSTILE_CLIENT:
        town.say(peer, messages.Submission([[F, "f", b""]], [[1, None, F, [nested()], [], 0, None]]))
    else:
        task, run = assigned(town)
        town.say(peer, messages.Completion(task, run, 1, 1.0, [nested()]))
    assert town.dropped == [peer]
    town.end()


@pytest.mark.parametrize("duration_s", [NAN, INF, -INF, -1.0, 1e300])
def test_durations_that_are_no_durations(duration_s: float) -> None:
    town = Town()
    town.lose(HOSTILE_WORKER)
    for _ in range(2):
        run = town.runs.pop()
        town.say(1, messages.Completion(run.task, run.run, 8, duration_s, None))
        town.submit(50 + len(town.finished))
    for function in town.machine.ledger.functions.values():
        assert function.duration_s is not None
        assert 0.0 <= function.duration_s <= 1e6
    town.end()


def test_sizes_that_are_no_sizes_can_be_added_up() -> None:
    town = Town()
    for nbytes in (2**64 - 1, -5, 2**64 - 1):
        task, run = assigned(town)
        town.say(HOSTILE_WORKER, messages.Completion(task, run, nbytes, 0.1, None))
    assert 0 <= town.machine.ledger.workers[HOSTILE_WORKER].nbytes <= 2 * 2**48
    encode([town.machine.worker_details()])


def test_figures_that_could_not_be_shown() -> None:
    town = Town()
    town.say(HOSTILE_WORKER, messages.Heartbeat({"deep": nested()}))
    assert town.dropped == [HOSTILE_WORKER]
    town.end()


def test_a_worker_has_no_say_about_others_data() -> None:
    town = Town()
    town.lose(HOSTILE_WORKER)
    run = town.runs.pop(0)
    town.say(1, messages.Completion(run.task, run.run, 8, 0.01, None))
    town.feed(events.WorkerJoined(9, "10.0.0.9:1", "w9", 1, {}))
    town.say(9, messages.Shortfall([[run.task, "10.0.0.1:1"]], []))
    assert run.task in town.machine.ledger.workers[1].held


def test_vows_are_made_once() -> None:
    town = Town()
    town.say(4, messages.Vow([2] * 1000))
    assert len(town.machine.ledger.vows.tasks) == 1


@pytest.mark.parametrize(
    "words",
    [
        [messages.Assignment(1, 1, 1, b"", [[2, 1, ["a:1"]]], 0.0)] * 2,
        [messages.Assignment(1, 1, 1, b"", [[2, 1, [None]]], 0.0)],
        [messages.Acquisition([[2, 1, [5]]])],
        [messages.Assignment(1, 1, 1, b"", [], NAN)],
        [messages.Assignment(1, 1, 1, b"", [], INF)],
        [messages.Completion(1, 1, 1, 1.0, None)],
    ],
)
def test_what_a_scheduler_never_says(words: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        WorkerMachine().handle(worker_events.Instructed([messages.FunctionBody(1, "f", b""), *words]), 0.0)
