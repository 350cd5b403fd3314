"""Virtual time and links."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Any

from distributed_core import messages


class World:
    """A clock that moves from event to event; ties are broken by the order of scheduling."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._digest = hashlib.blake2b(digest_size=8)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do `action` after `delay_s` of virtual time."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._count, action))

    def step(self) -> bool:
        """Do the next thing; return False when nothing is left."""
        if not self._heap:
            return False
        self.now, _, action = heapq.heappop(self._heap)
        self.events += 1
        action()
        return True

    def note(self, *facts: Any) -> None:
        """Add to the trace, of which only a digest is kept."""
        self._digest.update(repr((round(self.now, 9), *facts)).encode())

    @property
    def trace(self) -> str:
        """The digest of all that was noted: equal traces, equal runs."""
        return self._digest.hexdigest()


class Link:
    """One direction of a connection: packets are delayed, never reordered, and lost once it is cut."""

    def __init__(self, world: World, deliver: Callable[[list[Any]], None], delay_s: float) -> None:
        self._world = world
        self._deliver = deliver
        self._delay_s = delay_s
        self._last = 0.0
        self.cut = False

    def send(self, batch: list[Any]) -> None:
        """Send a batch of messages, copied through the plain form that the wire has."""
        packet = [_copy(messages.to_plain(message)) for message in batch]
        arrival = max(self._last, self._world.now + self._delay_s * self._world.random.uniform(0.2, 3.0))
        self._last = arrival

        def arrive() -> None:
            if not self.cut:
                self._deliver([messages.from_plain(plain) for plain in packet])

        self._world.later(arrival - self._world.now, arrive)


def _copy(plain: Any) -> Any:
    if isinstance(plain, (list, tuple)):
        return [_copy(each) for each in plain]
    return dict(plain) if isinstance(plain, dict) else plain
