"""The client's machine: any calls, news and losses in any order, against a scheduler that forgets or not.

In the end all that a user still holds must be done: whatever was lost on the way was said again, nothing waits for room
that never comes, and no input was named that the scheduler could not know.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from distributed_core import messages
from distributed_core.errors import InvariantBroken
from distributed_core.machines.client import ClientMachine, events, instructions, invariants
from distributed_core.machines.client.futures import CANCELLED, FINISHED, PENDING, FutureRecord
from distributed_core.machines.client.window import Window
from tests.distributed_core.test_machines_under_chaos import FEW, QUICK

F = b"f"
ROUNDS_MAX = 200


class Ideal:
    """A scheduler as a client sees it: what it was told, what of that is done, what it answers."""

    def __init__(self, name: str, cancelled: dict[int, None], held: dict[int, Any]) -> None:
        self.name = name
        self.held = held
        self.inputs: dict[int, list[int]] = {}
        self.done: dict[int, bool] = {}
        self.wanted: dict[int, None] = {}
        self.said: dict[int, None] | None = None
        self.cancelled = cancelled
        self.answers: list[Any] = []

    def hear(self, message: Any) -> None:
        kind = type(message)
        if kind is messages.Submission:
            for task in message.tasks:
                self.take(task[0], task[4])
        elif kind is messages.Ruin:
            self.done[message.number] = False
        elif kind is messages.Release:
            for number in message.numbers:
                self.wanted.pop(number, None)
        elif kind is messages.Cancellation:
            self.cancel(list(message.numbers))
        elif kind is messages.Reunion:
            said, self.said = self.said or {}, None
            self.wanted = {number: None for number in self.wanted if number in said}

    def take(self, number: int, inputs: list[int]) -> None:
        assert self.said is not None or number not in self.inputs, f"{number} is submitted twice"
        if self.said is not None:
            self.said[number] = None
        if any(each not in self.inputs for each in inputs):
            # What its user has let go of meanwhile may be made from what was let go of too.
            due = number not in self.held or any(each in self.cancelled for each in inputs)
            assert due, f"{number} is made from {inputs}, never named"
            self.cancelled[number] = None
            self.answers.append(messages.Cancelled(number, "an input is not there"))
            return
        self.inputs.setdefault(number, inputs)
        self.wanted[number] = None
        if number in self.done:
            self.tell(number)

    def tell(self, number: int) -> None:
        good = self.done[number]
        said = messages.Finished(number, 8, None) if good else messages.Failed(number, "exception", "bad", None)
        if number in self.wanted:
            self.answers.append(said)

    def cancel(self, stack: list[int]) -> None:
        while stack:
            number = stack.pop()
            self.cancelled[number] = None
            if self.inputs.pop(number, None) is None:
                continue
            stack += [each for each, inputs in self.inputs.items() if number in inputs]
            self.done.pop(number, None)
            if self.wanted.pop(number, 0) is None:
                self.answers.append(messages.Cancelled(number, "cancelled"))

    def ready(self) -> list[int]:
        """Return what may end now."""
        return [
            number
            for number, inputs in self.inputs.items()
            if number not in self.done and all(each in self.done for each in inputs if each in self.inputs)
        ]

    def end(self, number: int, good: bool) -> None:
        self.done[number] = good and all(self.done.get(each, False) for each in self.inputs[number])
        self.tell(number)


class ClientUnderChaos(RuleBasedStateMachine):
    """A user that submits, lets go and cancels; a connection that breaks; a scheduler that may be another one then."""

    def __init__(self) -> None:
        super().__init__()
        self.futures: dict[int, Any] = {}
        self.machine = ClientMachine(self.futures)
        self.machine.window.tasks_max = 2
        self.cancelled: dict[int, None] = {}
        self.count = 0
        self.schedulers = 1
        self.scheduler: Ideal | None = Ideal("1", self.cancelled, self.futures)
        self.up: list[Any] = []
        self.down: list[Any] = []
        self.feed(events.SchedulerFound("1"))

    def feed(self, event: Any) -> None:
        for asked in self.machine.handle(event, 0.0):
            if isinstance(asked, instructions.Tell):
                assert self.scheduler is not None, "it speaks, and nobody is there"
                self.up += asked.messages
            elif isinstance(asked, instructions.Settle):
                assert all(future.status != PENDING for future in asked.futures)
            assert not isinstance(asked, instructions.Close)

    # --- the user ---------------------------------------------------------------------------------

    @rule(data=st.data())
    def submits(self, data: st.DataObject) -> None:
        self.count += 1
        usable = [number for number, future in self.futures.items() if future.status != CANCELLED]
        inputs = data.draw(st.lists(st.sampled_from(usable), max_size=2, unique=True)) if usable else []
        self.futures[self.count] = FutureRecord(self.count)
        functions = [] if self.machine.lineage.knows(F) else [[F, "f", b"body"]]
        self.machine.post_tasks(functions, [[self.count, None, F, b"", inputs, 0, None]])

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    def lets_go(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.futures)))
        del self.futures[number]
        self.machine.release([number])

    @precondition(lambda self: self.futures)
    @rule(data=st.data(), force=st.booleans())
    def cancels(self, data: st.DataObject, force: bool) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.futures)), min_size=1, max_size=3, unique=True))
        self.machine.post(messages.Cancellation(numbers, force, ""))
        for number in numbers:
            self.cancelled[number] = None
            if self.futures[number].status in (PENDING, FINISHED):
                self.futures[number].status = CANCELLED

    # --- the connection ---------------------------------------------------------------------------

    @precondition(lambda self: self.scheduler)
    @rule()
    def flushes(self) -> None:
        self.feed(events.Posted(self.machine.drain()))

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 4))
    def words_arrive(self, count: int) -> None:
        assert self.scheduler is not None
        arrived, self.up = self.up[:count], self.up[count:]
        for message in arrived:
            self.scheduler.hear(message)
        self.down += self.scheduler.answers
        self.scheduler.answers = []

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 4))
    def news_arrive(self, count: int) -> None:
        arrived, self.down = self.down[:count], self.down[count:]
        self.feed(events.Heard(arrived))

    @precondition(lambda self: self.scheduler and self.scheduler.ready())
    @rule(data=st.data(), good=st.integers(0, 4).map(bool))
    def a_task_ends(self, data: st.DataObject, good: bool) -> None:
        assert self.scheduler is not None
        self.scheduler.end(data.draw(st.sampled_from(self.scheduler.ready())), good)
        self.down += self.scheduler.answers
        self.scheduler.answers = []

    @precondition(lambda self: self.scheduler)
    @rule(survives=st.booleans())
    def the_connection_breaks(self, survives: bool) -> None:
        """What was under way is lost; and the scheduler too, unless it survives."""
        self.up, self.down = [], []
        self.gone, self.scheduler = self.scheduler if survives else None, None
        self.feed(events.Disconnected("it broke"))

    @precondition(lambda self: not self.scheduler)
    @rule()
    def it_comes_back(self) -> None:
        if self.gone is None:
            self.schedulers += 1
        self.scheduler = self.gone or Ideal(str(self.schedulers), self.cancelled, self.futures)
        self.scheduler.said = {}
        self.feed(events.SchedulerFound(self.scheduler.name))

    @invariant()
    def the_books_are_right(self) -> None:
        invariants.check(self.machine)
        assert len(self.machine.window.open) <= self.machine.window.tasks_max or self.machine.window.waiting == 0

    def teardown(self) -> None:
        """Once nothing breaks any more, all that is held ends, and nothing takes room."""
        if self.scheduler is None:
            self.it_comes_back()
        assert self.scheduler is not None
        for _ in range(ROUNDS_MAX):
            self.flushes()
            while self.up:
                self.words_arrive(4)
            while self.scheduler.ready():
                self.scheduler.end(self.scheduler.ready()[0], True)
            self.down += self.scheduler.answers
            self.scheduler.answers = []
            if not self.down and not self.machine.outbox:
                break
            while self.down:
                self.news_arrive(4)
        waiting = [number for number, future in self.futures.items() if future.status == PENDING]
        assert not waiting, f"{waiting} never end"
        assert not self.machine.window.blocked and not self.machine.window.open


TestClient = ClientUnderChaos.TestCase
TestClient.settings = FEW


@pytest.mark.parametrize(
    ("name", "plant"), [("done", lambda self, number: None), ("waits", lambda self, number: False)]
)
def test_client_under_chaos_finds_room_that_is_not_given_back_and_words_said_twice(
    monkeypatch: pytest.MonkeyPatch, name: str, plant: Any
) -> None:
    monkeypatch.setattr(Window, name, plant)
    with pytest.raises((AssertionError, InvariantBroken)):
        run_state_machine_as_test(ClientUnderChaos, settings=QUICK)
