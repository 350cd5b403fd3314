"""Values that the scheduler keeps for others: opaque frames, and the futures inside them held alive.

Queues, variables and published datasets are made of these. Who is given such a value makes futures of its own of those
inside; until it says that it has, they are held for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.errors import UsageError
from distributed_core.machines.scheduler import events
from distributed_core.machines.scheduler.ledger import KEEPER
from distributed_core.servers.arguments import is_frames
from distributed_core.servers.extensions.base import Extension

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler


class KeptValue:
    """A value: its frames, the names of the futures inside, and under which numbers these are held."""

    __slots__ = ("keys", "numbers", "payload")

    def __init__(self, payload: list[Any], keys: list[str], numbers: list[int]) -> None:
        self.payload = payload
        self.keys = keys
        self.numbers = numbers


def checked_value(value: list[Any]) -> list[Any]:
    """Return `[frames, keys of the futures inside]`.

    Raises
    ------
    UsageError
        It is something else.
    """
    if len(value) == 2:
        payload, keys = value
        if (type(payload) is bytes or is_frames(payload)) and type(keys) is list and set(map(type, keys)) <= {str}:
            return value
    raise UsageError("a value is its frames and the names of the futures inside")


class Keeping(Extension):
    """Keeps values for the other extensions; it is the first of them."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {"value_taken": self._handle_value_taken}
        self._count = 0
        #: What is held for who was given a value and did not say yet that it has it.
        self._handed: dict[int, dict[int, list[int]]] = {}

    def keep(self, payload: list[Any], keys: list[str]) -> KeptValue:
        """Keep a value, and hold the futures in it."""
        return KeptValue(payload, keys, self._hold(keys))

    def forget(self, value: KeptValue) -> None:
        """Let go of a value."""
        self._let_go(value.numbers)

    def hand_over(self, value: KeptValue, peer: int) -> list[Any]:
        """Return `[frames, keys, receipt]` for a client; it calls `value_taken` with a receipt that is not 0."""
        if not value.keys:
            return [value.payload, [], 0]
        numbers = self._hold(value.keys)
        self._handed.setdefault(peer, {})[numbers[0]] = numbers
        return [value.payload, value.keys, numbers[0]]

    async def _handle_value_taken(self, receipts: list[int], peer: int = 0) -> None:
        for receipt in receipts:
            self._let_go(self._handed.get(peer, {}).pop(receipt, []))

    def left(self, peer: int, role: str) -> None:
        for numbers in self._handed.pop(peer, {}).values():
            self._let_go(numbers)

    def _hold(self, keys: list[str]) -> list[int]:
        numbers = []
        for key in keys:
            self._count += 1
            numbers.append(self._count)
            self.scheduler.feed(events.Received(KEEPER, [messages.Wish([[self._count, key]])]))
        return numbers

    def _let_go(self, numbers: list[int]) -> None:
        if numbers:
            self.scheduler.feed(events.Received(KEEPER, [messages.Release(numbers)]))
