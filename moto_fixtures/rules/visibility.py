"""Eventual consistency: what was made is not shown at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall


@dataclass
class Visibility:
    """New things stay out of the answers of the first `describes` Describe calls of their kind."""

    describes: int = 0
    _left: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def noticing(self, region: MotoRegion) -> Iterator[None]:
        """Around a call that may make things: whatever is new afterwards is invisible for a while."""
        before = set(self._keys(region)) if self.describes else set()
        yield
        if self.describes:
            for key in self._keys(region):
                if key not in before:
                    self._left[key] = self.describes

    @contextmanager
    def hiding(self, call: ApiCall, region: MotoRegion) -> Iterator[None]:
        """Around a Describe call: take away what it must not see yet."""
        away: list[tuple[Any, dict[str, Any]]] = []
        for shelf in region.shelves().get(call.action, []):
            young = [key for key in shelf if self._left.get(key, 0) > 0]
            away.append((shelf, dict(shelf)))
            for key in young:
                self._left[key] -= 1
                del shelf[key]
        try:
            yield
        finally:
            for shelf, whole in away:
                shelf.clear()
                shelf.update(whole)

    def _keys(self, region: MotoRegion) -> Iterator[str]:
        for name, shelves in region.shelves().items():
            if name != "DescribeInstanceStatus":
                for shelf in shelves:
                    yield from list(shelf)
