"""Calls of actors that live on a worker."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from distributed_core.context import context
from distributed_core.errors import UsageError
from distributed_core.messages import Payload
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.actors import ActorBox

if TYPE_CHECKING:
    from distributed_core.servers.worker import Worker


class Stage:
    """Where a worker's actors are called."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.handlers = {"actor_call": self._call, "actor_get": self._get}

    def _box(self, task: int) -> ActorBox:
        box = self._worker.data.get(task)
        if not isinstance(box, ActorBox):
            raise UsageError(f"worker {self._worker.address} does not have it, or not any more")
        return box

    async def _call(self, task: int, name: str, payload: Payload) -> list[Any]:
        """Call a method; return `[True, frames of the result]` or `[False, frames of the exception]`."""
        box = self._box(task)
        method = getattr(box.instance, name)
        if inspect.iscoroutinefunction(method):
            return await self._call_here(method, payload)
        return await asyncio.get_running_loop().run_in_executor(box.thread, self._call_aside, method, payload)

    async def _call_here(self, method: Any, payload: Payload) -> list[Any]:
        try:
            args, kwargs = self._opened(payload)
            return [True, payloads.dumps(await method(*args, **kwargs))]
        except Exception as error:
            return [False, payloads.dumps_exception(error, (__file__,))]

    def _call_aside(self, method: Any, payload: Payload) -> list[Any]:
        try:
            args, kwargs = self._opened(payload)
            context.worker = self._worker
            return [True, payloads.dumps(method(*args, **kwargs))]
        except BaseException as error:
            return [False, payloads.dumps_exception(error, (__file__,))]

    def _opened(self, payload: Payload) -> Any:
        context.worker = self._worker
        try:
            return payloads.loads(payload)
        finally:
            context.worker = None

    async def _get(self, task: int, name: str, payload: Payload) -> list[Any]:
        """Read an attribute, as `_call` does."""
        instance = self._box(task).instance
        try:
            return [True, payloads.dumps(getattr(instance, name))]
        except Exception as error:
            return [False, payloads.dumps_exception(error, (__file__,))]
