"""Tasks of a graph as they travel.

What many tasks of a graph share, their functions, goes ahead once as the body of a function; a task brings its
arguments alone. A task that is several calls, because a graph's optimizer fused them, is a small program: steps in the
order in which they run, and where each finds the results of earlier ones. Nothing of the graph's library is needed to
run it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Step = tuple[int, tuple[Any, ...], dict[str, Any] | None, tuple[Any, ...], tuple[int, ...]]
"""One call of a program.

(place of its function, args, kwargs, patches, dead): each patch is (position or keyword, place), where a place from 0
on is an input of the program or the result of an earlier step, and a negative one is -1 minus the place of a function
that is an argument; `dead` are the places that no later step needs.
"""


class GraphCall:
    """One function of a graph, under the name that people know its tasks by."""

    __slots__ = ("__name__", "function")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.__name__ = name
        self.function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> Any:
        return GraphCall, (self.__name__, self.function)


class GraphProgram:
    """The functions of several calls that are one task, under the name that people know the task by.

    Parameters
    ----------
    functions
        What the steps call; None where each task brings its own.
    """

    __slots__ = ("__name__", "functions")

    def __init__(self, name: str, functions: tuple[Any, ...] | None) -> None:
        self.__name__ = name
        self.functions = functions

    def __call__(self, steps: tuple[Step, ...], place: int | None, value: Any, functions: Any = None) -> Any:
        return _run(functions if self.functions is None else self.functions, steps, place, value, [])

    def __reduce__(self) -> Any:
        return GraphProgram, (self.__name__, self.functions)


class Subprogram:
    """Several calls that are one function of its inputs: what the tasks of a fused layer have in common."""

    __slots__ = ("functions", "place", "steps", "value")

    def __init__(self, functions: tuple[Any, ...], steps: tuple[Step, ...], place: int | None, value: Any) -> None:
        self.functions = functions
        self.steps = steps
        self.place = place
        self.value = value

    def __call__(self, *inputs: Any) -> Any:
        return _run(self.functions, self.steps, self.place, self.value, list(inputs))

    def __reduce__(self) -> Any:
        return Subprogram, (self.functions, self.steps, self.place, self.value)


def _run(functions: Any, steps: Any, place: int | None, value: Any, results: list[Any]) -> Any:
    """Run the steps; return the result at `place`, or `value` where that is None."""
    for number, args, kwargs, patches, dead in steps:
        if patches:
            args, kwargs = _patched(args, kwargs, patches, results, functions)
        if kwargs:
            results.append(functions[number](*args, **kwargs))
        else:
            results.append(functions[number](*args))
        # A fused chain of large blocks must not keep every link of it.
        args = kwargs = None
        for each in dead:
            results[each] = None
    return value if place is None else results[place]


def _patched(args: Any, kwargs: Any, patches: Any, results: list[Any], functions: Any) -> tuple[list[Any], Any]:
    args = list(args)
    copied = False
    for where, place in patches:
        found = results[place] if place >= 0 else functions[-1 - place]
        if type(where) is int:
            args[where] = found
        else:
            if not copied:
                kwargs = dict(kwargs)
                copied = True
            kwargs[where] = found
    return args, kwargs


def gathered(kind: Callable[[tuple[Any, ...]], Any], *items: Any) -> Any:
    """Return `items` as a list, tuple or set, whatever `kind` is."""
    return kind(items)


def paired(*items: Any) -> dict[Any, Any]:
    """Return a dict of keys and values that follow each other."""
    return dict(zip(items[::2], items[1::2], strict=True))


def call_node(node: Any, keys: tuple[Any, ...], *values: Any) -> Any:
    """Run a node of a graph whose kind is known to the graph's library alone."""
    return node(dict(zip(keys, values, strict=True)))
