"""For `dscheduler --preload`: how long single turns of the scheduler's loop take, and what its memory is.

A turn is measured in processor time of the loop's thread: what else the computer did meanwhile is no stall of ours.
"""

from __future__ import annotations

import ctypes
import gc
import time
from typing import Any

import psutil

_longest_s = 0.0


def setup(scheduler: Any) -> None:
    """Measure each turn of its loop from now on."""
    loop = scheduler.loop.asyncio_loop
    turn = loop._run_once

    def measured() -> None:
        global _longest_s
        begin_s = time.thread_time()
        turn()
        _longest_s = max(_longest_s, time.thread_time() - begin_s)

    loop._run_once = measured


def longest_turn_s() -> float:
    """Return the longest turn since the last call, in seconds of processor time."""
    global _longest_s
    found, _longest_s = _longest_s, 0.0
    return found


def memory_bytes() -> list[int]:
    """Return the resident memory of this process after a collection, and again after the allocator gave back slack."""
    global _longest_s
    kept = _longest_s
    gc.collect()
    process = psutil.Process()
    held = process.memory_info().rss
    ctypes.CDLL(None).malloc_trim(0)
    _longest_s = kept
    return [held, process.memory_info().rss]
