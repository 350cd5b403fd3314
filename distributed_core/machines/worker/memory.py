"""When results go to disk, and when the worker wants no more tasks: a worker's memory as its machine sees it.

Results are spilled when they, or the process, take more than a part of the limit; it goes on until they take clearly
less, so that it does not begin again with the next result. A process that takes too much nevertheless is paused: the
scheduler gives it nothing more until it is below again. It is paused at once and not only after the disk had its turn,
since tasks fill memory faster than a disk empties it.
"""

from __future__ import annotations

from distributed_core import messages
from distributed_core.machines.worker.events import MemoryTaken
from distributed_core.settings import WorkerSettings

#: News of what is on disk are worth a message when it changed by this part of the limit.
NEWS_FRACTION = 0.02
#: One request to a peer takes at most one of so many parts of the limit.
FETCH_PARTS = 8


class MemoryBook:
    """What was decided so far.

    Attributes
    ----------
    limit_bytes
        What the process may take; 0 is no limit, and then nothing is ever decided.
    spilling
        Spilling was asked for and has not ended.
    paused
        The scheduler was told to give no more tasks.
    told_bytes
        How many bytes of results on disk the scheduler was told of.
    """

    __slots__ = ("limit_bytes", "paused", "spilling", "told_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.spilling = False
        self.paused = False
        self.told_bytes = 0

    def fetch_bytes_max(self, settings: WorkerSettings) -> int:
        """Return how much one request to a peer asks for: what arrives, and what the peer prepares, must fit."""
        most = settings.fetch_bytes_max
        return min(most, self.limit_bytes // FETCH_PARTS) if self.limit_bytes else most

    def to_spill(self, taken: MemoryTaken, settings: WorkerSettings) -> int:
        """Return how many bytes of results should go to disk now."""
        limit = self.limit_bytes
        if not limit or self.spilling:
            return 0
        relief = limit * settings.memory_relief_fraction
        excess = 0.0
        if taken.held_bytes > limit * settings.memory_target_fraction:
            excess = taken.held_bytes - relief
        if taken.process_bytes > limit * settings.memory_spill_fraction:
            excess = max(excess, taken.process_bytes - relief)
        return int(min(excess, taken.spillable_bytes))

    def news(self, taken: MemoryTaken, settings: WorkerSettings) -> messages.MemoryState | None:
        """Return what the scheduler should hear, or None."""
        limit = self.limit_bytes
        if not limit:
            return None
        paused = taken.process_bytes > limit * settings.memory_pause_fraction
        if paused is self.paused and abs(taken.spilled_bytes - self.told_bytes) <= limit * NEWS_FRACTION:
            return None
        self.paused = paused
        self.told_bytes = taken.spilled_bytes
        return messages.MemoryState(paused, taken.spilled_bytes)
