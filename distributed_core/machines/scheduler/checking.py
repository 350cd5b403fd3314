"""Is what a peer sent of the right shape?"""

from __future__ import annotations

from typing import Any


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
