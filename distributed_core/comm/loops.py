"""Event loops of our own: uvloop's where it is installed, asyncio's where it is not.

`DISTRIBUTED_CORE_EVENT_LOOP` chooses one by name. A loop that somebody else runs is used as it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from distributed_core.errors import UsageError

T = TypeVar("T")

VARIABLE = "DISTRIBUTED_CORE_EVENT_LOOP"


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop.

    Raises
    ------
    UsageError
        The environment asks for a loop that is not there.
    """
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in ("auto", "asyncio", "uvloop"):
        raise UsageError(f"{VARIABLE}={choice} means nothing; it is auto, asyncio or uvloop")
    if choice != "asyncio":
        try:
            import uvloop
        except ImportError:
            if choice == "uvloop":
                raise UsageError(f"{VARIABLE}=uvloop, but uvloop is not installed: pip install uvloop") from None
        else:
            made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return made
    return asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on such a loop."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(main)
    finally:
        main.close()  # if it never began, nobody shall complain that nobody awaited it
