"""Why is it not done? What a client asks when it wonders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from distributed_core.client.asking import Asking
from distributed_core.client.future import Future
from distributed_core.errors import UsageError


class ReasonCalls(Asking):
    """What a client asks when something takes longer than it thought."""

    def explain(self, key: str | Future) -> Any:
        """Say in a sentence or two why a task is where it is, or why it waits.

        Parameters
        ----------
        key
            The future, or the task's name.
        """
        self._check_open()
        return self._answer(self._ask("explain", key=_name(key)))

    def story(self, *keys: str | Future) -> Any:
        """Return what became of tasks, as far back as the scheduler remembers.

        Returns
        -------
        dict
            By name, a list of (seconds ago, as a negative number; what the task became; the worker's address or "").
        """
        self._check_open()
        return self._answer(self._story([_name(key) for key in keys]))

    async def _story(self, keys: list[str]) -> dict[str, list[tuple[Any, ...]]]:
        found = await self._ask("story", keys=keys)
        return {key: [tuple(line) for line in lines] for key, lines in found.items()}

    def dump_state(self, filename: str | os.PathLike[str]) -> Any:
        """Write everything that scheduler and workers believe to a JSON file, for whoever looks for a fault.

        No code and no data of the user's is in it, but the names of tasks and workers are.

        Parameters
        ----------
        filename
            Where to; with `.gz` at its end it is compressed.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        self._check_open()
        return self._answer(self._dump_state(Path(filename)))

    dump_cluster_state = dump_state

    async def _dump_state(self, path: Path) -> None:
        text = json.dumps(await self._ask("dump_state"), indent=1, default=str).encode()
        if path.suffix == ".gz":
            import gzip

            text = gzip.compress(text)
        path.write_bytes(text)


def _name(key: Any) -> str:
    if isinstance(key, Future):
        return key.key
    if not isinstance(key, str):
        raise UsageError(f"explain and story take a future or the name of a task, not {type(key).__name__}")
    return key
