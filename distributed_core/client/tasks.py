"""Tasks of a client: submitted, gathered, taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from distributed_core.client import cells as states
from distributed_core.client import waiting
from distributed_core.client.cells import Cell
from distributed_core.client.connected import Connected
from distributed_core.client.executing import ClientExecutor
from distributed_core.client.freshness import record
from distributed_core.client.future import Future, content_key, flat_futures, future_of
from distributed_core.client.options import annotations_here, task_options
from distributed_core.errors import UsageError
from distributed_core.machines.client.machine import CHUNK_TASKS
from distributed_core.messages import Cancellation, Retrial, Wish
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.actors import make_actor
from distributed_core.protocol.functions import function_digest


class TaskCalls(Connected):
    """What a client does with tasks and their results."""

    def submit(
        self,
        func: Callable[..., Any],
        /,
        *args: Any,
        key: str | None = None,
        workers: str | Iterable[str] | None = None,
        resources: Mapping[str, float] | None = None,
        retries: int | None = None,
        priority: int = 0,
        fifo_timeout: Any = None,
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = False,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Future:
        """Run `func(*args, **kwargs)` on a worker; return its future at once.

        Where some 64 MB of tasks wait in this process for room at the scheduler, it waits until some have left.

        Parameters
        ----------
        key
            A name for the task. A task of that name that exists, of whatever client, is shared and not run again.
        workers
            Names, addresses or hosts of the workers that may run it; it waits until there is one.
        resources
            Amounts of the workers' abstract resources (`dworker --resources`) that it takes while it runs.
        retries
            How often it is run again after it raised.
        priority
            Larger runs earlier, among the tasks of this client.
        fifo_timeout
            Accepted and ignored: tasks of one priority run in the order of their submission.
        allow_other_workers
            Where none of `workers` is there, any will do.
        actor, actors
            The result stays where it was made, and its methods are called there; see `Actor`.
        pure
            Name the task after its function and arguments, so that the same call is run once.
        timeout
            Seconds that a run may take; then `TaskTimeout` is raised in it.

        Raises
        ------
        NotSerializable
            The function or an argument cannot be sent.
        UsageError
            An option makes no sense.
        ClientClosed
            The client was closed.
        """
        return self._submit_call(
            func,
            args,
            kwargs,
            key=key,
            workers=workers,
            resources=resources,
            retries=retries,
            priority=priority,
            allow_other_workers=allow_other_workers,
            actor=actor or actors,
            pure=pure,
            timeout=timeout,
        )

    def _submit_call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        key: str | None = None,
        pure: bool = False,
        priority: int = 0,
        workers: Any = None,
        allow_other_workers: bool = False,
        retries: int | None = None,
        resources: Any = None,
        timeout: float | None = None,
        actor: bool = False,
    ) -> Future:
        """Submit a call whose keyword arguments may have the names of options."""
        self._check_open()
        if actor:
            key = key or f"{getattr(func, '__name__', 'actor')}-actor-{uuid4().hex}"
            func, args = make_actor, (func, key, *args)
        options, priority = self._options(priority, workers, allow_other_workers, retries, resources, timeout, actor)
        digest, name, functions = self._function(func)
        frames, references = payloads.dumps_call(args, kwargs)
        if pure and key is None:
            key = content_key(name, digest, frames, references)
        return self._post([(key, name, digest, frames, references, priority, options)], functions)[0]

    def get_executor(self, **options: Any) -> ClientExecutor:
        """Return a `concurrent.futures.Executor` that runs what it is given on the cluster.

        Parameters
        ----------
        options
            `workers`, `resources`, `retries`, `priority`, `allow_other_workers`, `pure`, `timeout`, as for `submit`.
        """
        return ClientExecutor(self, **options)

    def map(
        self,
        func: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        key: str | Iterable[str] | None = None,
        workers: str | Iterable[str] | None = None,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        fifo_timeout: Any = None,
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = False,
        batch_size: int | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> list[Future]:
        """Run `func` on each element of the iterables, as `map` does; return the futures in order.

        Parameters
        ----------
        key
            A prefix for the names of the tasks, each gets its position after it; or a list of names.
        batch_size
            Accepted and ignored: tasks leave in batches of their own accord.
        workers, retries, resources, priority, fifo_timeout, allow_other_workers, actor, actors, pure, timeout, kwargs
            As for `submit`; the keyword arguments go to every call.
        """
        self._check_open()
        if not iterables:
            raise UsageError("map needs at least one iterable")
        if actor or actors:
            raise UsageError("map makes no actors; submit each with actor=True")
        options, priority = self._options(priority, workers, allow_other_workers, retries, resources, timeout, False)
        digest, name, functions = self._function(func)
        keys = None if key is None or isinstance(key, str) else list(key)
        futures: list[Future] = []
        chunk: list[Any] = []
        dumps = payloads.dumps_call
        for position, args in enumerate(zip(*iterables, strict=False)):
            frames, references = dumps(args, kwargs)
            own_key = None
            if keys is not None:
                if position == len(keys):
                    raise UsageError(f"map got {len(keys)} keys and more calls than that; give one for each")
                own_key = keys[position]
            elif key is not None:
                own_key = f"{key}-{position}"
            elif pure:
                own_key = content_key(name, digest, frames, references)
            chunk.append((own_key, name, digest, frames, references, priority, options))
            if len(chunk) == CHUNK_TASKS:
                futures += self._post(chunk, functions)
                chunk, functions = [], []
        futures += self._post(chunk, functions)
        return futures

    def _options(self, priority: int, *options: Any) -> tuple[dict[str, Any] | None, int]:
        """Return the options of a task and its priority; what `dask.annotate` says around the caller counts too."""
        around = annotations_here()
        if around:
            names = ("workers", "allow_other_workers", "retries", "resources", "timeout")
            given = dict(zip(names, options, strict=False))
            merged: dict[str, Any] = {name: given[name] or around.get(name) for name in names}
            merged["allow_other_workers"] = bool(merged["allow_other_workers"]) and merged["workers"] is not None
            made = task_options(**merged, actor=options[5])
            priority = priority or around.get("priority", 0)
        else:
            made = task_options(*options)
        if type(priority) is not int:
            raise UsageError(f"priority is a whole number, not {priority!r:.60}")
        return made, priority

    def _function(self, function: Callable[..., Any]) -> tuple[bytes, str, list[Any]]:
        """Return the digest and name of a function, and it itself where the scheduler does not have it yet."""
        if not callable(function):
            raise UsageError(f"submit needs something to call, not {type(function).__name__}")
        try:
            known = self._digests.get(function)
        except TypeError:
            known = None
        # What was dumped may never have left, where an argument of its call could not be sent.
        if known is not None and self._session.has_function(known[0]) and known[2].holds(function):
            return known[0], known[1], []
        body = payloads.dumps_function(function)
        digest = function_digest(body)
        name = getattr(function, "__name__", None) or type(function).__name__
        made = record(function)
        if made is not None:
            self._digests[function] = (digest, name, made)
        return digest, name, [[digest, name, body]]

    def _post(self, chunk: list[Any], functions: list[Any]) -> list[Future]:
        session = self._session
        session.wait_for_room()
        cells = session.cells
        tasks = []
        futures = []
        with cells.lock:
            functions = [each for each in functions if session.needs_function(each[0])]
            for key, name, digest, frames, references, priority, options in chunk:
                known = cells.by_key.get(key) if key is not None else None
                if known is not None and known.status in (states.PENDING, states.FINISHED, states.ERROR):
                    known.refs += 1
                    futures.append(future_of(self, known))
                    continue
                cell = cells.new(name, key)
                cell.refs = 1
                futures.append(future_of(self, cell))
                inputs = self._numbers(references) if references else ()
                tasks.append([cell.number, key, digest, frames, inputs, priority, options])
            if tasks or functions:
                session.post_tasks(functions, tasks)
        return futures

    def _adopt(self, key: str) -> Cell:
        """Return the cell of the task of that name, which another client may have made; the caller makes the future."""
        self._check_open()
        cells = self._session.cells
        with cells.lock:
            cell = cells.by_key.get(key) or cells.of_own_name(key, self.id)
            if cell is None:
                cell = cells.new(key, key)
                self._session.post(Wish([[cell.number, key]]))
            cell.refs += 1
        return cell

    def _numbers(self, references: list[Any]) -> list[int]:
        numbers = []
        for future in references:
            if future.client is not self:
                raise UsageError("a future of another client cannot be an argument; gather it first")
            numbers.append(future._cell.number)
        return numbers

    # --- results ----------------------------------------------------------------------------------

    def gather(self, futures: Any, errors: str = "raise", direct: bool | None = None) -> Any:
        """Wait for futures and return their results, in the same nesting of lists, tuples, sets and dicts.

        Parameters
        ----------
        errors
            `raise` the first exception, or `skip` failed futures in lists.
        direct
            Accepted for the sake of dask's signature; the client's own `direct` decides.
        """
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors is 'raise' or 'skip', not {errors!r}")
        if not isinstance(futures, Future | list | tuple | set | frozenset | dict) and isinstance(futures, Iterable):
            futures = list(futures)  # a generator, or a view of a dict
        return self._answer(self._gather(futures, errors))

    async def _gather(self, futures: Any, errors: str) -> Any:
        flat = flat_futures(futures)
        distinct = list({id(future._cell): future._cell for future in flat}.values())
        await self._session.settled(distinct)
        failed = {cell.number: cell for cell in distinct if cell.status != states.FINISHED}
        if failed and errors == "raise":
            raise next(iter(failed.values())).exception()
        payload_of = await self._session.bulk.fetch([cell for cell in distinct if cell.number not in failed])
        values: dict[int, Any] = {}
        for cell in distinct:
            if cell.number in payload_of:
                found = payload_of[cell.number]
                if isinstance(found, BaseException):
                    raise found
                values[cell.number] = found
            elif errors == "raise":
                raise cell.exception()
        gathered = _rebuild(futures, values)
        return None if gathered is _SKIP else gathered

    async def _result(self, cell: Cell, timeout: float | None) -> Any:
        await asyncio.wait_for(self._session.settled([cell]), timeout)
        while cell.status == states.FINISHED:
            found = (await self._session.bulk.fetch([cell])).get(cell.number)
            if isinstance(found, BaseException):
                raise found
            if found is not None:
                return payloads.loads(found)
            await self._session.settled([cell])
        raise cell.exception()

    def cancel(
        self,
        futures: Future | Iterable[Future],
        *,
        force: bool = False,
        reason: str | None = None,
        msg: str | None = None,
    ) -> Any:
        """Take tasks back, and what this client built on them; other clients' futures of the same keys go on.

        A run that goes on is interrupted: `TaskInterrupted` is raised in its thread. Where that does not end it within
        some seconds, its worker's nanny starts that process anew, and what else ran there runs again; without a nanny
        it goes on, and a warning says so.

        Parameters
        ----------
        force
            Take them from other clients too.
        reason, msg
            What those who wait are told.
        """
        self._check_open()
        chosen = flat_futures(futures)
        text = msg or reason or ""
        self._session.post(Cancellation([future._cell.number for future in chosen], force, text))
        for future in chosen:
            cell = future._cell
            if cell.status in (states.PENDING, states.FINISHED):
                cell.reason = ("TaskCancelled", text, None) if text else cell.reason
                self._session.cells.finish(cell, states.CANCELLED)
        return self._answer(_nothing())

    def retry(self, futures: Future | Iterable[Future]) -> Any:
        """Run failed tasks again, and with them what failed before them and what fell because of them."""
        self._check_open()
        chosen = flat_futures(futures)
        for future in chosen:
            if future._cell.status == states.ERROR:
                self._session.cells.reopen(future._cell)
        self._session.post(Retrial([future._cell.number for future in chosen]))
        return self._answer(_nothing())

    def wait_for_room(self) -> Any:
        """Wait while too much of what was submitted waits in this process; at an asynchronous client, to be awaited.

        `submit` and `map` of a blocking client wait by themselves, in a user's thread. On the loop they never do: who
        submits millions of tasks there awaits this now and then.
        """
        self._check_open()
        return self._answer(self._session.room())

    def fire_and_forget(self, futures: Any) -> None:
        """Let tasks run to their end although nobody holds their futures; see `distributed_core.fire_and_forget`."""
        self._check_open()
        self._session.vow([future._cell for future in flat_futures(futures)])

    def wait(self, futures: Iterable[Future], timeout: float | None = None, return_when: str = "ALL_COMPLETED") -> Any:
        """Wait for futures; see `distributed_core.wait`."""
        return waiting.wait(futures, timeout, return_when)

    def as_completed(self, futures: Iterable[Future], **options: Any) -> waiting.as_completed:
        """Iterate over futures as they are done; see `distributed_core.as_completed`."""
        return waiting.as_completed(futures, **options)


async def _nothing() -> None:
    return None


_SKIP = object()


def _rebuild(data: Any, values: dict[int, Any]) -> Any:
    if isinstance(data, Future):
        frames = values.get(data._cell.number)
        return _SKIP if frames is None else payloads.loads(frames)
    if isinstance(data, dict):
        made = {key: _rebuild(each, values) for key, each in data.items()}
        return {key: value for key, value in made.items() if value is not _SKIP}
    if isinstance(data, (list, tuple, set, frozenset)):
        rebuilt = [_rebuild(each, values) for each in data]
        if hasattr(data, "_fields"):
            return type(data)(*(None if each is _SKIP else each for each in rebuilt))  # type: ignore[arg-type]
        return type(data)([each for each in rebuilt if each is not _SKIP])
    return data
