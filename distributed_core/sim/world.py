"""Virtual time, processes with clocks of their own, and connections."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Any

from distributed_core.protocol.plain import from_plain, to_plain

Action = Callable[[], None]

BURST_FRACTION = 0.03
BURST_MAX_S = 0.25
"""So many packets are held up for up to so long; those behind them on the same link come all at once with them."""


class World:
    """A clock that moves from event to event; ties are broken by the order of scheduling.

    What is random has a stream of its own for each purpose, derived from the seed: without one worker, job or fault,
    the others still do what they did.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        #: How many things are under way that are not idle: when there are none, nothing will ever happen again.
        self.pending = 0
        self._heap: list[tuple[float, int, bool, Action]] = []
        self._count = 0
        self._digest = hashlib.blake2b(digest_size=8)

    def stream(self, *purpose: Any) -> random.Random:
        """Return the random numbers for one purpose."""
        return random.Random(f"{self.seed} {purpose!r}")

    def draw(self, *purpose: Any) -> float:
        """Return one random number from 0 to 1 for one purpose, always the same."""
        digest = hashlib.blake2b(f"{self.seed} {purpose!r}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big") / (1 << 48)

    def later(self, delay_s: float, action: Action, *, idle: bool = False) -> None:
        """Do `action` after `delay_s` of virtual time; what is `idle` (heartbeats and such) keeps no world going."""
        self.at(self.now + delay_s, action, idle=idle)

    def at(self, time_s: float, action: Action, *, idle: bool = False) -> None:
        """Do `action` at a time: what is to keep its order must not be rounded on the way."""
        self._count += 1
        self.pending += not idle
        heapq.heappush(self._heap, (time_s, self._count, idle, action))

    def step(self, *, idly: bool = False) -> bool:
        """Do the next thing; return False when only idle things are left, which are done where `idly` is true."""
        if not self.pending and not (idly and self._heap):
            return False
        self.now, _, idle, action = heapq.heappop(self._heap)
        self.events += 1
        # Counted down afterwards: what this one begins is counted before it ends.
        action()
        self.pending -= not idle
        return True

    def note(self, *facts: Any) -> None:
        """Add to the trace, of which only a digest is kept."""
        self._digest.update(f"{self.now:.9f} {facts!r}".encode())

    @property
    def trace(self) -> str:
        """The digest of all that was noted: equal traces, equal runs."""
        return self._digest.hexdigest()


class Process:
    """A process: it has a clock of its own, can be paused, and ends.

    Parameters
    ----------
    offset_s, rate
        Its clock shows `offset_s + rate * world.now`.
    """

    def __init__(self, world: World, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self.world = world
        self.alive = True
        self._offset_s = offset_s
        self._rate = rate
        self._pauses = 0
        self._held: list[tuple[bool, Action]] = []

    @property
    def now(self) -> float:
        """Seconds by its own clock."""
        return self._offset_s + self._rate * self.world.now

    def wake(self, action: Action, *, timer: bool = False) -> None:
        """Let something happen in it: now, or when it goes on again, or never if it has ended."""
        if self._pauses:
            self._held.append((timer, action))
        elif self.alive:
            action()

    def after(self, delay_s: float, action: Action, *, timer: bool = False, idle: bool = False) -> None:
        """Let something happen in it after a time by its own clock."""
        self.world.later(delay_s / self._rate, lambda: self.wake(action, timer=timer), idle=idle)

    def pause(self) -> None:
        self._pauses += 1

    def resume(self) -> None:
        """All that was held up comes at once: what a timer brings first, as in a loop that was stopped."""
        self._pauses -= 1
        if not self._pauses:
            held, self._held = self._held, []
            for _, action in sorted(held, key=lambda each: not each[0]):
                self.wake(action)


class Link:
    """One direction of a connection: packets are delayed, never reordered, and lost once it is cut.

    Parameters
    ----------
    delay_s, jitter
        A packet takes from a fifth of `delay_s` up to `jitter` times as long.
    """

    def __init__(
        self, world: World, name: str, deliver: Callable[[list[Any]], None], delay_s: float, jitter: float
    ) -> None:
        self._world = world
        self._deliver = deliver
        self._delay_s = delay_s
        self._jitter = jitter
        self._source = world.stream("link", name)
        self._last_s = 0.0
        self._held: list[Action] = []
        self._holds = 0
        self.cut = False

    def send(self, batch: list[Any], *, idle: bool = False) -> None:
        """Send a batch of messages, copied through the plain form that the wire has."""
        packet = [_copy(to_plain(message)) for message in batch]

        def arrive() -> None:
            self._deliver([from_plain(plain) for plain in packet])

        self.carry(arrive, idle=idle)

    def carry(self, action: Action, *, idle: bool = False) -> None:
        """Let something happen at the other end, behind all that was sent before."""
        delay_s = self._delay_s * self._source.uniform(0.2, self._jitter)
        if self._source.random() < BURST_FRACTION and not idle:
            delay_s += self._source.uniform(0.0, BURST_MAX_S)
        arrival_s = self._last_s = max(self._last_s, self._world.now + delay_s)

        def arrive() -> None:
            if self._holds:
                self._held.append(arrive)
            elif not self.cut:
                action()

        self._world.at(arrival_s, arrive, idle=idle)

    def hold(self) -> None:
        """Let nothing through for now: a partition."""
        self._holds += 1

    def heal(self) -> None:
        """Let through what was held up, once nothing else holds it up."""
        self._holds -= 1
        if not self._holds:
            held, self._held = self._held, []
            for arrive in held:
                arrive()


class Pipe:
    """Two links with one fate. It is cut once, and another one replaces it.

    Attributes
    ----------
    peer
        What the scheduler calls the one at the other end.
    up, down
        To the scheduler, and from it.
    server
        The scheduler's process that it leads to: there may be another one by now.
    open
        Neither end has seen it end.
    """

    def __init__(self, peer: int, up: Link, down: Link, server: Process) -> None:
        self.peer = peer
        self.up = up
        self.down = down
        self.server = server
        self.open = True

    def cut(self) -> None:
        """What is under way is lost."""
        self.open = False
        self.up.cut = self.down.cut = True

    def hold(self) -> None:
        self.up.hold()
        self.down.hold()

    def heal(self) -> None:
        self.up.heal()
        self.down.heal()


def _copy(plain: Any) -> Any:
    if isinstance(plain, (list, tuple)):
        return [_copy(each) for each in plain]
    return dict(plain) if isinstance(plain, dict) else plain
