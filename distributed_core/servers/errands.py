"""Functions that a client runs on workers and nannies as such, beside their tasks: `Client.run` and plugins."""

from __future__ import annotations

import asyncio
import inspect
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from distributed_core.context import context
from distributed_core.errors import NotSerializable
from distributed_core.messages import Payload
from distributed_core.protocol import payload as payloads

logger = logging.getLogger(__name__)

TEARDOWN_TIMEOUT_S = 2.0

Outcome = list[Any]
"""`[True, frames of the value, ""]`, or `[False, frames of the exception, its text]`."""


async def aside(server: Any, function: Callable[[], Any]) -> Any:
    """Call `function` in a daemon thread of its own and return its value; code in it finds `server` as its worker."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def run() -> None:
        if getattr(server, "kind", "") == "Worker":
            context.worker = server
        value, error = None, None
        try:
            value = function()
        except BaseException as problem:
            error = problem
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            logger.debug("a function ended after its server's loop was closed")

    threading.Thread(target=run, name="aside", daemon=True).start()
    value, error = await done
    if error is not None:
        raise error
    return value


async def called(server: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function aside, or a coroutine function on the loop."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    value = await aside(server, lambda: function(*args, **kwargs))
    return await value if inspect.isawaitable(value) else value


async def failed(error: BaseException) -> Outcome:
    """Return an exception as it travels."""
    frames = await asyncio.to_thread(payloads.dumps_exception, error, (__file__,))
    return [False, frames, f"{type(error).__name__}: {error}"[:500]]


async def run_errand(server: Any, body: bytes, payload: Payload, wait: bool = True) -> Outcome:
    """Open a function and its arguments, call it, and return what came of it.

    A parameter `dask_worker` or `worker` (on a nanny also `nanny`) that the caller left out gets the server.
    """
    try:
        function, args, kwargs = await aside(server, lambda: (payloads.loads_function(body), *payloads.loads(payload)))
        for name in _server_parameters(server, function, args, kwargs):
            kwargs[name] = server
        if not wait:
            server.background(_unwatched(server, function, args, kwargs))
            return [True, payloads.dumps(None), ""]
        value = await called(server, function, *args, **kwargs)
        frames = await aside(server, lambda: payloads.dumps(value))
        return [True, frames, ""]
    except asyncio.CancelledError:
        raise
    except NotSerializable as error:
        return await failed(NotSerializable(f"what the function returned on {server.address} cannot be sent: {error}"))
    except BaseException as error:
        return await failed(error)


async def _unwatched(server: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        await called(server, function, *args, **kwargs)
    except asyncio.CancelledError:
        raise
    except BaseException:
        logger.exception("%s: a function that nobody waits for failed", server.id)


def _server_parameters(server: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> list[str]:
    try:
        signature = inspect.signature(function)
        taken = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return []  # a builtin, or arguments that do not fit: the call itself says so
    names = ("dask_worker", "worker", "nanny") if server.kind == "Nanny" else ("dask_worker", "worker")
    return [name for name in names if name in signature.parameters and name not in taken]


class Guests:
    """The plugins at a worker or a nanny.

    They come from the scheduler under a name and a stamp, `scheduler id/number`: the same stamp is the same plugin.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._kept: dict[str, tuple[str, Any]] = {}
        self._lock = asyncio.Lock()
        self._folder: str | None = None

    @property
    def plugins(self) -> dict[str, Any]:
        """The plugins by their names."""
        return {name: plugin for name, (_, plugin) in self._kept.items()}

    def folder(self) -> str:
        """Return a folder for uploaded files, which goes with the server."""
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="distributed_core-")
        return self._folder

    async def add(self, name: str, stamp: str, payload: Payload) -> Outcome:
        """Set a plugin up, in place of an older one of that name."""
        async with self._lock:
            if self._kept.get(name, ("", None))[0] == stamp:
                return [True, [], ""]
            try:
                plugin = await aside(self._server, lambda: payloads.loads(payload))
                await self._end(name)
                await called(self._server, plugin.setup, self._server)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                return await failed(error)
            self._kept[name] = (stamp, plugin)
            return [True, [], ""]

    async def remove(self, name: str) -> Outcome:
        """Tear a plugin down; one that is not here is no error."""
        async with self._lock:
            try:
                await self._end(name)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                return await failed(error)
            return [True, [], ""]

    async def _end(self, name: str) -> None:
        _, plugin = self._kept.pop(name, ("", None))
        if plugin is not None:
            await called(self._server, plugin.teardown, self._server)

    def missing(self, wanted: dict[str, str]) -> list[str]:
        """Return which of `wanted`, stamps by name, are not here."""
        return [name for name, stamp in wanted.items() if self._kept.get(name, ("", None))[0] != stamp]

    async def forget_others(self, scheduler_id: str) -> None:
        """Tear down what came from another scheduler."""
        for name, (stamp, _) in list(self._kept.items()):
            if stamp.partition("/")[0] != scheduler_id:
                await self._log(name, await self.remove(name))

    async def take(self, fetched: list[list[Any]]) -> list[Any]:
        """Set up `[name, stamp, payload]` each; return the new plugins. One that fails is logged and left out."""
        new = []
        for name, stamp, payload in fetched:
            if await self._log(name, await self.add(name, stamp, payload)):
                new.append(self._kept[name][1])
        return new

    async def _log(self, name: str, outcome: Outcome) -> bool:
        if not outcome[0]:
            logger.error("%s: the plugin %s failed here: %s", self._server.id, name, outcome[2])
        return bool(outcome[0])

    async def close(self) -> None:
        """Tear everything down, within a time limit."""
        try:
            async with asyncio.timeout(TEARDOWN_TIMEOUT_S):
                for name in list(self._kept):
                    await self._log(name, await self.remove(name))
        except TimeoutError:
            logger.warning("%s: the teardown of a plugin took too long", self._server.id)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
