"""Do the arguments of a call fit its handler? Said in a sentence, before the handler begins and leaves half a thing.

What a handler takes is what its signature says. `peer` is not an argument: the server says who called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from distributed_core.errors import UsageError

GIVEN = ("peer",)
"""What the server adds to the caller's arguments."""
NAMES_SHOWN_MAX = 8


def _is_number(value: Any) -> bool:
    # Not a number would spoil the order of the loop's timers.
    return type(value) in (int, float) and value == value


def _are(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and set(map(type, value)) <= set(kinds)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("an integer", lambda value: type(value) is int),
    "float": ("a number", _is_number),
    "str": ("text", lambda value: type(value) is str),
    "bool": ("true or false", lambda value: type(value) is bool),
    "bytes": ("bytes", lambda value: type(value) is bytes),
    "list[int]": ("a list of integers", _are(int)),
    "list[str]": ("a list of text", _are(str)),
    "list[Any]": ("a list", lambda value: type(value) is list),
    "dict[str, Any]": ("a dict by text", lambda value: type(value) is dict and set(map(type, value)) <= {str}),
    "Payload": ("bytes or a list of frames", lambda value: type(value) is bytes or is_frames(value)),
}


def is_frames(value: Any) -> bool:
    """Tell whether `value` is a list of frames."""
    plain = (list, dict, str, int, float, type(None))
    return type(value) is list and not any(isinstance(part, plain) for part in value)


class _Parameter(NamedTuple):
    required: bool
    kind: str
    fits: Callable[[Any], bool]


@lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> tuple[dict[str, _Parameter], bool]:
    """Return what a handler takes, and whether it takes any other name."""
    found: dict[str, _Parameter] = {}
    others = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            others = name != "context"
        elif name not in (*GIVEN, "self"):
            annotation = parameter.annotation if isinstance(parameter.annotation, str) else ""
            kind, fits = _KINDS.get(annotation.removesuffix(" | None"), ("", lambda value: True))
            if annotation.endswith(" | None"):
                kind, fits = f"{kind} or nothing", _or_none(fits)
            found[name] = _Parameter(parameter.default is parameter.empty, kind, fits)
    return found, others


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def check(op: str, handler: Callable[..., Any], arguments: Mapping[Any, Any]) -> None:
    """See whether a handler can be called with these arguments.

    Raises
    ------
    UsageError
        One is missing, unknown, or of another type.
    """
    parameters, others = _parameters(getattr(handler, "__func__", handler))
    for name, value in arguments.items():
        parameter = parameters.get(name) if type(name) is str else None
        if parameter is None:
            if others and type(name) is str and name not in GIVEN:
                continue
            known = ", ".join(list(parameters)[:NAMES_SHOWN_MAX]) or "nothing"
            raise UsageError(f"{op} does not take {name!r:.40}; it takes {known}")
        if not parameter.fits(value):
            raise UsageError(f"{op}: {name} is {parameter.kind}, not {_shown(value)}")
    for name, parameter in parameters.items():
        if parameter.required and name not in arguments:
            raise UsageError(f"{op} needs {name}{', ' if parameter.kind else ''}{parameter.kind}")


def _shown(value: Any) -> str:
    if type(value) in (int, float, bool, type(None)):
        return repr(value)
    inner = ", ".join(sorted({type(each).__name__ for each in value})) if type(value) is list else ""
    return type(value).__name__ + (f" of {inner}" if inner else "")
