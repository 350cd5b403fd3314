"""What accompanies a worker's tasks: plugins, functions that run on it as such, preloaded modules, its lifetime."""

from __future__ import annotations

import linecache
import logging
import os
import random
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed_core import messages
from distributed_core.comm.channel import open_channel
from distributed_core.errors import ConnectionLost, EngineError, UsageError
from distributed_core.messages import Payload
from distributed_core.servers import executor
from distributed_core.servers.errands import Guests, Outcome, aside, run_errand
from distributed_core.servers.preloads import Preloads
from distributed_core.versions import differences, own_versions

if TYPE_CHECKING:
    from distributed_core.servers.worker import Worker

logger = logging.getLogger(__name__)

RETIRE_TIMEOUT_S = 60.0
FRAMES_MAX = 100


class Attendance:
    """The company of one worker.

    Parameters
    ----------
    preload, lifetime_s, lifetime_stagger_s, lifetime_restart
        As for `Worker`.
    """

    def __init__(
        self,
        worker: Worker,
        preload: Iterable[str],
        lifetime_s: float,
        lifetime_stagger_s: float,
        lifetime_restart: bool,
    ) -> None:
        if lifetime_stagger_s > lifetime_s:
            raise UsageError("the stagger is longer than the lifetime; make it shorter")
        for name, value in (("lifetime_s", lifetime_s), ("lifetime_stagger_s", lifetime_stagger_s)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name} is a number of seconds from 0 on, not {value!r:.40}")
        self._worker = worker
        # Before the worker changes to its own folder.
        self._preload = [os.path.abspath(each) if each.endswith(".py") else each for each in preload]
        self._preloads: Preloads | None = None
        self._lifetime_s = lifetime_s + random.uniform(-lifetime_stagger_s, lifetime_stagger_s) if lifetime_s else 0.0
        self._lifetime_restart = lifetime_restart
        self.guests = Guests(worker)
        #: The `transition` of the plugins that have one.
        self.watchers: list[Any] = []
        self._moves: deque[tuple[int, str, str, str]] = deque()
        self._telling = False
        self.handlers: dict[str, Callable[..., Awaitable[Any]]] = {
            "run": self._handle_run,
            "call_stack": self._handle_call_stack,
            "plugin_add": self._handle_plugin_add,
            "plugin_remove": self._handle_plugin_remove,
        }

    # --- life -------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Import what is preloaded, and start the clock.

        Raises
        ------
        UsageError
            A preloaded module cannot be imported, or its `setup` raised.
        """
        if self._preload:
            self._preloads = Preloads(self._preload)
            await self._preloads.set_up(self._worker)
        if self._lifetime_s:
            self._worker.loop.call_later(self._lifetime_s, self._end_lifetime)

    def _end_lifetime(self) -> None:
        if self._worker.exit_code is None:
            self._worker.background(self._retire())

    async def _retire(self) -> None:
        """Let others take over what this worker holds, then close."""
        worker = self._worker
        logger.warning("%s: its lifetime of %.0f s is over", worker.id, self._lifetime_s)
        worker.restart_wanted = self._lifetime_restart
        if worker.scheduler is not None:
            wish = {"workers": [worker.address], "close": not self._lifetime_restart}
            try:
                await worker.scheduler.call("retire_workers", wish, RETIRE_TIMEOUT_S)
            except (EngineError, TimeoutError) as error:
                logger.warning("%s closes without having handed over its data: %s", worker.id, error)
        await worker.close()

    async def close(self) -> None:
        """Tear down what came along."""
        await self.guests.close()
        if self._preloads is not None:
            await self._preloads.tear_down(self._worker)

    # --- newcomers --------------------------------------------------------------------------------

    def must_catch_up(self, welcome: messages.Welcome) -> bool:
        """Tell whether plugins must be set up, or taken down, before the first task."""
        return bool(welcome.details.get("plugins", {}).get("worker")) or bool(self.guests.plugins)

    async def catch_up(self, welcome: messages.Welcome) -> None:
        """Have the plugins that the scheduler's others have."""
        await self.guests.forget_others(welcome.id)
        missing = self.guests.missing(welcome.details.get("plugins", {}).get("worker", {}))
        if missing:
            worker = self._worker
            # Not over the worker's own connection: nobody reads its replies while its tasks wait for the plugins.
            channel, _ = await open_channel(worker.scheduler_address, worker.credential, "rpc")
            channel.read_replies()
            try:
                await self.guests.take(await channel.call("plugins", {"kind": "worker", "names": missing}))
            finally:
                await channel.close()
        self._note_watchers()

    def compare_versions(self, welcome: messages.Welcome) -> None:
        """Log how the versions at the scheduler differ from those here."""
        theirs = welcome.details.get("versions")
        if isinstance(theirs, dict):
            for text in differences(own_versions(), [("the scheduler", theirs, False)]):
                logger.warning("%s: versions differ: %s", self._worker.id, text)

    # --- handlers ---------------------------------------------------------------------------------

    async def _handle_run(self, body: bytes, payload: Payload, wait: bool = True, **context: Any) -> Outcome:
        return await run_errand(self._worker, body, payload, wait)

    async def _handle_plugin_add(self, name: str, stamp: str, payload: Payload, **context: Any) -> Outcome:
        outcome = await self.guests.add(name, stamp, payload)
        self._note_watchers()
        return outcome

    async def _handle_plugin_remove(self, name: str, **context: Any) -> Outcome:
        outcome = await self.guests.remove(name)
        self._note_watchers()
        return outcome

    async def _handle_call_stack(self, **context: Any) -> list[list[Any]]:
        """Return `[task, function's name, frames]` of each thread that runs a task; the outermost frame first."""
        frames = sys._current_frames()
        running = self._worker.running()
        return [
            [work.task, work.body.name, described(frames[thread])]
            for thread, work in running.items()
            if thread in frames
        ]

    # --- transitions ------------------------------------------------------------------------------

    def _note_watchers(self) -> None:
        plugins = self.guests.plugins.values()
        self.watchers = [each.transition for each in plugins if callable(getattr(each, "transition", None))]

    def moved(self, task: int, name: str, start: str, finish: str) -> None:
        """A task changed its state; plugins hear of it later, since its key must be asked for."""
        self._moves.append((task, name, start, finish))
        if not self._telling:
            self._telling = True
            self._worker.background(self._tell())

    async def _tell(self) -> None:
        try:
            while self._moves:
                moves = list(self._moves)
                self._moves.clear()
                names = await self._names(list({move[0]: None for move in moves}))
                watchers = self.watchers
                told = [(names.get(task) or f"{name}-task-{task}", *move) for task, name, *move in moves]
                await aside(self._worker, partial(_tell_all, watchers, told))
        finally:
            self._telling = False

    async def _names(self, tasks: list[int]) -> dict[int, str]:
        try:
            if self._worker.scheduler is not None:
                return dict(await self._worker.scheduler.call("task_names", {"numbers": tasks}))
        except ConnectionLost:
            pass
        return {}


def _tell_all(watchers: list[Any], moves: list[Any]) -> None:
    for key, start, finish in moves:
        for watcher in watchers:
            try:
                watcher(key, start, finish)
            except Exception:
                logger.exception("a plugin failed in transition")


def described(frame: Any) -> list[str]:
    """Return the user's frames of a thread as text, the outermost first."""
    stack = []
    for each, line in traceback.walk_stack(frame):
        code = each.f_code
        if code.co_filename == executor.__file__:
            break
        source = linecache.getline(code.co_filename, line, each.f_globals).strip()
        stack.append(f'File "{code.co_filename}", line {line}, in {code.co_name}' + (f"\n\t{source}" if source else ""))
    return stack[FRAMES_MAX::-1] if len(stack) > FRAMES_MAX else stack[::-1]
