"""Nodes of dask's graphs as calls and programs; see `protocol.programs`. Importing it imports dask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Set,
    Task,
    TaskRef,
    Tuple,
    _execute_subgraph,
    _identity_cast,
)
from dask.utils import methodcaller
from toolz.functoolz import Compose

from distributed_core.client.future import Future
from distributed_core.protocol.programs import Step, Subprogram, call_node, gathered, paired

_PLAIN = (int, str, float, bool, type(None), bytes, slice)
_FUNCTIONS = (FunctionType, partial, MethodType)
_CALLERS = (methodcaller,)
_KINDS = (list, tuple, set, frozenset)


class Compiled(NamedTuple):
    """What a task of a graph does.

    A plain one calls the only function with `args` and `kwargs`; else `args` are those of a `GraphProgram`. Where
    `shared`, other tasks may use the same copies of the functions: none of them carries an object that a call changes.
    """

    functions: tuple[Any, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    plain: bool
    shared: bool


class _Slot(NamedTuple):
    """A value that is known when the program runs."""

    place: int


class _Unclear(Exception):
    """A node uses a name that its subgraph does not have; dask must make of it what it can."""


class Compiler:
    """Makes the work of nodes of one graph.

    Parameters
    ----------
    input_of
        Returns what stands for the result of another task, by its key.
    """

    def __init__(self, input_of: Callable[[Any], Any]) -> None:
        self._input_of = input_of
        self._subprograms: dict[int, Subprogram | None] = {}
        self._subgraphs: Counter[int] = Counter()
        self._shareable: dict[int, bool] = {}

    def survey(self, nodes: Iterable[Any]) -> None:
        """Look which subgraphs are shared by several nodes: these are compiled once."""
        counts = self._subgraphs
        for node in nodes:
            if type(node) is Task and node.func is _execute_subgraph:
                inner = node.args[0]
                counts[id(inner)] += 1
                if type(inner) is dict and counts[id(inner)] < 3:
                    for each in inner.values():
                        if type(each) is Task and each.func is _execute_subgraph:
                            counts[id(each.args[0])] += 1

    def work(self, node: Any) -> Compiled:
        """Return what a node does."""
        builder = _Builder(self, [], pooled=True)
        try:
            out = builder.value(node, None)
        except _Unclear:
            builder = _Builder(self, [], pooled=True)
            out = builder.foreign(node, None)
        return builder.finished(out)

    def constant(self, value: Any) -> Compiled:
        """Return the work of a task whose result is `value`."""
        return Compiled((), ((), None, value), {}, False, True)

    def subprogram(self, inner: dict[Any, Any], outkey: Any, inkeys: tuple[Any, ...]) -> Subprogram | None:
        """Return a subgraph that several nodes share as one function of its inputs, or None for one of its own."""
        if self._subgraphs[id(inner)] < 2:
            return None
        if id(inner) not in self._subprograms:
            builder = _Builder(self, list(inkeys), pooled=False)
            env = {key: _Slot(place) for place, key in enumerate(inkeys)}
            try:
                made = builder.subprogram(builder.subgraph(inner, outkey, env))
            except _Unclear:
                made = None
            self._subprograms[id(inner)] = made
        return self._subprograms[id(inner)]

    def shareable(self, function: Any) -> bool:
        """Tell whether tasks may use one copy of a function; see `stateless`."""
        known = self._shareable.get(id(function))
        if known is None:
            known = self._shareable[id(function)] = stateless(function)
        return known


class _Builder:
    """One program in the making."""

    __slots__ = ("_base", "_compiler", "_functions", "_places", "_pooled", "_steps")

    def __init__(self, compiler: Compiler, inputs: list[Any], pooled: bool) -> None:
        self._compiler = compiler
        self._base = len(inputs)
        self._pooled = pooled
        self._functions: list[Any] = []
        self._places: dict[int, int] = {}
        self._steps: list[list[Any]] = []

    # --- values -----------------------------------------------------------------------------------

    def value(self, node: Any, env: dict[Any, Any] | None) -> Any:
        """Return the value that stands for a node or argument: itself, an input, or a slot."""
        kind = type(node)
        if kind in _PLAIN:
            return node
        if kind is TaskRef:
            return self._reference(node.key, env)
        if kind is Task:
            return self._task(node, env)
        if kind is DataNode:
            return node.value
        if kind is Alias:
            return self._reference(node.target, env)
        if kind is List or kind is Tuple or kind is Set:
            return self._container(kind.klass, node.args, env)
        if kind is Dict:
            return self._mapping(node.args, env)
        if kind in _FUNCTIONS:
            pooled = self._pooled and self._compiler.shareable(node)
            return _Slot(-1 - self._place(node)) if pooled else node
        if kind is Future:
            return node
        if isinstance(node, GraphNode):
            return self.foreign(node, env)
        if isinstance(node, TaskRef):
            return self._reference(node.key, env)
        return node

    def _reference(self, key: Any, env: dict[Any, Any] | None) -> Any:
        if env is None:
            return self._compiler._input_of(key)
        try:
            return env[key]
        except KeyError:
            raise _Unclear from None

    def _container(self, kind: type, items: tuple[Any, ...], env: dict[Any, Any] | None) -> Any:
        values = [self.value(item, env) for item in items]
        if any(type(each) is _Slot for each in values):
            return self._step(gathered, [kind, *values], {})
        return kind(values)

    def _mapping(self, items: tuple[Any, ...], env: dict[Any, Any] | None) -> Any:
        values = [self.value(item, env) for item in items]
        if any(type(each) is _Slot for each in values):
            return self._step(paired, values, {})
        return paired(*values)

    def _task(self, task: Any, env: dict[Any, Any] | None) -> Any:
        func = task.func
        if func is _execute_subgraph and type(task.args[0]) is dict:
            inner, outkey, inkeys, *given = task.args
            shared = self._compiler.subprogram(inner, outkey, inkeys)
            values = [self.value(each, env) for each in given]
            if shared is not None:
                return self._step(shared, values, {})
            return self.subgraph(inner, outkey, dict(zip(inkeys, values, strict=True)))
        if func is _identity_cast and task.kwargs.get("typ") in _KINDS:
            return self._container(task.kwargs["typ"], task.args, env)
        values = [each if type(each) in _PLAIN else self.value(each, env) for each in task.args]
        kwargs = {name: self.value(each, env) for name, each in task.kwargs.items()} if task.kwargs else {}
        return self._step(func, values, kwargs)

    def subgraph(self, inner: dict[Any, Any], outkey: Any, env: dict[Any, Any]) -> Any:
        """Return the value of one key of a subgraph; `env` has the values of its inputs, and gets the others."""
        stack = [outkey]
        while stack:
            key = stack[-1]
            if key in env:
                stack.pop()
                continue
            node = inner.get(key)
            if node is None:
                raise _Unclear
            missing = [each for each in node.dependencies if each not in env] if isinstance(node, GraphNode) else []
            if missing:
                if len(stack) > 2 * len(inner) + 2:
                    raise _Unclear
                stack.extend(missing)
                continue
            env[key] = self.value(node, env)
            stack.pop()
        return env[outkey]

    def foreign(self, node: Any, env: dict[Any, Any] | None) -> Any:
        """Return the result of a node that only dask itself can run."""
        keys = tuple(node.dependencies)
        values = [self._reference(key, env) for key in keys]
        return self._step(call_node, [node, keys, *values], {})

    # --- steps ------------------------------------------------------------------------------------

    def _step(self, func: Any, values: list[Any], kwargs: dict[str, Any]) -> _Slot:
        patches: list[Any] = []
        for where, each in enumerate(values):
            if type(each) is _Slot:
                patches.append((where, each.place))
                values[where] = None
        for name, each in kwargs.items():
            if type(each) is _Slot:
                patches.append((name, each.place))
                kwargs[name] = None
        self._steps.append([self._place(func), tuple(values), kwargs or None, tuple(patches)])
        return _Slot(self._base + len(self._steps) - 1)

    def _place(self, function: Any) -> int:
        place = self._places.get(id(function))
        if place is None:
            place = self._places[id(function)] = len(self._functions)
            self._functions.append(function)
        return place

    # --- the end ----------------------------------------------------------------------------------

    def finished(self, out: Any) -> Compiled:
        """Return the work of a task whose result is `out`."""
        steps = self._steps
        if type(out) is _Slot and out.place >= 0 and len(steps) == 1 and not steps[0][3]:
            function = self._functions[steps[0][0]]
            return Compiled((function,), steps[0][1], steps[0][2] or {}, True, self._compiler.shareable(function))
        if type(out) is _Slot and out.place < 0:
            return Compiled((), ((), None, self._functions[-1 - out.place]), {}, False, True)
        place = out.place if type(out) is _Slot else None
        value = None if type(out) is _Slot else out
        shared = all(map(self._compiler.shareable, self._functions))
        return Compiled(tuple(self._functions), (self._closed(place), place, value), {}, False, shared)

    def subprogram(self, out: Any) -> Subprogram:
        """Return the subprogram whose result is `out`."""
        place = out.place if type(out) is _Slot else None
        value = None if type(out) is _Slot else out
        return Subprogram(tuple(self._functions), self._closed(place), place, value)

    def _closed(self, out: int | None) -> tuple[Step, ...]:
        """Return the steps, each with the places that nothing needs after it."""
        seen = {out}
        for place in range(len(self._steps) - 1, -1, -1):
            step = self._steps[place]
            used = dict.fromkeys(each for _, each in step[3] if each >= 0)
            own = self._base + place
            dead = [each for each in used if each not in seen]
            if own not in seen:
                dead.append(own)
            seen.update(used)
            step.append(tuple(dead))
        return tuple(map(tuple, self._steps))


def stateless(function: Any, depth: int = 3) -> bool:
    """Tell whether a function surely carries no object of the user's that a call might change.

    `model.fit` does: what one task has fitted must not be what another one returns.
    """
    kind = type(function)
    if kind is FunctionType or isinstance(function, type):
        return True
    if kind is Subprogram:
        return all(stateless(each) for each in function.functions)
    if kind is BuiltinFunctionType:
        return function.__self__ is None or isinstance(function.__self__, ModuleType)
    if kind is MethodType:
        return isinstance(function.__self__, type)
    if kind is partial:
        parts = (*function.args, *function.keywords.values())
        return depth > 0 and stateless(function.func) and all(_fixed(each, depth - 1) for each in parts)
    if kind is Compose:
        return all(stateless(each) for each in (function.first, *function.funcs))
    return kind in _CALLERS or kind.__module__ in ("numpy", "operator", "functools")


def _fixed(value: Any, depth: int) -> bool:
    """Tell whether an argument of a partial function is nothing that a call would change."""
    kind = type(value)
    if kind in _PLAIN or kind.__module__ in ("numpy.dtypes", "numpy"):
        return kind.__name__ != "ndarray" or value.nbytes <= 1024
    if kind in (list, tuple):
        return depth > 0 and len(value) <= 64 and all(_fixed(each, depth - 1) for each in value)
    if kind is dict:
        return depth > 0 and len(value) <= 64 and all(_fixed(each, depth - 1) for each in value.values())
    return callable(value) and stateless(value, depth)
