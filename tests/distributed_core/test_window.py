"""What of a client's tasks leaves, and when."""

from __future__ import annotations

import random
from typing import Any

from distributed_core.machines.client.window import TASK_BYTES, Window
from distributed_core.messages import Cancellation, Release, Submission, Vow, Wish

ROOM = 1 << 30


def task(number: int, *inputs: int, key: str | None = None, payload: bytes = b"") -> list[Any]:
    return [number, key, b"f", payload, list(inputs), 0, None]


def submission(*tasks: list[Any]) -> Submission:
    return Submission([], list(tasks))


def sent(found: list[Any]) -> list[Any]:
    """Return numbers of submitted tasks, and other messages as they are."""
    out: list[Any] = []
    for message in found:
        out += [each[0] for each in message.tasks] if type(message) is Submission else [message]
    return out


def test_what_fits_leaves_as_it_came() -> None:
    window = Window(3, ROOM)
    message = submission(task(1), task(2))
    assert window.take([message]) == [message]
    assert not window.blocked


def test_the_rest_waits_and_leaves_in_order_as_there_is_room() -> None:
    window = Window(2, ROOM)
    assert sent(window.take([submission(*map(task, range(1, 6)))])) == [1, 2]
    assert (window.blocked, window.waiting) == (True, 3)
    assert window.take([]) == []
    window.done(2)
    assert sent(window.take([submission(task(6))])) == [3]
    window.done(1)
    window.done(3)
    assert sent(window.take([])) == [4, 5]
    window.done(4)
    assert sent(window.take([])) == [6]
    assert (window.blocked, window.peak) == (False, 2)


def test_bytes_count_and_a_large_task_goes_alone() -> None:
    window = Window(100, 2 * TASK_BYTES)
    tasks = [task(1), task(2, payload=b"x" * 10_000), task(3)]
    assert sent(window.take([submission(*tasks)])) == [1]
    window.done(1)
    assert sent(window.take([])) == [2]
    window.done(2)
    assert sent(window.take([])) == [3]
    assert window.gone_bytes == 3 * TASK_BYTES + 10_000


def test_functions_leave_even_where_no_task_does() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1))])
    function = [b"g", "g", b"body"]
    assert window.take([Submission([function], [task(2)]), Release([2])]) == [Submission([function], [])]
    window.done(1)
    assert window.take([submission(task(3))]) == [submission(task(3))]


def test_the_release_of_what_was_sent_overtakes_and_makes_room() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1), task(2))])
    assert sent(window.take([Release([1])])) == [Release([1]), 2]


def test_the_release_of_an_input_follows_its_last_user() -> None:
    window = Window(1, ROOM)
    assert sent(window.take([submission(task(1), task(2, 1), task(3, 1)), Release([1])])) == [1]
    window.done(1)
    assert sent(window.take([])) == [2]
    window.done(2)
    assert sent(window.take([])) == [3, Release([1])]


def test_what_was_released_before_it_left_never_leaves() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1), task(2, 1), task(3, 2), task(4))])
    assert window.take([Release([1, 2])]) == []
    assert sent(window.take([Release([3])])) == [Release([1]), 4], "the chain went with its end"
    assert not window._needed and not window._released


def test_a_vow_keeps_what_waits() -> None:
    window = Window(1, ROOM)
    assert sent(window.take([submission(task(1), task(2)), Vow([2, 1]), Release([2])])) == [1, Vow([1])]
    window.done(1)
    assert sent(window.take([])) == [2, Vow([2]), Release([2])]


def test_what_was_cancelled_before_it_left_never_leaves_nor_is_released() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1), task(2), task(3, 2))])
    assert window.take([Cancellation([2], False, ""), Release([2])]) == []
    window.done(1)
    assert sent(window.take([])) == [3], "the scheduler answers that it is cancelled"


def test_a_cancellation_overtakes_and_makes_room() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1), task(2))])
    assert sent(window.take([Cancellation([1], False, "")])) == [Cancellation([1], False, ""), 2]


def test_a_wish_for_what_waits_follows_it() -> None:
    window = Window(1, ROOM)
    window.take([submission(task(1), task(2, key="k"))])
    assert window.take([Wish([[8, "k"]]), Wish([[9, "other"]])]) == [Wish([[9, "other"]])]
    window.done(1)
    assert sent(window.take([])) == [2, Wish([[8, "k"]])]


def test_nothing_is_lost_and_no_order_broken_whatever_is_done() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        window = Window(chance.randint(1, 5), ROOM)
        held: set[int] = set()
        there: set[int] = set()  # as the scheduler counts
        left: set[int] = set()
        wanted: set[int] = set()
        number = 0
        for _ in range(chance.randint(5, 80)):
            outbox: list[Any] = []
            if chance.random() < 0.6:
                tasks = []
                for _ in range(chance.randint(1, 4)):
                    number += 1
                    tasks.append(task(number, *chance.sample(sorted(held), min(len(held), chance.randint(0, 2)))))
                    held.add(number)
                outbox.append(submission(*tasks))
            if held and chance.random() < 0.5:
                gone = chance.sample(sorted(held), chance.randint(1, len(held)))
                held -= set(gone)
                outbox.append(Release(gone))
            if window.open and chance.random() < 0.7:
                window.done(chance.choice(sorted(window.open)))
            _apply(window.take(outbox), there, left)
            assert len(window.open) <= window.tasks_max
        wanted = set(held)
        while window.blocked:
            window.done(next(iter(window.open)))
            _apply(window.take([]), there, left)
        assert wanted <= left and there == wanted, seed
        assert not window._needed and not window._released and not window._waiting and not window._keys


def _apply(found: list[Any], there: set[int], left: set[int]) -> None:
    for message in found:
        if type(message) is Submission:
            for each in message.tasks:
                assert set(each[4]) <= there, "an input was not there"
                assert each[0] not in left
                left.add(each[0])
                there.add(each[0])
        else:
            assert set(message.numbers) <= there, "garbage was released"
            there -= set(message.numbers)
