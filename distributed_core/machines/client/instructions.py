"""What a client's machine can ask for. Each is made once for a whole batch, never for a future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tell:
    """Send these messages to the scheduler, in this order."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Settle:
    """These futures have ended, as they say by now: wake who waits for them."""

    futures: list[Any]


@dataclass(frozen=True, slots=True)
class Deliver:
    """These messages are for whoever brings data or listens to news."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Flush:
    """There may be room for what waits: drain the outbox soon."""


@dataclass(frozen=True, slots=True)
class Search:
    """Look for the scheduler for so long; feed `SchedulerFound`, or `SearchEnded`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Close:
    """The client is of no more use."""

    reason: str


ClientInstruction = Tell | Settle | Deliver | Flush | Search | Close
