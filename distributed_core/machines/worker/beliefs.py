"""What a worker believes, in a form that the scheduler can compare with its own books.

It is made from the tables themselves, and nothing is kept for it while tasks run: so a table that is wrong shows, and
tasks pay nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed_core import messages
from distributed_core.ids import RunId, TaskId
from distributed_core.machines.sums import summed
from distributed_core.machines.worker.replicas import Replica
from distributed_core.machines.worker.runs import Run
from distributed_core.settings import WorkerSettings

#: A tally takes some 60 ns for each result held. It comes so much later for each that it takes 1 % of the time at most.
TALLY_S_PER_RESULT = 6e-6


class Beliefs:
    """What belongs to one connection to the scheduler.

    Attributes
    ----------
    applied
        How many messages of the scheduler's machine were applied.
    """

    __slots__ = ("_due_s", "applied")

    def __init__(self) -> None:
        self.applied = 0
        self._due_s = -1e18

    def tally(
        self,
        now: float,
        replicas: Mapping[TaskId, Replica],
        runs: Mapping[RunId, Run],
        lingering: Mapping[RunId, Run],
    ) -> list[messages.Tally]:
        """Return what is believed; nothing where the last tally was so large that the next one has to wait."""
        if now < self._due_s:
            return []
        self._due_s = now + len(replicas) * TALLY_S_PER_RESULT
        held = [task for task, replica in replicas.items() if replica.held]
        running = {run.task for run in runs.values()}
        if not running.isdisjoint(replicas):
            # To the scheduler, the run replaces the data.
            held = [task for task in held if task not in running]
        sums = (len(held), summed(held), len(runs), summed(runs), len(lingering), summed(lingering))
        return [messages.Tally(self.applied, *sums)]


def inventory(
    question: messages.Audit,
    beliefs: Beliefs,
    replicas: Mapping[TaskId, Replica],
    runs: Mapping[RunId, Run],
    lingering: Mapping[RunId, Run],
    settings: WorkerSettings,
) -> list[messages.Stocktaking]:
    """Return all that is there, at most `told_at_once_max` of a kind in a message."""
    at_once = settings.told_at_once_max
    held = [[task, replica.nbytes] for task, replica in replicas.items() if replica.held]
    counting = [[run.task, run.run] for run in runs.values()]
    left = list(lingering)
    most = max(len(held), len(counting), len(left), 1)
    starts = range(0, most, at_once)
    return [
        messages.Stocktaking(
            question.serial,
            beliefs.applied,
            held[start : start + at_once],
            counting[start : start + at_once],
            left[start : start + at_once],
            start == starts[-1],
        )
        for start in starts
    ]


def comeback(
    replicas: dict[TaskId, Replica], runs: dict[RunId, Run], lingering: dict[RunId, Run], at_once: int
) -> list[Any]:
    """Return all that is here, for a scheduler that may know nothing of it; `at_once` results in a message."""
    held = [[replica.task, replica.nbytes] for replica in replicas.values() if replica.held]
    going = [[run.task, run.run] for run in runs.values()] + [[0, run] for run in lingering]
    words: list[Any] = [messages.Possession(held[at : at + at_once]) for at in range(0, len(held), at_once)]
    if going:
        words.append(messages.Continuation(going))
    return [*words, messages.Presence(len(held) + len(going))]
