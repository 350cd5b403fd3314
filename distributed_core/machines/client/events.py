"""What can happen to a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SchedulerFound:
    """There is a scheduler: the first, or after `Disconnected` the same one again or another, as its `id` tells."""

    id: str


@dataclass(frozen=True, slots=True)
class Posted:
    """What was drained from the outbox may leave now, as far as there is room."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """A whole batch of messages of the scheduler."""

    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, and `reason` says how."""

    reason: str


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """The scheduler was looked for in vain, or the client was closed: no news will come any more."""

    reason: str


ClientEvent = SchedulerFound | Posted | Heard | Disconnected | SearchEnded
