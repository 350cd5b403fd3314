"""What this client asks of dask about collections. Importing it imports dask."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import dask
from dask._expr import Expr, FinalizeCompute, HLGExpr
from dask._task_spec import GraphNode, Task, convert_legacy_graph
from dask.base import collections_to_expr
from dask.core import flatten
from dask.optimization import cull

from distributed_core.client import cells as states
from distributed_core.client.future import Future, future_of
from distributed_core.client.names import name_of
from distributed_core.errors import UsageError

is_collection = dask.is_dask_collection


def traversed(given: list[Any]) -> list[Any]:
    """Return `given` with lists, tuples, sets and dicts that may hold collections as collections."""
    kinds = (list, set, tuple, dict, Iterator)
    return [dask.delayed(each) if isinstance(each, kinds) else each for each in given]


def found(given: list[Any]) -> list[Any]:
    """Return the collections among `given`, each once, such that dask keeps their order.

    Dask's optimizer groups collections of one kind, and so changes the order of what is computed together.
    """
    distinct = {id(each): each for each in given if is_collection(each)}
    groups: dict[Any, list[Any]] = {}
    for each in distinct.values():
        groups.setdefault(_kind(each), []).append(each)
    return [each for group in groups.values() for each in group]


def _kind(collection: Any) -> Any:
    if isinstance(getattr(collection, "expr", None), Expr):
        return None
    optimizer = getattr(collection, "__dask_optimize__", None)
    return getattr(optimizer, "__func__", optimizer)


def finalized(collections: list[Any], optimize_graph: bool) -> tuple[Any, list[Any]]:
    """Return one expression for whole collections, and its key for each of them."""
    expression = FinalizeCompute(collections_to_expr(collections, optimize_graph)).optimize()
    return expression, list(flatten(expression.__dask_keys__()))


def optimized(collections: list[Any], optimize_graph: bool) -> tuple[Any, list[tuple[Any, list[Any]]]]:
    """Return one expression for the parts of collections, and for each collection its expression and keys."""
    ordered = found(collections)
    expression = collections_to_expr(ordered, optimize_graph)
    parts = list(getattr(expression, "operands", ()))
    expression = expression.optimize()
    after = list(getattr(expression, "operands", ()))
    if len(after) == len(ordered):
        parts = after
    keys = expression.__dask_keys__()
    by_collection = {id(each): (part, list(flatten(own))) for each, part, own in zip(ordered, parts, keys, strict=True)}
    return expression, [by_collection[id(each)] for each in collections]


def rebuilt(collection: Any, part: Any, keys: list[Any], futures: dict[Any, Future]) -> Any:
    """Return a collection anew, with futures as its graph."""
    if type(part).__name__ == "CompositeExpr":
        from dask.base import _rebuild_composite_collection

        return _rebuild_composite_collection(collection, part, futures, cull_to_child_keys=True)
    rebuild, state = collection.__dask_postpersist__()
    return rebuild({key: futures[key] for key in keys}, *state)


def materialized(dsk: Any) -> tuple[dict[Any, GraphNode], dict[str, Future]]:
    """Return a graph or expression as nodes of dask by key, and the futures that it mentions by their names."""
    if isinstance(dsk, Expr):
        graph = dsk.__dask_graph__()
    elif isinstance(dsk, Mapping):
        graph = dsk
    else:
        raise UsageError(f"get takes a graph or an expression of dask, not {type(dsk).__name__}")
    graph = dict(graph)
    futures: dict[str, Future] = {}
    for value in graph.values():
        _note_futures(value, futures)
    return convert_legacy_graph(graph), futures


def _note_futures(value: Any, futures: dict[str, Future]) -> None:
    """Find futures where dask would take them for keys: in place of a task, and among the arguments of one."""
    stack = [value]
    while stack:
        each = stack.pop()
        kind = type(each)
        if kind is Future:
            futures[each.key] = each
        elif isinstance(each, Task):
            if each.dependencies:
                stack.extend(each.args)
                if each.kwargs:
                    stack.extend(each.kwargs.values())
        elif kind is tuple or kind is list or kind is set:
            stack.extend(each)
        elif kind is dict:
            stack.extend(each.values())


def futures_in(data: Any) -> list[Future]:
    """Return the futures inside collections, and inside lists, tuples, sets and dicts of such, each once."""
    found: dict[int, Future] = {}
    stack = [data]
    while stack:
        each = stack.pop()
        if type(each) is Future:
            found.setdefault(id(each._cell), each)
        elif type(each) in (list, tuple, set, frozenset):
            stack.extend(each)
        elif type(each) is dict:
            stack.extend(each.values())
        elif is_collection(each):
            mentioned: dict[str, Future] = {}
            for value in each.__dask_graph__().values():
                _note_futures(value, mentioned)
            stack.extend(mentioned.values())
    return list(found.values())[::-1]


def normalized(client: Any, collection: Any) -> Any:
    """Return a collection with those of its tasks that `client` has futures of replaced by these."""
    if not is_collection(collection):
        raise UsageError(f"normalize_collection takes a collection of dask, not {type(collection).__name__}")
    graph = dict(collection.__dask_graph__())
    cells = client._session.cells
    replaced: dict[Any, Future] = {}
    with cells.lock:
        for key, value in graph.items():
            cell = cells.by_key.get(name_of(key))
            if type(value) is not Future and cell is not None and cell.status in (states.PENDING, states.FINISHED):
                cell.refs += 1
                replaced[key] = future_of(client, cell)
    if not replaced:
        return collection
    keys = list(flatten(collection.__dask_keys__()))
    graph, _ = cull({**graph, **replaced}, keys)
    rebuild, state = collection.__dask_postpersist__()
    return rebuild(graph, *state)


def without_disk(dsk: Any, keys: list[Any]) -> tuple[Any, dict[Any, Any]]:
    """Return an expression that shuffles by tasks where it did so by a disk, and the new key for each old one.

    Dask decides on a dataframe's shuffle before it asks a scheduler for anything.
    """
    same = {key: key for key in keys}
    # Where dataframes were never imported, no expression is one.
    shuffles = sys.modules.get("dask.dataframe.dask_expr._shuffle")
    if shuffles is None or not isinstance(dsk, Expr) or isinstance(dsk, HLGExpr):
        return dsk, same
    changed = dsk
    while True:
        by_disk = next((each for each in changed.walk() if type(each) is shuffles.DiskShuffle), None)
        if by_disk is None:
            break
        changed = changed.substitute(by_disk, shuffles.TaskShuffle(*by_disk.operands))
    if changed is dsk:
        return dsk, same
    before, after = flatten(dsk.__dask_keys__()), flatten(changed.__dask_keys__())
    ends = dict(zip(before, after, strict=True))
    return changed, {key: ends.get(key, key) for key in keys}
