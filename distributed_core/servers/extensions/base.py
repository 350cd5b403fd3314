"""What the scheduler's extensions share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler


class Extension:
    """Handlers of the scheduler for one subject.

    Attributes
    ----------
    handlers
        By the name under which clients, workers and `rpc` call them. Each gets the call's arguments, and `peer`, the id
        of the worker or client that called, or no `peer` from `rpc`.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.handlers: dict[str, Callable[..., Awaitable[Any]]] = {}

    def joined(self, peer: int, role: str) -> None:
        """A `worker` or `client` has come."""

    def left(self, peer: int, role: str) -> None:
        """A `worker` or `client` has gone; whatever it held here is free again."""

    def for_newcomers(self) -> dict[str, Any]:
        """Return what a worker that registers is told here."""
        return {}

    def started(self) -> None:
        """The scheduler serves; its loop runs."""

    async def closing(self) -> None:
        """The scheduler closes."""

    def restarted(self) -> None:
        """`Client.restart` was called: whatever clients hold here is free again."""
