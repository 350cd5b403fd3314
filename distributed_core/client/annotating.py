"""What `with dask.annotate(...)` said of a collection, for each task of its graph. Importing it imports dask.

Dask keeps annotations with the layers of a graph. Its optimizers fuse layers into tasks of other names, and lose most
annotations on the way. So these are read before as well, and a fused task has those of all its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dask._expr import Expr, HLGExpr
from dask._task_spec import Task, _execute_subgraph

from distributed_core.client.options import ANNOTATIONS, task_options
from distributed_core.errors import UsageError

Said = dict[str, Any]


class Annotations:
    """The annotations of one graph.

    Parameters
    ----------
    expression
        What dask made of the collections, optimized; or None for a plain graph.
    everywhere
        What holds for all tasks that say nothing else, by annotation.
    """

    def __init__(self, expression: Any, everywhere: Said) -> None:
        self._everywhere = everywhere
        self._by_key: dict[Any, Said] = {}
        self._by_layer: dict[Any, Said] = {}
        self._made: dict[Any, tuple[dict[str, Any] | None, int]] = {}
        self._callable = any(map(callable, everywhere.values()))
        if isinstance(expression, Expr):
            self._read_layers(expression)
            for name, said in expression.__dask_annotations__().items():
                if name in ANNOTATIONS:
                    for key, value in said.items():
                        if not _tombstone(value):
                            self._by_key.setdefault(key, {})[name] = value
        self._default = (None, 0) if self._callable else _made(everywhere)

    def _read_layers(self, expression: Any) -> None:
        """Read what the layers of a graph said before low-level optimization."""
        parts = [each for each in (expression, *expression.operands) if isinstance(each, HLGExpr)]
        for part in parts:
            for name, layer in part.hlg.layers.items():
                said = {each: value for each, value in (layer.annotations or {}).items() if each in ANNOTATIONS}
                if not said:
                    continue
                self._by_layer[name] = {each: value for each, value in said.items() if not callable(value)}
                for key in layer.get_output_keys():
                    own = self._by_key.setdefault(key, {})
                    for each, value in said.items():
                        value = value(key) if callable(value) else value
                        if not _tombstone(value):
                            own[each] = value

    def options(self, key: Any, node: Any) -> tuple[dict[str, Any] | None, int]:
        """Return the options and the priority of a task, as they travel.

        Raises
        ------
        UsageError
            An annotation makes no sense.
        """
        said = self._said(key, node) if self._by_key else None
        if not said and not self._callable:
            return self._default
        whole = {name: value(key) if callable(value) else value for name, value in self._everywhere.items()}
        whole.update(said or {})
        identity = tuple((name, repr(value)) for name, value in whole.items())
        made = self._made.get(identity)
        if made is None:
            made = self._made[identity] = _made(whole)
        return made

    def _said(self, key: Any, node: Any) -> Said | None:
        found = []
        stack = [(key, node)]
        while stack:
            each, inner = stack.pop()
            said = self._by_key.get(each)
            if said is None and self._by_layer:
                said = self._by_layer.get(_layer_of(each))
            if said:
                found.append(said)
            if type(inner) is Task and inner.func is _execute_subgraph and type(inner.args[0]) is dict:
                stack.extend(inner.args[0].items())
        if len(found) < 2:
            return found[0] if found else None
        return _merged(found)


def _layer_of(key: Any) -> Any:
    """Return the layer that a key is of; dask adds the axes to the name of one that it fused into another."""
    name = key[0] if type(key) is tuple and key else key
    return name.partition("_.")[0] if type(name) is str else name


def _tombstone(value: Any) -> bool:
    return type(value).__name__ == "_AnnotationsTombstone"


def _merged(parts: list[Said]) -> Said:
    """Return what holds for one task that is made of parts: the strictest of each."""
    merged: Said = {}
    for said in parts:
        for name, value in said.items():
            merged[name] = _MERGE[name](merged[name], value) if name in merged else value
    return merged


def _more(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in (*one, *other)}


def _common(one: Any, other: Any) -> Any:
    first = [one] if isinstance(one, str) else list(one)
    second = [other] if isinstance(other, str) else list(other)
    both = [each for each in first if each in second]
    if not both:
        raise UsageError(
            f"tasks that were fused want to run on {first} and on {second}; compute with optimize_graph=False"
        )
    return both


_MERGE: dict[str, Callable[[Any, Any], Any]] = {
    "priority": max,
    "retries": max,
    "resources": _more,
    "workers": _common,
    "allow_other_workers": lambda one, other: one and other,
    "timeout": max,
}


def _made(said: Said) -> tuple[dict[str, Any] | None, int]:
    priority = said.get("priority") or 0
    if type(priority) is not int:
        if isinstance(priority, bool) or priority != int(priority):
            raise UsageError(f"priority is a whole number, not {priority!r:.60}")
        priority = int(priority)
    workers = said.get("workers")
    made = task_options(
        workers=workers,
        allow_other_workers=bool(said.get("allow_other_workers")) and workers is not None,
        retries=said.get("retries"),
        resources=said.get("resources"),
        timeout=said.get("timeout"),
        actor=bool(said.get("actor")),
    )
    return made, priority
