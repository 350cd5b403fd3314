"""Whose turn it is: clients share the workers by expected time, in proportion to their weights.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each share has a virtual time that grows by what it was given,
divided by its weight; the smallest is next. A share that was empty starts at the present, so that idling saves nothing.
"""

from __future__ import annotations

import heapq

from distributed_core.ids import TaskId


class Share:
    """The ready tasks of one client, best first, and how much time it was given."""

    __slots__ = ("listed", "number", "queue", "virtual_s", "weight")

    def __init__(self, number: int, weight: float) -> None:
        self.number = number
        self.weight = weight
        self.virtual_s = 0.0
        #: A heap of (priority, id); entries of tasks that are no longer ready are skipped.
        self.queue: list[tuple[int, TaskId]] = []
        self.listed = False


class Shares:
    """All shares that have ready tasks."""

    __slots__ = ("_clock_s", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Share]] = []
        self._clock_s = 0.0

    def push(self, share: Share, priority: int, task: TaskId) -> None:
        """Add a ready task."""
        heapq.heappush(share.queue, (priority, task))
        if not share.listed:
            share.listed = True
            present_s = self._heap[0][2].virtual_s if self._heap else self._clock_s
            share.virtual_s = max(share.virtual_s, present_s)
            heapq.heappush(self._heap, (share.virtual_s, share.number, share))

    def turn(self) -> Share | None:
        """Return the share whose turn it is, with something in its queue, or None."""
        heap = self._heap
        while heap:
            share = heap[0][2]
            if share.queue:
                return share
            heapq.heappop(heap)
            share.listed = False
        return None

    def charge(self, share: Share, seconds: float) -> None:
        """`share` was given so much of the workers' time (less, where an estimate was too high)."""
        share.virtual_s += seconds / share.weight
        heap = self._heap
        if heap and heap[0][2] is share:
            self._clock_s = share.virtual_s
            heapq.heapreplace(heap, (share.virtual_s, share.number, share))
