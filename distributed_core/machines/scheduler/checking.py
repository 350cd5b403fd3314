"""Is what a peer sent of the right shape?

What is checked here would otherwise stay in the books and harm others: an amount that is no number poisons every
comparison that it takes part in, and what cannot be packed again never reaches whom it is for.
"""

from __future__ import annotations

from typing import Any

#: No run takes longer for the books (11 days), and no result is larger (256 TiB): sums stay exact, and can be packed.
DURATION_MAX_S = 1e6
NBYTES_MAX = 1 << 48
#: Figures of a worker may be nested so deep.
FIGURES_DEPTH_MAX = 4
_CONTAINERS = (list, tuple, dict)


class Misbehaved(Exception):
    """A peer sent what it cannot mean; it is dropped, and nobody else is harmed."""


def numbers_of(numbers: list[Any]) -> list[int]:
    """Return `numbers` if all are integers."""
    if not all(type(number) is int for number in numbers):
        raise Misbehaved("it sent numbers that are not integers")
    return numbers


def checked(items: list[Any], shape: tuple[Any, ...]) -> list[Any]:
    """Return `items` if each is an array of this shape."""
    for item in items:
        if type(item) is not list or len(item) != len(shape) or not all(map(isinstance, item, shape)):
            raise Misbehaved("it sent an array of the wrong shape")
    return items


def check_frames(payload: list[Any]) -> None:
    """Raise Misbehaved where a payload of several frames has lists or dicts in it.

    A list in a list in a list can be read and not be written again: whoever waits for it would wait for ever.
    """
    for part in payload:
        if isinstance(part, _CONTAINERS):
            raise Misbehaved("it sent a payload that is not made of frames")


def bounded(amount: Any, most: Any) -> Any:
    """Return an amount from 0 to `most`, for one that is below, above, or no number."""
    if amount > most:
        return most
    return amount if amount >= 0 else 0


def check_figures(figures: Any, depth: int = FIGURES_DEPTH_MAX) -> None:
    """Raise Misbehaved where figures that are shown to everybody are nested too deep."""
    if isinstance(figures, _CONTAINERS):
        if not depth:
            raise Misbehaved("it sent figures that are nested too deep")
        for each in figures.values() if isinstance(figures, dict) else figures:
            if isinstance(each, _CONTAINERS):
                check_figures(each, depth - 1)
