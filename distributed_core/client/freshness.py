"""Whether a function still is what it was when it was sent: what it refers to may have been defined anew since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from distributed_core.protocol.modules import travels

_CONSTANT = (int, float, complex, bool, str, bytes, type(None), ModuleType, BuiltinFunctionType, type)
_DEPTH_MAX = 5
_ABSENT = object()
#: In place of the function itself, which its record must not keep alive.
_ITSELF = object()


class Record:
    """What made up a function: its code, and whatever its names stood for."""

    __slots__ = ("cells", "code", "defaults", "functions", "names")

    def __init__(self, function: FunctionType) -> None:
        self.code = function.__code__
        self.defaults = function.__defaults__
        self.names: list[tuple[str, Any]] = []
        self.cells: list[Any] = []
        self.functions: list[tuple[FunctionType, Record]] = []

    def holds(self, function: Any) -> bool:
        """Tell whether nothing of it was replaced."""
        if function.__code__ is not self.code or function.__defaults__ is not self.defaults:
            return False
        for name, value in self.names:
            found = function.__globals__.get(name, _ABSENT)
            if found is not value and not (value is _ITSELF and found is function):
                return False
        for cell, value in zip(function.__closure__ or (), self.cells, strict=True):
            found = _content(cell)
            if found is not value and not (value is _ITSELF and found is function):
                return False
        return all(record.holds(each) for each, record in self.functions)


def record(function: Callable[..., Any]) -> Record | None:
    """Return what makes up `function`, or None where it may change unseen, since it refers to data that can."""
    return _record(function, [], _DEPTH_MAX) if isinstance(function, FunctionType) else None


def _record(function: FunctionType, above: list[FunctionType], depth: int) -> Record | None:
    made = Record(function)
    if _is_imported(function):
        made.cells = [_content(cell) for cell in function.__closure__ or ()]
        return made
    plain = all(isinstance(each, _CONSTANT) for each in function.__defaults__ or ())
    if not plain or function.__kwdefaults__ or function.__dict__ or not depth:
        return None
    above = [*above, function]
    for name in _names(function.__code__):
        value = function.__globals__.get(name, _ABSENT)
        if not _note(made, value, above, depth):
            return None
        made.names.append((name, _ITSELF if value is function else value))
    for cell in function.__closure__ or ():
        value = _content(cell)
        if not _note(made, value, above, depth):
            return None
        made.cells.append(_ITSELF if value is function else value)
    return made


def _note(made: Record, value: Any, above: list[FunctionType], depth: int) -> bool:
    if isinstance(value, FunctionType):
        if not any(value is each for each in above):
            inner = _record(value, above, depth - 1)
            if inner is None:
                return False
            made.functions.append((value, inner))
        return True
    if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
        return False  # the method of an object, which goes with it
    return value is _ABSENT or isinstance(value, _CONSTANT)


def _is_imported(function: FunctionType) -> bool:
    return not travels(function.__module__) and "<" not in function.__qualname__


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT  # not bound yet


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
