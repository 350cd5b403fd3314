"""What a client would say again: as long as a future, or anything made from it, is held."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distributed_core import messages
from distributed_core.machines.client.lineage import Lineage

F, G = b"f", b"g"


def task(number: int, *inputs: int, digest: bytes = F) -> list[Any]:
    return [number, None, digest, b"", list(inputs), 0, None]


def said(
    lineage: Lineage,
    at_once: int = 100,
    unsent: frozenset[int] = frozenset(),
    unreleased: frozenset[int] = frozenset(),
) -> list[Any]:
    return list(lineage.words(at_once, lambda number: number in unsent, lambda number: number in unreleased))


def test_what_others_are_made_from_stays_and_goes_with_them() -> None:
    lineage = Lineage()
    lineage.add([[F, "f", b"body"]], [task(1), task(2, 1), task(3, 2)])
    lineage.note(messages.Release([1, 2]))
    (submission, release) = said(lineage)
    assert [each[0] for each in submission.tasks] == [1, 2, 3] and sorted(release.numbers) == [1, 2]
    lineage.note(messages.Release([3]))
    assert len(lineage) == 0 and said(lineage) == []


def test_a_chain_of_any_length_goes_at_once() -> None:
    lineage = Lineage()
    n = 50_000
    lineage.add([], [task(1), *(task(number, number - 1) for number in range(2, n + 1))])
    lineage.note(messages.Release(list(range(1, n))))
    assert len(lineage) == n
    lineage.note(messages.Release([n]))
    assert len(lineage) == 0


def test_functions_leave_with_their_first_task_and_others_are_forgotten() -> None:
    lineage = Lineage()
    lineage.add([[F, "f", b"f body"], [G, "g", b"g body"]], [task(1), task(2, digest=G), task(3)])
    lineage.note(messages.Release([2]))
    first, second = said(lineage, at_once=1)
    assert (first.functions, second.functions) == ([[F, "f", b"f body"]], [])
    assert lineage.knows(F) and not lineage.knows(G)


def test_data_wishes_and_cancelled_tasks_keep_their_order() -> None:
    lineage = Lineage()
    lineage.note(messages.Scattering([[1, "key", 80]], None))
    lineage.add([[F, "f", b""]], [task(2, 1)])
    lineage.note(messages.Wish([[3, "theirs"]]))
    lineage.add([], [task(4, 3), task(5, 2)])
    lineage.note(messages.Cancellation([2, 77], False, ""))
    words = said(lineage)
    assert [type(each) for each in words] == [messages.Reclaim, messages.Wish, messages.Submission]
    assert [each[0] for each in words[-1].tasks] == [4, 5]


@given(st.data())
def test_nothing_stays_and_nothing_is_missing(data: st.DataObject) -> None:
    lineage = Lineage()
    held: dict[int, list[int]] = {}
    inputs: dict[int, list[int]] = {}
    for number in range(1, data.draw(st.integers(1, 30))):
        mine = data.draw(st.lists(st.sampled_from(sorted(held)), unique=True, max_size=3)) if held else []
        lineage.add([[F, "f", b""]], [task(number, *mine)])
        held[number] = inputs[number] = mine
        for gone in data.draw(st.lists(st.sampled_from(sorted(held)), unique=True, max_size=2)):
            lineage.note(messages.Release([gone]))
            del held[gone]
    needed: set[int] = set()
    stack = list(held)
    while stack:
        number = stack.pop()
        if number not in needed:
            needed.add(number)
            stack.extend(inputs[number])
    words = [each for each in said(lineage) if type(each) is messages.Submission]
    order = [each[0] for word in words for each in word.tasks]
    assert set(order) == needed
    assert all(order.index(each) < order.index(number) for number in order for each in inputs[number])
    lineage.note(messages.Release(list(held)))
    assert len(lineage) == 0


def test_what_was_not_sent_follows_in_its_turn_and_only_its_function_goes_before() -> None:
    lineage = Lineage()
    lineage.add([[F, "f", b"f body"], [G, "g", b"g body"]], [task(1), task(2, 1), task(3, 2, digest=G)])
    lineage.note(messages.Release([1, 2]))
    (first,) = said(lineage, unsent=frozenset([2, 3]))
    assert [each[0] for each in first.tasks] == [1] and len(first.functions) == 2


def test_what_is_released_behind_others_is_said_and_not_yet_released() -> None:
    """Its last user waits for room: it was sent long ago, and another scheduler knows nothing of it."""
    lineage = Lineage()
    lineage.add([[F, "f", b"f body"]], [task(1), task(2, 1), task(3, 1)])
    lineage.note(messages.Release([1]))
    (submission,) = said(lineage, unsent=frozenset([3]), unreleased=frozenset([1]))
    assert [each[0] for each in submission.tasks] == [1, 2]
