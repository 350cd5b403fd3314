"""Collections of dask on a client: computed, persisted, and their futures found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from distributed_core.client import cells as states
from distributed_core.client.cells import Cell
from distributed_core.client.connected import chosen
from distributed_core.client.future import Future, future_of
from distributed_core.client.options import annotations_here
from distributed_core.client.tasks import TaskCalls
from distributed_core.errors import UsageError
from distributed_core.protocol import payload as payloads

_OPTIONS = ("workers", "allow_other_workers", "resources", "retries", "priority", "actor", "timeout")


class GraphCalls(TaskCalls):
    """What a client does with collections of dask: arrays, dataframes, bags, delayed calls."""

    def get(
        self,
        dsk: Any,
        keys: Any,
        workers: str | Iterable[str] | None = None,
        allow_other_workers: bool | None = None,
        resources: Mapping[str, float] | None = None,
        sync: bool = True,
        asynchronous: bool | None = None,
        direct: bool | None = None,
        retries: int | None = None,
        priority: int = 0,
        fifo_timeout: Any = None,
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Run a graph of dask; dask calls this itself where `scheduler=client` is given.

        Parameters
        ----------
        dsk
            A graph (keys and tasks), or an expression of dask.
        keys
            A key, or a list of keys, at any depth.
        workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors
            As for `submit`, for each task that is not annotated otherwise.
        sync
            Return results; else futures, at once.
        asynchronous, direct
            Accepted and ignored: the client's own are used.
        kwargs
            Accepted and ignored: what dask hands to every scheduler.

        Returns
        -------
        The results (or futures) in the nesting of `keys`; with an asynchronous client, a coroutine of the results.

        Raises
        ------
        Exception
            What a task raised, with its own traceback.
        UsageError
            The graph has a circle, a key that is none, or a shuffle that needs another engine.
        NotSerializable
            A task cannot be sent.
        """
        self._check_open()
        from dask.core import flatten

        nested = isinstance(keys, list)
        flat = list(flatten([keys]))
        said = _said(workers, allow_other_workers, resources, retries, priority, actors, kwargs)
        cells = self._submit_graph(dsk, flat, said)
        if not sync:
            return _nested(keys, {key: future_of(self, cell) for key, cell in cells.items()})
        return self._answer(self._results(cells, keys if nested else flat[0]))

    def compute(
        self,
        collections: Any,
        sync: bool = False,
        optimize_graph: bool = True,
        workers: str | Iterable[str] | None = None,
        allow_other_workers: bool = False,
        resources: Mapping[str, float] | None = None,
        retries: int = 0,
        priority: int = 0,
        fifo_timeout: Any = None,
        actors: Any = None,
        traverse: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Compute collections of dask; return a future for each, whose result is the whole collection.

        Parameters
        ----------
        collections
            One collection, or a list of them; what is no collection is returned as it is.
        sync
            Return results instead of futures.
        optimize_graph
            Let dask optimize the graph first.
        workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors
            As for `submit`, for each task that is not annotated otherwise.
        traverse
            Look for collections inside lists, tuples, sets and dicts.
        kwargs
            Accepted and ignored.

        Raises
        ------
        UsageError, NotSerializable
            As for `get`.
        """
        self._check_open()
        from distributed_core.client import collecting

        single = not isinstance(collections, list | tuple | set | frozenset)
        given = [collections] if single else list(collections)
        if traverse:
            given = collecting.traversed(given)
        said = _said(workers, allow_other_workers, resources, retries, priority, actors, kwargs)
        found = collecting.found(given)
        made: dict[int, Future] = {}
        if found:
            expression, keys = collecting.finalized(found, optimize_graph)
            cells = self._submit_graph(expression, keys, said)
            futures = {key: future_of(self, cell) for key, cell in cells.items()}
            made = {id(each): futures[key] for each, key in zip(found, keys, strict=True)}
        results: list[Any] = [made.get(id(each), each) for each in given]
        if sync:
            return self._answer(self._gathered(results, single))
        return results[0] if single else results

    def persist(
        self,
        collections: Any,
        optimize_graph: bool = True,
        workers: str | Iterable[str] | None = None,
        allow_other_workers: bool | None = None,
        resources: Mapping[str, float] | None = None,
        retries: int | None = None,
        priority: int = 0,
        fifo_timeout: Any = None,
        actors: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Start computing collections of dask on the cluster; return them anew, made of the futures of their parts.

        Parameters
        ----------
        collections
            One collection or a list of them.
        optimize_graph, workers, allow_other_workers, resources, retries, priority, fifo_timeout, actors, kwargs
            As for `compute`.

        Raises
        ------
        UsageError, NotSerializable
            As for `get`; something is no collection.
        """
        self._check_open()
        from dask.core import flatten

        from distributed_core.client import collecting

        single = not isinstance(collections, list | tuple | set | frozenset)
        given = [collections] if single else list(collections)
        others = [each for each in given if not collecting.is_collection(each)]
        if others:
            raise UsageError(f"persist takes collections of dask, not {type(others[0]).__name__}; scatter other data")
        said = _said(workers, allow_other_workers, resources, retries, priority, actors, kwargs)
        if not given:
            return []
        expression, parts = collecting.optimized(given, optimize_graph)
        keys = list(flatten([keys for _, keys in parts]))
        cells = self._submit_graph(expression, keys, said)
        futures = {key: future_of(self, cell) for key, cell in cells.items()}
        results = [
            collecting.rebuilt(each, part, keys, futures) for each, (part, keys) in zip(given, parts, strict=True)
        ]
        return results[0] if single else results

    def normalize_collection(self, collection: Any) -> Any:
        """Return the collection with those of its tasks that this client has futures of replaced by these.

        Raises
        ------
        UsageError
            It is no collection of dask.
        """
        from distributed_core.client import collecting

        return collecting.normalized(self, collection)

    def futures_of(self, futures: Any) -> list[Future]:
        """Return the futures inside collections; see `distributed_core.futures_of`."""
        return futures_of(futures, client=self)

    @contextmanager
    def as_current(self) -> Iterator[GraphCalls]:
        """Within it, `Client.current()` is this client, and dask computes here by default.

        Dataframes and bags are shuffled by tasks there, since the default of dask needs a disk that all workers share.
        """
        token = chosen.set(self)
        try:
            with self._dask_here():
                yield self
        finally:
            chosen.reset(token)

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphCalls:
        """Return the client itself: a copy of dask's configuration, whose scheduler it is, has the same scheduler."""
        return self

    # --- inside -----------------------------------------------------------------------------------

    def _dask_here(self) -> Any:
        """Return the context in which dask, where it is installed, computes here."""
        try:
            import dask.config
        except ImportError:
            return nullcontext()
        # An asynchronous client cannot be asked for results: dask keeps its own scheduler beside it.
        scheduler = {} if self.asynchronous else {"scheduler": self}
        tasks = {"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}
        return dask.config.set({**tasks, **scheduler})

    def _submit_graph(self, dsk: Any, keys: list[Any], said: dict[str, Any]) -> dict[Any, Cell]:
        """Submit what `keys` need; return their cells, each counted once for the caller."""
        from distributed_core.client import collecting
        from distributed_core.client.annotating import Annotations
        from distributed_core.client.submitting import GraphSubmission

        dsk, renamed = collecting.without_disk(dsk, keys)
        graph, futures = collecting.materialized(dsk)
        annotations = Annotations(dsk, {**annotations_here(), **said})
        submission = GraphSubmission(self, graph, futures, annotations.options)
        cells = submission.send(dict.fromkeys(renamed.values()))
        counted = {key: cells[end] for key, end in renamed.items()}
        with self._session.cells.lock:
            for cell in counted.values():
                cell.refs += 1
        for cell in cells.values():
            self._session.release(cell)
        return counted

    async def _results(self, cells: dict[Any, Cell], keys: Any) -> Any:
        """Return the results of cells, that are released then; fail as soon as one of them fails."""
        session = self._session
        distinct = list({id(cell): cell for cell in cells.values()}.values())
        try:
            await self._until_failure(distinct)
            while True:
                failed = next((cell for cell in distinct if cell.status not in (states.PENDING, states.FINISHED)), None)
                if failed is not None:
                    raise failed.exception()
                payload_of = await session.bulk.fetch(distinct)
                if len(payload_of) == len(distinct):
                    break
                await session.settled(distinct)
            values: dict[Any, Any] = {}
            for key, cell in cells.items():
                frames = payload_of[cell.number]
                if isinstance(frames, BaseException):
                    raise frames
                values[key] = payloads.loads(frames)
            return _nested(keys, values)
        finally:
            for cell in cells.values():
                session.release(cell)

    async def _until_failure(self, cells: list[Cell]) -> None:
        """Return when all cells are done, or one of them has failed."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        left = len(cells)

        def look(cell: Cell) -> None:
            nonlocal left
            left -= 1
            if not left or cell.status != states.FINISHED:
                over.set()

        watched = []
        for cell in cells:

            def wake(cell: Cell = cell) -> None:
                loop.call_soon_threadsafe(look, cell)

            if self._session.cells.watch(cell, wake):
                watched.append((cell, wake))
            else:
                look(cell)
        try:
            if cells:
                await over.wait()
        finally:
            for cell, wake in watched:
                self._session.cells.unwatch(cell, wake)

    async def _gathered(self, results: list[Any], single: bool) -> Any:
        values = await self._gather(results, "raise")
        return values[0] if single else values


def futures_of(o: Any, client: Any = None) -> list[Future]:
    """Return the futures inside a collection of dask, or inside lists, tuples, sets and dicts of such.

    Parameters
    ----------
    client
        Whose futures they have to be.

    Raises
    ------
    TaskCancelled
        With `client`: one of them was cancelled.
    """
    from distributed_core.client import collecting

    found = collecting.futures_in(o)
    if client is not None:
        for future in found:
            if future.cancelled():
                raise future._cell.exception()
    return found


def _said(
    workers: Any, allow_other_workers: Any, resources: Any, retries: Any, priority: Any, actors: Any, others: Any
) -> dict[str, Any]:
    """Return what the caller says of all tasks, without what is left at its default."""
    if isinstance(actors, Mapping):
        raise UsageError("actors is True or False for all tasks; annotate the calls that should be actors")
    values = (workers, allow_other_workers, resources, retries, priority, actors, others.get("timeout"))
    return {name: value for name, value in zip(_OPTIONS, values, strict=True) if value}


def _nested(keys: Any, values: dict[Any, Any]) -> Any:
    """Return `values` in the nesting of lists that `keys` have."""
    if isinstance(keys, list):
        return [_nested(each, values) for each in keys]
    return values[keys]
