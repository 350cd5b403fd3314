"""Eventual consistency: what was made is not shown at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal


@dataclass
class Visibility:
    """New things are not known everywhere at once.

    Amazon EC2 Developer Guide, "Ensuring eventual consistency in Amazon EC2 API requests"; "Error codes":
    InvalidInstanceID.NotFound and InvalidGroup.NotFound for what was made a moment ago.

    describes: new things stay out of the answers of so many Describe calls of their kind.
    changes: so many changing calls that name a new instance or group say that there is no such thing.
    """

    describes: int = 0
    changes: int = 0
    _left: dict[str, int] = field(default_factory=dict)
    _unknown: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def noticing(self, region: MotoRegion) -> Iterator[None]:
        """Around a call that may make things: whatever is new afterwards is invisible for a while."""
        before = set(self._keys(region)) if self.describes else set()
        named = set(_things(region)) if self.changes else set()
        yield
        if self.changes:
            self._unknown |= dict.fromkeys(set(_things(region)) - named, self.changes)
        if self.describes:
            for key in self._keys(region):
                if key not in before:
                    self._left[key] = self.describes

    def check_known(self, call: ApiCall) -> None:
        """Refuse a changing call that names what is too new.  Raises ApiRefusal."""
        for key, value in call.pairs:
            if self._unknown.get(value, 0) > 0 and key.partition(".")[0] != "ClientToken":
                self._unknown[value] -= 1
                if value.startswith("i-"):
                    raise ApiRefusal("InvalidInstanceID.NotFound", f"The instance ID '{value}' does not exist")
                raise ApiRefusal("InvalidGroup.NotFound", f"The security group '{value}' does not exist")

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


def _things(region: MotoRegion) -> Iterator[str]:
    yield from (one.id for one in region.instances())
    for groups in region.backend.groups.values():
        yield from list(groups)
