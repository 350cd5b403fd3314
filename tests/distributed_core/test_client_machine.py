"""The client's machine: what it makes of news, and what it says again to whoever is the scheduler next."""

from __future__ import annotations

from typing import Any

from distributed_core import messages
from distributed_core.machines.client import ClientMachine, events, instructions, invariants
from distributed_core.machines.client.futures import FutureRecord

F = b"f"


class Desk:
    """A client that submits by number."""

    def __init__(self, reconnect_timeout_s: float = 30.0) -> None:
        self.futures: dict[int, Any] = {}
        self.machine = ClientMachine(self.futures, reconnect_timeout_s)
        self.feed(events.SchedulerFound("one"))

    def feed(self, event: Any) -> list[Any]:
        asked = self.machine.handle(event, 0.0)
        invariants.check(self.machine)
        return asked

    def submit(self, number: int, *inputs: int) -> FutureRecord:
        self.futures[number] = made = FutureRecord(number)
        self.machine.post_tasks([[F, "f", b"body"]], [[number, None, F, b"", list(inputs), 0, None]])
        return made

    def release(self, *numbers: int) -> None:
        for number in numbers:
            del self.futures[number]
        self.machine.release(list(numbers))

    def flush(self) -> list[Any]:
        return self.sent(self.feed(events.Posted(self.machine.drain())))

    @staticmethod
    def sent(asked: list[Any]) -> list[Any]:
        return [message for each in asked if type(each) is instructions.Tell for message in each.messages]

    def hear(self, *words: Any) -> list[int]:
        asked = self.feed(events.Heard(list(words)))
        return [future.number for each in asked if type(each) is instructions.Settle for future in each.futures]

    def come_back(self, scheduler: str = "two") -> list[Any]:
        assert self.feed(events.Disconnected("it fell")) == [instructions.Search(30.0)]
        return self.sent(self.feed(events.SchedulerFound(scheduler)))


def test_a_first_connection_says_nothing_again() -> None:
    desk = Desk()
    desk.submit(1)
    assert [type(each) for each in desk.flush()] == [messages.Submission]


def test_failures_are_said_as_ruins_and_data_elsewhere_is_pending_again() -> None:
    desk = Desk()
    here, there, failed = desk.submit(1), desk.submit(2), desk.submit(3)
    desk.flush()
    ruin = ("exception", "ValueError", b"pickled")
    words = (messages.Finished(1, 8, b"x"), messages.Finished(2, 800, None), messages.Failed(3, *ruin))
    assert desk.hear(*words) == [1, 2, 3]
    submission, said, reunion = desk.come_back()
    assert [task[0] for task in submission.tasks] == [1, 2, 3]
    assert (said, reunion) == (messages.Ruin(3, *ruin), messages.Reunion(0))
    assert (here.status, there.status, failed.status) == ("finished", "pending", "error")


def test_what_was_released_while_away_is_not_said() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2)
    desk.flush()
    desk.feed(events.Disconnected("it fell"))
    desk.release(1)
    submission, _ = desk.sent(desk.feed(events.SchedulerFound("two")))
    assert [task[0] for task in submission.tasks] == [2]


def test_a_cancellation_is_said_again_until_it_is_answered_and_before_everything_else() -> None:
    desk = Desk()
    future = desk.submit(1)
    desk.submit(2)
    desk.flush()
    desk.machine.post(messages.Cancellation([1], False, "no"))
    future.status = "cancelled"
    desk.flush()
    desk.release(1)
    assert desk.hear(messages.Finished(1, 8, None)) == []
    first, submission, _ = desk.come_back()
    assert first == messages.Cancellation([1], False, "no")
    assert [task[0] for task in submission.tasks] == [2]
    desk.hear(messages.Cancelled(1, "no"))
    assert messages.Cancellation not in map(type, desk.come_back())


def test_a_retrial_is_said_again_to_the_same_scheduler_only() -> None:
    for scheduler, again in (("one", True), ("two", False)):
        desk = Desk()
        future = desk.submit(1)
        desk.flush()
        desk.hear(messages.Failed(1, "exception", "ValueError", None))
        future.status, future.reason = "pending", None
        desk.machine.post(messages.Retrial([1]))
        desk.flush()
        assert (messages.Retrial([1]) in desk.come_back(scheduler)) is again


def test_vows_are_said_again_until_they_are_kept() -> None:
    desk = Desk()
    desk.submit(1)
    desk.machine.post(messages.Vow([1]))
    desk.machine.vowed[1] = None
    desk.flush()
    assert messages.Vow([1]) in desk.come_back()
    desk.hear(messages.Finished(1, 8, None))
    assert messages.Vow not in map(type, desk.come_back())


def test_what_is_pending_when_the_search_ends_is_lost_and_what_is_there_stays() -> None:
    desk = Desk()
    waiting, done = desk.submit(1), desk.submit(2)
    desk.flush()
    desk.hear(messages.Finished(2, 8, b"x"))
    desk.feed(events.Disconnected("it fell"))
    settled, closed = desk.feed(events.SearchEnded("nobody is there"))
    assert settled.futures == [waiting] and closed == instructions.Close("nobody is there")
    assert waiting.reason == ("SchedulerLost", "nobody is there", None)
    assert (waiting.status, done.status) == ("lost", "finished")


def test_a_farewell_or_no_patience_ends_at_once() -> None:
    desk = Desk()
    desk.hear(messages.Farewell("it was ended"))
    assert desk.feed(events.Disconnected("it fell"))[-1] == instructions.Close("it was ended")
    desk = Desk(reconnect_timeout_s=0.0)
    assert desk.feed(events.Disconnected("it fell"))[-1] == instructions.Close("it fell")
