"""What a caller may say about a task beside its function and arguments, checked before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from distributed_core.errors import UsageError

ANNOTATIONS = ("priority", "retries", "resources", "workers", "allow_other_workers", "timeout")


def task_options(
    workers: str | Iterable[str] | None = None,
    allow_other_workers: bool = False,
    retries: int | None = None,
    resources: Mapping[str, float] | None = None,
    timeout: float | None = None,
    actor: bool = False,
) -> dict[str, Any] | None:
    """Return the options of a task as they travel, or None where there are none.

    Raises
    ------
    UsageError
        One of them makes no sense; the sentence says which.
    """
    made: dict[str, Any] = {}
    if workers is not None:
        made["workers"] = worker_names(workers)
        if allow_other_workers:
            made["loose"] = True
    elif allow_other_workers:
        raise UsageError("allow_other_workers says nothing without workers; name the workers that you prefer")
    if retries:
        if not isinstance(retries, int) or retries < 0:
            raise UsageError(f"retries is a count from 0 on, not {retries!r:.60}")
        made["retries"] = retries
    if resources:
        made["resources"] = resource_amounts(resources)
    if timeout is not None:
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise UsageError(f"timeout is a number of seconds above 0, not {timeout!r:.60}")
        made["timeout_s"] = float(timeout)
    if actor:
        made["actor"] = True
    return made or None


def worker_names(workers: Any) -> list[str]:
    """Return names, addresses or hosts of workers as a list.

    Raises
    ------
    UsageError
        They are no such thing, or there are none.
    """
    names = [workers] if isinstance(workers, str | int) else list(workers) if isinstance(workers, Iterable) else None
    if not names or not all(isinstance(name, str | int) and name != "" for name in names):
        raise UsageError(f"workers is the name, address or host of a worker or a list of such, not {workers!r:.80}")
    return [str(name).removeprefix("tcp://").removeprefix("tls://") for name in names]


def resource_amounts(resources: Any) -> dict[str, float]:
    """Return amounts of abstract resources by name.

    Raises
    ------
    UsageError
        They are no such thing.
    """
    well = isinstance(resources, Mapping) and all(
        isinstance(name, str) and name and type(amount) in (int, float) and 0 <= amount < float("inf")
        for name, amount in resources.items()
    )
    if not well:
        raise UsageError(f"resources are names with amounts from 0 on, such as {{'GPU': 1}}, not {resources!r:.80}")
    return {name: float(amount) for name, amount in resources.items() if amount}


def annotations_here() -> dict[str, Any]:
    """Return what `with dask.annotate(...)` says around the caller; dask need not be there."""
    dask = sys.modules.get("dask")
    found = dask.get_annotations() if dask is not None and hasattr(dask, "get_annotations") else {}
    return {name: value for name, value in found.items() if name in ANNOTATIONS}
