"""Which faults happen when, from a seed. Pure: the same seed and numbers give the same list."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Kinds by weight, and for how many seconds they last, from and to; 0: they only happen.
KINDS: dict[str, tuple[float, tuple[float, float]]] = {
    "kill-worker": (10, (0, 0)),
    "kill-nanny": (3, (0, 0)),
    "kill-host": (2, (1, 4)),
    "kill-scheduler": (1.5, (0.3, 3)),
    "kill-client": (1.5, (0, 0)),
    "stop-worker": (3, (0.2, 5)),
    "stop-nanny": (1.5, (0.5, 5)),
    "stop-scheduler": (1, (0.2, 3)),
    "freeze-host": (2, (0.2, 8)),
    "cut": (2, (0.5, 6)),
    "cut-scheduler": (0.8, (0.3, 3)),
    "cut-client": (0.8, (0.5, 6)),
    "latency": (2, (2, 6)),
    "loss": (2, (2, 6)),
    "slow": (2, (2, 6)),
    "partition-workers": (2, (1, 6)),
    "partition-scheduler": (2, (1, 6)),
    "reset": (3, (0, 0)),
    "reset-scheduler": (1, (0, 0)),
    "reset-client": (1, (0, 0)),
    "out-of-memory": (2, (4, 4)),
    "full-disk": (1.5, (3, 8)),
    "clock-jump": (1.5, (3, 6)),
    "join": (1, (4, 8)),
    "retire": (1.5, (0, 0)),
    "terminate": (1.5, (0, 0)),
}
ON_SCHEDULER = {"kill-scheduler", "stop-scheduler", "reset-scheduler", "cut-scheduler"}
ON_CLIENT = {"kill-client", "cut-client", "reset-client"}
#: A host is left alone for so long after a fault, so that it has a chance to do something.
PAUSE_S = 1.0
GAP_S = (0.3, 1.6)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    at_s: on the clock of the faults, which stands still in the quiet.
    amount: from 0 to 1; what it means is the kind's matter.
    """

    number: int
    at_s: float
    kind: str
    hosts: tuple[str, ...]
    lasts_s: float
    amount: float

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"#{self.number} {self.kind} of {', '.join(self.hosts)}{lasts}"


@dataclass(slots=True)
class _Free:
    """From when on each host may be the next."""

    at_s: dict[str, float] = field(default_factory=dict)

    def among(self, names: list[str], now_s: float) -> list[str]:
        return [name for name in names if self.at_s.get(name, 0.0) <= now_s]


def plan(
    seed: int, rounds: int, round_s: float, workers: list[str], clocked: list[str], kinds: list[str], at_once: int
) -> list[list[Fault]]:
    """Return the faults of each round, in order of time.

    workers, clocked: names of worker hosts, and of those whose wall clock can be set.
    at_once: so many last at most at the same time.
    """
    dice = random.Random(f"faults {seed}")
    weights = [KINDS[kind][0] for kind in kinds]
    number = 0
    planned = []
    for _ in range(rounds):
        free, ends, faults = _Free(), [], []
        now_s = dice.uniform(*GAP_S)
        while now_s < round_s:
            kind = dice.choices(kinds, weights)[0]
            lasts_s = round(dice.uniform(*KINDS[kind][1]), 2)
            amount = round(dice.random(), 3)
            hosts = _hosts(kind, free, now_s, workers, clocked, dice)
            ends = [end for end in ends if end > now_s]
            if hosts and len(ends) < at_once:
                number += 1
                faults.append(Fault(number, round(now_s, 2), kind, hosts, min(lasts_s, round_s - now_s), amount))
                ends.append(now_s + lasts_s + PAUSE_S)
                for name in hosts:
                    free.at_s[name] = ends[-1]
            now_s += dice.uniform(*GAP_S)
        planned.append(faults)
    return planned


def _hosts(
    kind: str, free: _Free, now_s: float, workers: list[str], clocked: list[str], dice: random.Random
) -> tuple[str, ...]:
    if kind in ON_SCHEDULER:
        return tuple(free.among(["s"], now_s))
    if kind in ON_CLIENT:
        return tuple(free.among(["c"], now_s))
    if kind == "join":
        return tuple(free.among(["spare"], now_s))
    able = free.among(clocked if kind == "clock-jump" else workers, now_s)
    count = 2 if kind == "partition-workers" else 1
    return tuple(dice.sample(able, count)) if len(able) >= count else ()
