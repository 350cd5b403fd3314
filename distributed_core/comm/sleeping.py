"""Connections of a computer that slept.

While a laptop sleeps its monotonic clock stands still, so no limit of its own runs out. But what lies between it and
the other side (a router, a tunnel) may have forgotten the connection meanwhile, and tells nobody: who only waits for
news would wait for hours. So after a sleep, and only then, the other side is asked whether it is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from distributed_core.comm.address import format_address
from distributed_core.comm.channel import Channel
from distributed_core.errors import EngineError

logger = logging.getLogger(__name__)

#: How often one looks whether there was a sleep, and how long it must have been.
LOOK_INTERVAL_S = 5.0
SLEEP_S_MIN = 5.0
#: How long the other side has to answer then; the network may have to come up first.
ANSWER_TIMEOUT_S = 20.0


def slept_s() -> float:
    """Return how long this computer has slept since it started, in seconds; 0 where the system does not tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):
        # On macOS that is the clock which stands still, and CLOCK_MONOTONIC the one which does not.
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


async def watch_for_sleep(channel: Callable[[], Channel | None]) -> None:
    """After each sleep call `ping` over the channel; end the channel if there is no answer. Runs until it is cancelled.

    Parameters
    ----------
    channel
        Returns the channel as it is now, or None while there is none.
    """
    before_s = slept_s()
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        now_s = slept_s()
        slept, before_s = now_s - before_s, now_s
        current = channel()
        if slept < SLEEP_S_MIN or current is None or current.stream.closed:
            continue
        try:
            await current.call("ping", {}, ANSWER_TIMEOUT_S)
        except TimeoutError:
            where = format_address(current.stream.peer)
            logger.warning("this computer slept for %.0f s, and %s does not answer: connecting anew", slept, where)
            current.abort()
        except EngineError:
            pass  # it ended, and whoever reads from it knows
