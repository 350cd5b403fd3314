"""Locks, semaphores, events, queues, variables and datasets: handlers around `CoordinationMachine`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed_core.errors import UsageError
from distributed_core.machines.coordination import (
    Answer,
    Asked,
    CoordinationMachine,
    ForgetValue,
    HolderLost,
    RequestDropped,
)
from distributed_core.protocol.codec import encode
from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.keeping import Keeping, KeptValue, checked_value

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler


_LEASE: dict[str, type] = {"most": int, "lease": str}
_LINE: dict[str, type] = {"most": int}
NEEDS: dict[str, dict[str, type]] = {
    "lock_acquire": {"names": list, "count": int, "lease": str},
    "lock_release": {"lease": str},
    "lock_locked": {},
    "semaphore_acquire": _LEASE,
    "semaphore_release": _LEASE,
    "semaphore_value": {"most": int},
    "semaphore_close": {},
    "event_wait": {},
    "event_set": {},
    "event_clear": {},
    "event_is_set": {},
    "queue_put": _LINE,
    "queue_get": {"most": int, "batch": int},
    "queue_qsize": _LINE,
    "queue_close": {},
    "variable_set": {},
    "variable_get": {},
    "variable_delete": {},
}
"""The arguments of each operation. What is wrong must be found here: in the machine it would stay in a line of waiters,
and fail for everybody who comes after it."""
BRINGS_VALUE = ("queue_put", "variable_set")


def check_operation(operation: str, arguments: dict[str, Any], value: Any) -> None:
    """See whether the machine can do what is asked.

    Raises
    ------
    UsageError
        There is no such operation, or its arguments are wrong.
    """
    needs = NEEDS.get(operation)
    if needs is None:
        raise UsageError(f"there is no operation {operation!r:.60}")
    for name, kind in needs.items():
        if type(arguments.get(name)) is not kind:
            raise UsageError(f"{operation} needs {name}, which is {kind.__name__}")
    if set(arguments) - set(needs) or not all(type(name) is str for name in arguments.get("names", ())):
        raise UsageError(f"{operation} was asked for with arguments that make no sense")
    if (value is None) is (operation in BRINGS_VALUE):
        raise UsageError(f"{operation} {'needs a' if value is None else 'takes no'} value")


class Coordination(Extension):
    """What tasks and clients coordinate themselves by."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {
            "coordinate": self._coordinate,
            "dataset_publish": self._publish,
            "dataset_get": self._get_dataset,
            "dataset_list": self._list_datasets,
            "dataset_unpublish": self._unpublish,
            "metadata_set": self._set_metadata,
            "metadata_get": self._get_metadata,
        }
        self.machine = CoordinationMachine()
        self._requests: dict[int, tuple[asyncio.Future[Any], str, int]] = {}
        self._request_count = 0
        self._values: dict[int, KeptValue] = {}
        self._value_count = 0
        self._datasets: dict[str, KeptValue] = {}
        self._metadata: dict[str, Any] = {}

    @property
    def _keeping(self) -> Keeping:
        return next(each for each in self.scheduler.extensions if isinstance(each, Keeping))

    def left(self, peer: int, role: str) -> None:
        if role == "client":
            self._feed(HolderLost(peer))

    def restarted(self) -> None:
        for peer in self.scheduler.machine.ledger.clients:
            self._feed(HolderLost(peer))

    def _feed(self, event: Asked | RequestDropped | HolderLost) -> None:
        for asked in self.machine.handle(event):
            if isinstance(asked, ForgetValue):
                value = self._values.pop(asked.token, None)
                if value is not None:
                    self._keeping.forget(value)
            elif isinstance(asked, Answer):
                self._settle(asked)

    def _settle(self, answer: Answer) -> None:
        """Let the request go on; a value is handed over at once, since the next event may take it away."""
        waiter, operation, peer = self._requests.get(answer.request, (None, "", 0))
        if waiter is None or waiter.done():
            return
        if not answer.well:
            waiter.set_exception(UsageError(answer.value))
        elif operation == "variable_get":
            waiter.set_result(self._keeping.hand_over(self._values[answer.value], peer))
        elif operation == "queue_get":
            waiter.set_result([self._take_out(token, peer) for token in answer.value])
        else:
            waiter.set_result(answer.value)

    # --- named things -----------------------------------------------------------------------------

    async def _coordinate(
        self,
        operation: str,
        name: str,
        arguments: dict[str, Any],
        timeout: float | None = None,
        value: list[Any] | None = None,
        peer: int = 0,
    ) -> list[Any]:
        """Ask for an operation; return `[True, its answer]`, or `[False, None]` where the time is over before.

        `value` is `[frames, keys]` for operations that bring one. An answer that is a value is what `hand_over` makes.
        """
        if peer not in self.scheduler.machine.ledger.clients:
            raise UsageError("only a client can hold locks and the like")
        check_operation(operation, arguments, value)
        if value is not None:
            self._value_count += 1
            arguments = {**arguments, "token": self._value_count}
            self._values[self._value_count] = self._keeping.keep(*checked_value(value))
        self._request_count += 1
        number = self._request_count
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = (waiter, operation, peer)
        self._feed(Asked(number, peer, operation, name, arguments))
        try:
            return [True, await asyncio.wait_for(waiter, timeout)]
        except TimeoutError:
            self._feed(RequestDropped(number))
            return [False, None]
        finally:
            del self._requests[number]

    def _take_out(self, token: int, peer: int) -> list[Any]:
        value = self._values.pop(token)
        handed = self._keeping.hand_over(value, peer)
        self._keeping.forget(value)
        return handed

    # --- datasets and metadata --------------------------------------------------------------------

    async def _publish(self, name: str, value: list[Any], override: bool = False, **context: Any) -> None:
        checked_value(value)
        if name in self._datasets:
            if not override:
                raise UsageError(f"a dataset {name!r:.100} is published already; unpublish it, or say override=True")
            self._keeping.forget(self._datasets.pop(name))
        self._datasets[name] = self._keeping.keep(*value)

    async def _get_dataset(self, name: str, peer: int = 0) -> list[Any] | None:
        value = self._datasets.get(name)
        return None if value is None else self._keeping.hand_over(value, peer)

    async def _list_datasets(self, **context: Any) -> list[str]:
        return list(self._datasets)

    async def _unpublish(self, name: str, **context: Any) -> bool:
        value = self._datasets.pop(name, None)
        if value is not None:
            self._keeping.forget(value)
        return value is not None

    async def _set_metadata(self, keys: list[str], value: Any, **context: Any) -> None:
        if not keys:
            raise UsageError("metadata needs at least one key")
        encode([value])  # what is nested too deep could never be shown
        at = self._metadata
        for key in keys[:-1]:
            below = at.setdefault(key, {})
            if not isinstance(below, dict):
                raise UsageError(f"the metadata {key!r:.60} is a value, nothing can be below it")
            at = below
        at[keys[-1]] = value

    async def _get_metadata(self, keys: list[str], **context: Any) -> list[Any]:
        at: Any = self._metadata
        for key in keys:
            if not isinstance(at, dict) or key not in at:
                return []
            at = at[key]
        return [at]
