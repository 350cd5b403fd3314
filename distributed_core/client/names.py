"""Keys of graphs as names on the wire, and back.

A key is a string, a number, bytes or a tuple of keys; a name is a string. A string is its own name, so that a key and
the `key` of a submitted task mean the same thing. Any other key is in parentheses, as Python writes it; a string that
begins like one of these is quoted. So no two keys have one name, and a name is the same in every process.
"""

from __future__ import annotations

import ast
from numbers import Integral, Real
from typing import Any

from distributed_core.errors import UsageError

_PLAIN = (str, int)
_MARKS = ("(", "'", '"')


def name_of(key: Any) -> str:
    """Return the name of a key of a graph.

    Raises
    ------
    UsageError
        It is no key: something else than strings, numbers, bytes and tuples of them.
    """
    kind = type(key)
    if kind is str:
        return repr(key) if key.startswith(_MARKS) else key
    if kind is tuple:
        for each in key:
            if type(each) not in _PLAIN:
                return f"({', '.join(map(_written, key))}{',' if len(key) == 1 else ''})"
        return repr(key)
    if isinstance(key, str):
        return name_of(str(key))
    text = _written(key)
    return text if text.startswith("(") else f"({text})"


def key_of(name: str) -> Any:
    """Return the key that has this name; what is no name of a key is returned as it is."""
    if not name.startswith(_MARKS):
        return name
    try:
        return ast.literal_eval(name)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name


def _written(key: Any) -> str:
    """Write a key such that keys that are equal, as dicts see them, are written alike."""
    if isinstance(key, str):
        return repr(str(key))
    if isinstance(key, bytes):
        return repr(bytes(key))
    if isinstance(key, Integral):
        return repr(int(key))
    if isinstance(key, Real):
        number = float(key)
        if number.is_integer():
            return repr(int(number))
        if number in (float("inf"), -float("inf")):
            return "1e999" if number > 0 else "-1e999"
        return repr(number)
    if isinstance(key, tuple):
        return f"({', '.join(map(_written, key))}{',' if len(key) == 1 else ''})"
    text = f"a key of a graph is a string, a number, bytes or a tuple of such, not {type(key).__name__}: {key!r:.80}"
    raise UsageError(text)
