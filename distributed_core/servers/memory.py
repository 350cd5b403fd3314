"""A worker's memory: it is measured at intervals, the machine decides, and results go to disk."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from distributed_core.machines.worker import events, instructions
from distributed_core.measuring import process_memory_bytes
from distributed_core.servers.spilling import file_memory, remove_leftovers, spill_base
from distributed_core.servers.store import Store

if TYPE_CHECKING:
    from distributed_core.servers.worker import Worker

logger = logging.getLogger(__name__)

#: While much is held, it is measured when results come, but not more often than this.
NOTED_S = 0.01


class MemoryWatch:
    """The memory of one worker, and the store of its results.

    Parameters
    ----------
    limit_bytes
        What its process may take; 0 is no limit, and then nothing is measured and nothing goes to disk.
    local_directory
        Where it makes the folder for results; None is a folder of this user in the system's temporary one.
    """

    def __init__(self, worker: Worker, limit_bytes: int, local_directory: str | None) -> None:
        settings = worker.settings
        self._worker = worker
        self.limit_bytes = limit_bytes
        self._relief_bytes = limit_bytes * settings.memory_relief_fraction if limit_bytes else sys.maxsize
        self._measured_at = 0.0
        bytes_min = settings.spilled_result_bytes_min if limit_bytes else sys.maxsize
        room_bytes = int(limit_bytes * settings.memory_target_fraction)
        self.store = Store(spill_base(local_directory), bytes_min, room_bytes, settings.disk_retry_s)

    def start(self) -> None:
        """Begin to measure; remove what killed predecessors left."""
        if self.limit_bytes:
            self._worker.background(self._clean_up())
            self._measure_on()

    async def _clean_up(self) -> None:
        removed = await asyncio.to_thread(remove_leftovers, self.store.folder.base)
        if removed:
            logger.info("%s removed the results on disk of %d processes that are gone", self._worker.id, removed)

    def _measure_on(self) -> None:
        if self._worker.exit_code is None:
            self.measure()
            self._worker.loop.call_later(self._worker.settings.memory_interval_s, self._measure_on)

    def measure(self) -> None:
        """Let the machine know what is taken now."""
        store = self.store
        if self.limit_bytes:
            self._measured_at = self._worker.loop.time()
            spillable = store.spillable_bytes
            taken = events.MemoryTaken(process_memory_bytes(), store.held_bytes, spillable, store.spilled_bytes)
            self._worker.feed(taken)

    def noted(self) -> None:
        """Results came: measure now if they take much, not only at the next interval.

        What is found travels in one packet with the news of the results, so that the next task may already be withheld.
        """
        if self.store.held_bytes > self._relief_bytes and self._worker.loop.time() >= self._measured_at + NOTED_S:
            self.measure()

    def place(self, nbytes: int) -> memoryview | None:
        """Return where a large frame may arrive: on the pages of a file, where the memory would not suffice.

        So what is larger than memory comes in as it would come back from disk. None is the process's own memory.
        """
        if not self.limit_bytes:
            return None
        taken = max(process_memory_bytes(), self.store.held_bytes)
        if taken + nbytes <= self.limit_bytes * self._worker.settings.memory_spill_fraction:
            return None
        try:
            return file_memory(self.store.folder.next_file(), nbytes)
        except OSError as error:
            logger.warning("%s: %d bytes arrive in memory, not on disk: %s", self._worker.id, nbytes, error.strerror)
            return None

    def spill(self, asked: instructions.Spill) -> None:
        """Write results to disk."""
        self._worker.background(self._spill(asked.nbytes, self._worker.registration))

    async def _spill(self, nbytes: int, registration: int) -> None:
        freed = 0
        try:
            freed = await self.store.spill(nbytes)
        finally:
            if registration == self._worker.registration:
                self._worker.feed(events.SpillEnded(freed))
                if freed:
                    self.measure()

    def metrics(self) -> dict[str, Any]:
        """Return the figures that heartbeats carry."""
        store = self.store
        return {
            "memory_bytes": process_memory_bytes(),
            "memory_limit_bytes": self.limit_bytes,
            "held": len(store),
            "spilled_count": len(store.spilled),
            "spilled_bytes": store.spilled_bytes,
            "paused": self._worker.machine.memory.paused,
        }
