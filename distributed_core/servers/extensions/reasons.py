"""Why a task is where it is, what became of it, and everything that is known, for whoever looks for a fault."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed_core.errors import EngineError
from distributed_core.machines.scheduler import reasons
from distributed_core.servers.extensions.base import Extension

if TYPE_CHECKING:
    from distributed_core.servers.scheduler import Scheduler

#: A worker that does not answer must not hold up a dump: it is often what one looks for.
ANSWER_TIMEOUT_S = 5.0


class Reasons(Extension):
    """`explain`, `story` and `dump_state`."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.handlers = {
            "explain": self._explain,
            "story": self._story,
            "dump_state": self._dump_state,
        }

    async def _explain(self, key: str, **context: Any) -> str:
        ledger = self.scheduler.machine.ledger
        ledger.now = self.scheduler.loop.time()
        return reasons.explain(ledger, key)

    async def _story(self, keys: list[str], **context: Any) -> dict[str, list[list[Any]]]:
        # Times as seconds ago: the clocks of two machines need not agree.
        now = self.scheduler.loop.time()
        ledger = self.scheduler.machine.ledger
        return {key: [[line[0] - now, *line[1:]] for line in reasons.story(ledger, key)] for key in keys}

    async def _dump_state(self, **context: Any) -> dict[str, Any]:
        ledger = self.scheduler.machine.ledger
        workers = list(ledger.workers.values())
        state = reasons.whole_state(ledger)
        recording = self.scheduler.recording
        if recording is not None:
            state["recording"] = recording.state()

        async def ask(address: str) -> Any:
            try:
                return await asyncio.wait_for(self.scheduler.call_server(address, "whole_state"), ANSWER_TIMEOUT_S)
            except (EngineError, OSError, TimeoutError) as error:
                return f"it did not answer: {type(error).__name__}: {error}"

        answers = await asyncio.gather(*(ask(worker.address) for worker in workers))
        return {
            "scheduler": {**self.scheduler.identity(), **state},
            "workers": {worker.address: answer for worker, answer in zip(workers, answers, strict=True)},
        }
