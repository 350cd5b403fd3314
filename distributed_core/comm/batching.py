"""Messages of one turn of the loop leave together.

No fixed delay: when the loop is idle a message leaves at once, and when it is busy batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Batch:
    """Collects messages and gives them to `flush` at the end of the loop's turn."""

    __slots__ = ("_flush", "_loop", "_messages", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, flush: Callable[[list[Any]], None]) -> None:
        self._loop = loop
        self._flush = flush
        self._messages: list[Any] = []
        self._scheduled = False

    def add(self, message: Any) -> None:
        self._messages.append(message)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Give away what there is now."""
        self._scheduled = False
        if self._messages:
            batch, self._messages = self._messages, []
            self._flush(batch)
