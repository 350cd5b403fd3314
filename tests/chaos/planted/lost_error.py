"""A worker with an asyncio task whose exception nobody looks at."""

from __future__ import annotations

import asyncio
from typing import Any


async def _fail() -> None:
    raise RuntimeError("planted")


def setup(server: Any) -> None:
    server.loop.add_callback(lambda: asyncio.ensure_future(_fail()) and None)
