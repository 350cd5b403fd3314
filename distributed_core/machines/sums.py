"""Sums of numbers, by which two sides tell whether they believe the same."""

from __future__ import annotations

from collections.abc import Iterable

#: They travel as integers of so many bits.
SUM_MASK = (1 << 63) - 1


def summed(numbers: Iterable[int]) -> int:
    """Return the sum of numbers in 63 bits, whatever their order."""
    return sum(numbers) & SUM_MASK
