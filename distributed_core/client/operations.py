"""What a client asks of the cluster as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed_core.client.lives import LifeCalls
from distributed_core.client.options import worker_names
from distributed_core.client.plugging import PluginCalls
from distributed_core.client.questions import QuestionCalls
from distributed_core.client.reasons import ReasonCalls


class ClusterCalls(PluginCalls, LifeCalls, QuestionCalls, ReasonCalls):
    """What a client asks of the cluster as a whole."""

    def wait_for_workers(self, n_workers: int, timeout: float | None = None) -> Any:
        """Wait until at least `n_workers` workers are registered.

        Raises
        ------
        NotEnoughWorkers
            They were not after `timeout` seconds.
        """
        return self._answer(self._ask("wait_for_workers", n=n_workers, timeout=timeout))

    def retire_workers(
        self, workers: str | Iterable[str] | None = None, close_workers: bool = True, *, n: int | None = None
    ) -> Any:
        """Let workers leave without losing data: no new work, results copied to others, then the end.

        Parameters
        ----------
        workers
            Names, addresses or hosts; by default all.
        close_workers
            End their processes, and their nannies.
        n
            Instead of `workers`, so many of the idlest.

        Returns
        -------
        dict
            What they were, by address.

        Raises
        ------
        UsageError
            There is no such worker, or none that could take the data; then all stay.
        """
        self._check_open()
        names = None if workers is None else worker_names(workers)
        return self._answer(self._ask("retire_workers", workers=names, n=n, close=close_workers))
