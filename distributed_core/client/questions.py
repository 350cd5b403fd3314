"""What a client asks about tasks, data, versions and logs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from distributed_core.client.asking import Asking, names_of
from distributed_core.client.future import Future
from distributed_core.errors import UsageError, VersionMismatch
from distributed_core.files import scheduler_file_text, write_whole
from distributed_core.versions import differences, report


class QuestionCalls(Asking):
    """What a client asks about the cluster."""

    # --- who, where, how much ---------------------------------------------------------------------

    def scheduler_info(self) -> Any:
        """Return what the scheduler is and its workers by address, as plain data."""
        return self._answer(self._session.call("identity"))

    def who_has(self, futures: Any = None) -> Any:
        """Return the addresses of the workers that hold each task's data, by key; all tasks of all clients by default.

        A task that its client gave no key is named `FUNCTION-CLIENT-NUMBER`, like `Future.key`.
        """
        return self._answer(self._who_has(futures))

    async def _who_has(self, futures: Any) -> dict[str, tuple[str, ...]]:
        found = await self._ask("who_has", keys=None if futures is None else keys_of(futures))
        return {key: tuple(addresses) for key, addresses in found.items()}

    def has_what(self, workers: Any = None) -> Any:
        """Return the keys of the tasks whose data each worker holds, by worker address.

        Raises
        ------
        UsageError
            A worker of that name or address is not there.
        """
        return self._answer(self._by_worker("has_what", workers))

    def processing(self, workers: Any = None) -> Any:
        """Return the keys of the tasks that each worker was told to run, oldest first, by worker address."""
        return self._answer(self._by_worker("processing", workers))

    async def _by_worker(self, op: str, workers: Any) -> dict[str, tuple[str, ...]]:
        found = await self._ask(op, workers=None if workers is None else names_of(workers))
        return {address: tuple(keys) for address, keys in found.items()}

    def nthreads(self, workers: Any = None) -> Any:
        """Return how many tasks each worker runs at once, by worker address."""
        return self._answer(self._ask("nthreads", workers=None if workers is None else names_of(workers)))

    ncores = nthreads

    def nbytes(self, keys: Any = None, summary: bool = True) -> Any:
        """Return how many bytes the data of tasks takes.

        Parameters
        ----------
        keys
            Keys or futures; all tasks by default.
        summary
            Add up by the name of the function (`data` for scattered data), instead of by key.
        """
        chosen = None if keys is None else keys_of(keys)
        return self._answer(self._ask("nbytes", keys=chosen, summary=bool(summary)))

    def call_stack(self, futures: Any = None, keys: Any = None) -> Any:
        """Return what the threads of the workers are at: frames of text by key by worker address.

        Parameters
        ----------
        futures, keys
            Which tasks; by default all that run.
        """
        chosen = None
        if futures is not None or keys is not None:
            chosen = keys_of(futures if futures is not None else []) + keys_of(keys if keys is not None else [])
        return self._answer(self._call_stack(chosen))

    async def _call_stack(self, keys: list[str] | None) -> dict[str, dict[str, tuple[str, ...]]]:
        found = await self._ask("call_stack", keys=keys)
        return {address: {key: tuple(frames) for key, frames in stacks.items()} for address, stacks in found.items()}

    # --- versions ---------------------------------------------------------------------------------

    def get_versions(self, check: bool = False, packages: Iterable[str] | None = None) -> Any:
        """Return the versions of Python and of packages on the client, the scheduler and each worker.

        Parameters
        ----------
        check
            Raise where they do not fit together.
        packages
            Names of more packages to look for.

        Raises
        ------
        VersionMismatch
            With `check`: they do not fit together; the sentence names who has which.
        """
        names = [packages] if isinstance(packages, str) else list(packages or ())
        if not all(isinstance(name, str) and name for name in names):
            raise UsageError(f"packages are names of distributions, not {packages!r:.60}")
        return self._answer(self._get_versions(check, names))

    async def _get_versions(self, check: bool, names: list[str]) -> dict[str, Any]:
        found = {
            "client": report(names),
            "scheduler": await self._ask("versions", packages=names),
            "workers": await self._values("versions", {"packages": names}, None),
        }
        if check:
            others = [("the scheduler", found["scheduler"]["packages"], False)]
            others += [(address, each["packages"], True) for address, each in found["workers"].items()]
            problems = differences(found["client"]["packages"], others)
            if problems:
                raise VersionMismatch("versions differ: " + "; ".join(problems))
        return found

    # --- logs, and where the scheduler is ---------------------------------------------------------

    def get_scheduler_logs(self, n: int | None = None) -> Any:
        """Return the last `n` lines of the scheduler's log, oldest first, as (level, text) each.

        It keeps some thousand lines; None is all of them.
        """
        return self._answer(self._scheduler_logs(_lines(n)))

    async def _scheduler_logs(self, n: int | None) -> tuple[tuple[str, str], ...]:
        return _as_lines(await self._ask("logs", n=n))

    def get_worker_logs(self, n: int | None = None, workers: Any = None, nanny: bool = False) -> Any:
        """Return the last `n` lines of the logs of workers, or of their nannies, by worker address."""
        return self._answer(self._worker_logs(_lines(n), workers, nanny))

    async def _worker_logs(self, n: int | None, workers: Any, nanny: bool) -> dict[str, Any]:
        found = await self._values("logs", {"n": n}, workers, nanny=nanny)
        return {address: _as_lines(lines) for address, lines in found.items()}

    def get_nanny_logs(self, n: int | None = None, workers: Any = None) -> Any:
        """Return the last `n` lines of the logs of the workers' nannies, by worker address."""
        return self.get_worker_logs(n, workers, nanny=True)

    def write_scheduler_file(self, scheduler_file: str | os.PathLike[str]) -> Any:
        """Write where the scheduler is, for `Client(scheduler_file=...)` and `dworker --scheduler-file`.

        Raises
        ------
        UsageError
            The file cannot be written.
        """
        return self._answer(self._write_scheduler_file(os.fspath(scheduler_file)))

    async def _write_scheduler_file(self, path: str) -> None:
        identity = await self._ask("identity")
        held = self._session.credential
        write_whole(path, scheduler_file_text(identity, os.path.abspath(held.path) if held else None))

    @property
    def dashboard_link(self) -> str | None:
        """The address of the dashboard; None, since this release has none."""
        return None


def keys_of(futures: Any) -> list[str]:
    """Return the keys of futures, or keys as they are, at any depth in lists, tuples, sets and dicts.

    Raises
    ------
    UsageError
        There is something else among them.
    """
    if isinstance(futures, Future):
        return [futures.key]
    if isinstance(futures, str):
        return [futures]
    if isinstance(futures, dict):
        return [key for each in futures.values() for key in keys_of(each)]
    if isinstance(futures, list | tuple | set | frozenset):
        return [key for each in futures for key in keys_of(each)]
    raise UsageError(f"it takes futures or their keys, not {type(futures).__name__}")


def _lines(n: int | None) -> int | None:
    if n is not None and (type(n) is not int or n < 0):
        raise UsageError(f"n is a number of lines, or None for all, not {n!r:.40}")
    return n


def _as_lines(found: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((level, text) for level, text in found)
