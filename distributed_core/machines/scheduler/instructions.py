"""What the scheduler's machine can ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed_core.ids import PeerId


@dataclass(frozen=True, slots=True)
class Send:
    """Send these messages to a peer, in this order, in one packet."""

    peer: PeerId
    messages: list[Any]


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection to a peer that broke the protocol or fell silent; its loss follows as an event."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class WatchLiveness:
    """Feed `LivenessChecked` after this time."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Continue:
    """Feed `Continued` in the next turn of the loop: there is more to do than one turn should take."""


@dataclass(frozen=True, slots=True)
class WatchRecovery:
    """Feed `RecoveryChecked` after this time."""

    delay_s: float


SchedulerInstruction = Send | Drop | WatchLiveness | WatchRecovery | Continue
