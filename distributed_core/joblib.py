"""A backend for joblib: importing this registers it under the name `distributed_core`.

    import joblib, distributed_core.joblib
    with joblib.parallel_config(backend="distributed_core"):
        joblib.Parallel()(joblib.delayed(f)(x) for x in xs)

scikit-learn's `n_jobs` and everything else that is built on joblib then runs on the cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase, SequentialBackend
from joblib.parallel import register_parallel_backend

from distributed_core.client.client import Client, get_client
from distributed_core.context import context
from distributed_core.errors import UsageError

NAME = "distributed_core"
#: Parallel calls in tasks in parallel calls ... deeper ones run one after the other.
NESTING_MAX = 3


class ClusterBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches as tasks.

    Parameters
    ----------
    client
        By default `get_client()`: the client that was opened last, or inside a task the worker's own.
    scatter
        Large arguments that many calls share: each is brought to all workers once.
    options
        As for `Client.get_executor`.
    """

    supports_retrieve_callback = True
    uses_threads = False
    supports_sharedmem = False
    supports_inner_max_num_threads = False
    default_n_jobs = -1

    def __init__(
        self,
        client: Client | None = None,
        scatter: Iterable[Any] | None = None,
        nesting_level: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level)
        if scatter is not None and (isinstance(scatter, dict | str | bytes) or not isinstance(scatter, Iterable)):
            raise UsageError(
                f"scatter is a list of the arguments to bring to the workers, not {type(scatter).__name__}"
            )
        self._client = client
        self._options = options
        self._scatter = list(scatter or ())
        self._scattered: dict[int, Any] = {}
        self._pending: dict[Any, None] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        # It travels with each batch, for what that calls in parallel; there the client is the worker's.
        return _inner_backend, (self.nesting_level, self._options)

    @property
    def client(self) -> Client:
        """The client, once one is needed."""
        if self._client is None:
            self._client = get_client()
        return self._client

    # --- what joblib calls ------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at once: the threads of the cluster, or fewer where fewer are asked for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        by_worker: dict[str, int] = self.client.nthreads()
        threads = max(1, sum(by_worker.values()))
        if n_jobs is None or n_jobs == -1:
            return threads
        return max(1, threads + 1 + n_jobs) if n_jobs < 0 else min(n_jobs, threads)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **kwargs: Any) -> int:
        self.parallel = parallel
        if self._scatter:
            futures = self.client.scatter(self._scatter, broadcast=True)
            self._scattered = {id(value): future for value, future in zip(self._scatter, futures, strict=True)}
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        # joblib polls; a task that waits so must not keep its seat from the tasks that it waits for.
        if context.run:
            context.threads.secede()

    def stop_call(self) -> None:
        if context.run:
            context.threads.rejoin()

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Any:
        """Run a batch; `callback` gets its future when it is done."""
        if self._scattered:
            func.items = [self._with_references(*item) for item in func.items]
        future = self.client._submit_call(_run_batch, (func,), {}, **self._options)
        with self._lock:
            self._pending[future] = None

        def done(ended: Any) -> None:
            with self._lock:
                self._pending.pop(ended, None)
            if callback is not None and not ended.cancelled():
                callback(ended)

        future.add_done_callback(done)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out: Any) -> Any:
        return out.result()

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        return out.result(timeout)

    def terminate(self) -> None:
        self._scattered = {}
        super().terminate()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Take back what is under way; one of the calls failed."""
        with self._lock:
            pending, self._pending = list(self._pending), {}
        self.client.cancel(pending)
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return the backend for parallel calls inside the tasks."""
        level = (self.nesting_level or 0) + 1
        if level >= NESTING_MAX:
            return SequentialBackend(nesting_level=level), None
        return ClusterBackend(nesting_level=level, **self._options), -1

    # --- inside -----------------------------------------------------------------------------------

    def _with_references(self, function: Any, args: Any, kwargs: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        found = self._scattered
        return (
            function,
            tuple(found.get(id(value), value) for value in args),
            {name: found.get(id(value), value) for name, value in kwargs.items()},
        )


def _inner_backend(nesting_level: int | None, options: dict[str, Any]) -> ClusterBackend:
    return ClusterBackend(nesting_level=nesting_level, **options)


def _run_batch(batch: Any) -> Any:
    """Run a batch of joblib's. A function of ours, so that all batches count as one when durations are learned."""
    return batch()


register_parallel_backend(NAME, ClusterBackend)
