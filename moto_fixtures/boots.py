"""How launches end on paper: as they should, late, never, or with a death on the way."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of one launched instance."""

    RUNS = "runs"
    DIES = "dies"  #: pending, then terminated with Server.InternalError
    NEVER = "never"  #: pending, whoever waits


@dataclass(frozen=True)
class BootOutcome:
    """The fate of one launch, and how many looks of a client it takes longer than usual."""

    fate: Fate = Fate.RUNS
    looks_more: int = 0


class BootPlan:
    """The outcomes of launches to come; nth = 1 is the next instance that is launched after the order.

    Amazon EC2 User Guide, "Troubleshoot Amazon EC2 instance termination issues": an instance may go from pending to
    terminated at once.
    """

    def __init__(self) -> None:
        self._launched = 0
        self._ordered: dict[int, BootOutcome] = {}
        self._chances: tuple[int | str, float, float, float] | None = None

    def dies(self, nth: int = 1) -> None:
        """Let a launch end in `terminated` instead of `running`."""
        self._order(nth, BootOutcome(Fate.DIES))

    def never(self, nth: int = 1) -> None:
        """Let a launch stay in `pending`."""
        self._order(nth, BootOutcome(Fate.NEVER))

    def late(self, nth: int = 1, looks: int = 5) -> None:
        """Let a launch take so many looks more."""
        self._order(nth, BootOutcome(looks_more=looks))

    def by_chance(self, seed: int | str, *, dies: float = 0.0, never: float = 0.0, late: float = 0.0) -> None:
        """Let launches without an order end by chance, the same for the same seed.  Each is a share of 1."""
        self._chances = (seed, dies, never, late)

    def clear(self) -> None:
        """Let all launches to come run."""
        self._ordered.clear()
        self._chances = None

    def next(self) -> BootOutcome:
        """The outcome of the launch that happens now."""
        self._launched += 1
        ordered = self._ordered.pop(self._launched, None)
        if ordered is not None or self._chances is None:
            return ordered or BootOutcome()
        seed, dies, never, late = self._chances
        dice = random.Random(f"{seed} {self._launched}")
        drawn = dice.random()
        if drawn < dies:
            return BootOutcome(Fate.DIES)
        if drawn < dies + never:
            return BootOutcome(Fate.NEVER)
        return BootOutcome(looks_more=dice.randint(1, 9)) if drawn < dies + never + late else BootOutcome()

    def _order(self, nth: int, outcome: BootOutcome) -> None:
        self._ordered[self._launched + nth] = outcome
