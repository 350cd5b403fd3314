"""No client keeps the scheduler to itself: counts of turns, not times."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distributed_core.machines.scheduler import events
from distributed_core.messages import Release, Submission
from distributed_core.servers.scheduler import PART_WEIGHT, Scheduler

FLOOD_MESSAGES = 100


class Script:
    """Stands for a connection over which all messages came at once."""

    def __init__(self, batch: list[Any]) -> None:
        self.batches = [batch]
        self.over = asyncio.Event()

    async def read(self) -> list[Any]:
        if not self.batches:
            self.over.set()
            await asyncio.Event().wait()
        return self.batches.pop()


def test_one_that_floods_has_one_part_between_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> list[tuple[int, int]]:
        scheduler = Scheduler(host="127.0.0.1", insecure=True)
        scheduler.extensions = []
        turns: list[tuple[int, int]] = []

        def note(event: Any) -> None:
            if type(event) is events.Received:
                turns.append((event.peer, len(event.messages)))

        monkeypatch.setattr(scheduler, "feed", note)
        flood = [Submission([], [None] * PART_WEIGHT) for _ in range(FLOOD_MESSAGES)]
        channels: list[Any] = [Script(flood), Script([Release([0] * PART_WEIGHT) for _ in range(5)])]
        serving = [
            asyncio.ensure_future(
                scheduler._serve_peer(channel, peer, events.ClientJoined(peer, str(peer), 1.0), events.ClientLost(peer))
            )
            for peer, channel in enumerate(channels, 1)
        ]
        for channel in channels:
            await channel.over.wait()
        for each in serving:
            each.cancel()
        await asyncio.wait(serving)
        return turns

    turns = asyncio.run(check())
    assert [size for _, size in turns] == [1] * (FLOOD_MESSAGES + 5), "a part is as much as one turn may take"
    places = [place for place, (peer, _) in enumerate(turns) if peer == 2]
    assert all(later - earlier <= 2 for earlier, later in zip([-1, *places], places, strict=False))
