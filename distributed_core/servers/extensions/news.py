"""Events: what tasks, workers and clients log by topic, kept for a while and told to whoever subscribed."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.messages import Payload
from distributed_core.servers.extensions.base import Extension

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

EVENTS_MAX = 10_000
EVENT_BYTES_MAX = 16 << 20
"""Kept of each topic, the newest ones."""
FOR_ALL = ("print", "warn")
"""What every client is told."""


class News(Extension):
    """Logged events."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {
            "log_event": self._log_event,
            "get_events": self._get_events,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }
        self._events: dict[str, deque[tuple[float, Payload, int]]] = {}
        self._bytes: dict[str, int] = {}
        self._subscribers: dict[str, dict[int, None]] = {topic: {} for topic in FOR_ALL}

    def joined(self, peer: int, role: str) -> None:
        if role == "client":
            for topic in FOR_ALL:
                self._subscribers[topic][peer] = None

    def left(self, peer: int, role: str) -> None:
        for subscribers in self._subscribers.values():
            subscribers.pop(peer, None)

    async def _log_event(self, topics: list[str], payload: Payload, nbytes: int = 0, **context: Any) -> None:
        now = time.time()
        nbytes = max(0, nbytes)
        for topic in topics:
            events = self._events.setdefault(topic, deque())
            events.append((now, payload, nbytes))
            self._bytes[topic] = self._bytes.get(topic, 0) + nbytes
            while len(events) > EVENTS_MAX or (len(events) > 1 and self._bytes[topic] > EVENT_BYTES_MAX):
                self._bytes[topic] -= events.popleft()[2]
            for peer in self._subscribers.get(topic, ()):
                self.scheduler.send(peer, messages.Notice(topic, repr(now), payload))

    async def _get_events(self, topic: str | None = None, **context: Any) -> dict[str, list[list[Any]]]:
        chosen = self._events if topic is None else {topic: self._events.get(topic, ())}
        return {name: [[at, payload] for at, payload, _ in events] for name, events in chosen.items()}

    async def _subscribe(self, topic: str, peer: int = 0) -> None:
        self._subscribers.setdefault(topic, {})[peer] = None

    async def _unsubscribe(self, topic: str, peer: int = 0) -> None:
        self._subscribers.get(topic, {}).pop(peer, None)
