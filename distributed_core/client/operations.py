"""What a client asks of the cluster as a whole."""

from __future__ import annotations

from typing import Any

from distributed_core.client.lives import LifeCalls
from distributed_core.client.plugging import PluginCalls
from distributed_core.client.questions import QuestionCalls


class ClusterCalls(PluginCalls, LifeCalls, QuestionCalls):
    """What a client asks of the cluster as a whole."""

    def wait_for_workers(self, n: int, timeout: float | None = None) -> Any:
        """Wait until at least `n` workers are registered.

        Raises
        ------
        NotEnoughWorkers
            They were not after `timeout` seconds.
        """
        return self._answer(self._ask("wait_for_workers", n=n, timeout=timeout))
