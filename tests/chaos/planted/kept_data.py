"""A worker that keeps the data of some tasks that it was told to let go."""

from __future__ import annotations

from typing import Any


def setup(server: Any) -> None:
    discard = server.data.discard

    def keeping(tasks: Any) -> None:
        discard([task for task in tasks if task % 50])

    server.data.discard = keeping
