"""Plugins, and what clients may call on the scheduler by name.

Plugins of workers and nannies are opaque frames here. A plugin of the scheduler's own, and every function that a client
calls here, comes from a module that the operator allowed with `--preload`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distributed_core.errors import EngineError, RemoteError, UsageError
from distributed_core.machines.scheduler.tasks import Task, TaskState
from distributed_core.messages import Payload
from distributed_core.protocol.codec import encode
from distributed_core.servers.extensions.base import Extension
from distributed_core.servers.extensions.operations import Operations
from distributed_core.servers.extensions.questions import task_name

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
KINDS = ("worker", "nanny")
_WORDS = {"Ready": "queued", "Assigned": "processing", "Arriving": "waiting", "Held": "memory"}


class Plugins(Extension):
    """The books of plugins, and the door to the operator's modules."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        #: `[stamp, payload]` by kind and name.
        self.books: dict[str, dict[str, list[Any]]] = {kind: {} for kind in KINDS}
        self.own: dict[str, Any] = {}
        self._count = 0
        self._peers: dict[int, tuple[str, str]] = {}
        self._watchers: list[Callable[[str, str, str], Any]] = []
        self.handlers = {
            "plugin_register": self._handle_register,
            "plugin_unregister": self._handle_unregister,
            "plugins": self._handle_plugins,
            "scheduler_plugin_register": self._handle_register_own,
            "scheduler_plugin_unregister": self._handle_unregister_own,
            "run_on_scheduler": self._handle_run_on_scheduler,
        }

    # --- of workers and nannies -------------------------------------------------------------------

    def stamps(self) -> dict[str, dict[str, str]]:
        """Return, by kind and name, the stamps of the plugins that a newcomer is to have."""
        return {kind: {name: each[0] for name, each in book.items()} for kind, book in self.books.items() if book}

    def for_newcomers(self) -> dict[str, Any]:
        stamps = self.stamps()
        return {"plugins": stamps} if stamps else {}

    def _book(self, kind: str) -> dict[str, list[Any]]:
        if kind not in KINDS:
            raise UsageError(f"{kind!r:.40} has no plugins; {' and '.join(KINDS)} have")
        return self.books[kind]

    def _spread(self, op: str, kind: str, arguments: dict[str, Any]) -> Any:
        operations = next(each for each in self.scheduler.extensions if type(each) is Operations)
        workers = list(self.scheduler.machine.ledger.workers.values())
        if kind == "nanny":
            workers = [worker for worker in workers if worker.details.get("nanny")]
        return operations.call_each(workers, op, arguments, nanny=kind == "nanny")

    async def _handle_register(self, kind: str, name: str, payload: Payload, **context: Any) -> dict[str, Any]:
        """Keep a plugin and bring it to who is there; where it fails on one, it is taken back from all."""
        book = self._book(kind)
        self._count += 1
        stamp = f"{self.scheduler.id}/{self._count}"
        book[name] = [stamp, payload]
        arguments = {"name": name, "stamp": stamp, "payload": payload}
        answers: dict[str, Any] = await self._spread("plugin_add", kind, arguments)
        # One that left meanwhile needs it no more.
        there = {worker.address for worker in self.scheduler.machine.ledger.workers.values()}
        answers = {address: answer for address, answer in answers.items() if answer[0] or address in there}
        if any(not answer[0] or not answer[1][0] for answer in answers.values()):
            if book.get(name, [""])[0] == stamp:
                del book[name]
            await self._spread("plugin_remove", kind, {"name": name})
        return answers

    async def _handle_unregister(self, kind: str, name: str, **context: Any) -> dict[str, Any]:
        book = self._book(kind)
        if book.pop(name, None) is None:
            known = ", ".join(book) or "none"
            raise UsageError(f"no {kind} plugin is named {name}; there are {known}")
        answers: dict[str, Any] = await self._spread("plugin_remove", kind, {"name": name})
        return answers

    async def _handle_plugins(self, kind: str, names: list[str] | None = None, **context: Any) -> list[Any]:
        """Return `[name, stamp, payload]` of the plugins that a worker or nanny does not have yet."""
        book = self._book(kind)
        return [[name, *each] for name, each in book.items() if names is None or name in names]

    # --- the scheduler's own ----------------------------------------------------------------------

    async def _handle_register_own(self, path: str, name: str | None = None, **context: Any) -> str:
        found = self.scheduler.preloads.find(path)
        try:
            plugin = found()
            chosen = str(name or getattr(plugin, "name", None) or path)
            if chosen in self.own:
                await self._end(chosen)
            await _done(getattr(plugin, "start", _nothing)(self.scheduler))
        except EngineError:
            raise
        except Exception as error:
            raise RemoteError(f"the plugin {path} did not start: {type(error).__name__}: {error}") from error
        self.add(plugin, chosen)
        return chosen

    def add(self, plugin: Any, name: str) -> None:
        """Take a plugin of the scheduler's own in, without calling its `start`."""
        self.own[name] = plugin
        self._watch()

    async def _handle_unregister_own(self, name: str, **context: Any) -> str:
        if name not in self.own:
            raise UsageError(f"no scheduler plugin is named {name}; there are {', '.join(self.own) or 'none'}")
        await self._end(name)
        return "OK"

    async def _end(self, name: str) -> None:
        plugin = self.own.pop(name)
        self._watch()
        try:
            await asyncio.wait_for(_done(getattr(plugin, "close", _nothing)()), CLOSE_TIMEOUT_S)
        except Exception:
            logger.exception("%s: the plugin %s failed to close", self.scheduler.id, name)

    def _tell(self, hook: str, who: str) -> None:
        for name, plugin in list(self.own.items()):
            try:
                value = getattr(plugin, hook, _nothing)(self.scheduler, who)
                if inspect.isawaitable(value):
                    self.scheduler.background(_logged(f"the plugin {name} failed in {hook}", value))
            except Exception:
                logger.exception("%s: the plugin %s failed in %s", self.scheduler.id, name, hook)

    def joined(self, peer: int, role: str) -> None:
        ledger = self.scheduler.machine.ledger
        worker, client = ledger.workers.get(peer), ledger.clients.get(peer)
        who = worker.address if worker is not None else client.name if client is not None else ""
        self._peers[peer] = (role, who)
        if self.own:
            self._tell(f"add_{role}", who)

    def left(self, peer: int, role: str) -> None:
        _, who = self._peers.pop(peer, (role, ""))
        if self.own:
            self._tell(f"remove_{role}", who)

    async def closing(self) -> None:
        for name in list(self.own):
            await self._end(name)

    # --- transitions ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Stand between the ledger and its moves while a plugin wants to see them, and only then."""
        from distributed_core.plugins import SchedulerPlugin

        ledger = self.scheduler.machine.ledger
        self._watchers = [
            plugin.transition
            for plugin in self.own.values()
            if getattr(type(plugin), "transition", SchedulerPlugin.transition) is not SchedulerPlugin.transition
        ]
        if not self._watchers:
            ledger.__dict__.pop("move", None)
        elif "move" not in ledger.__dict__:
            move = ledger.move

            def watched(task: Task, new: TaskState) -> None:
                start, key = _word(task.state), task_name(task)
                move(task, new)
                for watcher in self._watchers:
                    try:
                        watcher(key, start, _word(new))
                    except Exception:
                        logger.exception("%s: a plugin failed in transition", self.scheduler.id)

            ledger.move = watched  # type: ignore[method-assign]

    # --- functions of the operator's modules ------------------------------------------------------

    async def _handle_run_on_scheduler(
        self, path: str, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None, **context: Any
    ) -> Any:
        function = self.scheduler.preloads.find(path)
        named = dict(kwargs or {})
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            parameters = {}  # type: ignore[assignment]
        for name in ("scheduler", "dask_scheduler"):
            if name in parameters:
                named[name] = self.scheduler
        try:
            value = await _done(function(*(args or ()), **named))
        except Exception as error:
            raise RemoteError(f"{path} raised {type(error).__name__}: {error}") from error
        try:
            encode([value])
        except EngineError:
            text = f"{path} returned {type(value).__name__}, and only plain data leaves the scheduler"
            raise UsageError(f"{text}: numbers, text, bytes, lists and dicts") from None
        return value


def _word(state: TaskState) -> str:
    name = type(state).__name__
    return _WORDS.get(name, name.lower())


def _nothing(*args: Any) -> None:
    return None


async def _done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _logged(text: str, work: Any) -> None:
    try:
        await work
    except Exception:
        logger.exception("%s", text)
