"""Messages as the arrays that travel, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distributed_core.errors import ProtocolError
from distributed_core.messages import WORDS

_NUMBER_OF = {word: number for number, word in enumerate(WORDS)}
_TYPES: dict[str, Any] = {
    "int": int,
    "str": str,
    "bool": bool,
    "bytes": bytes,
    "float": (float, int),
    "dict[str, Any]": dict,
    "list[Any]": list,
    "list[int]": list,
    "Payload": (bytes, list),
    "list[Any] | None": (list, type(None)),
    "Payload | None": (bytes, list, type(None)),
    "Any": object,
}
_SHAPES: tuple[tuple[Any, ...], ...] = tuple(
    tuple(_TYPES[str(getattr(field, "__forward_arg__", field))] for field in word.__annotations__.values())
    for word in WORDS
)
_MAKERS: tuple[Callable[[Iterable[Any]], Any], ...] = tuple(word._make for word in WORDS)


def to_plain(message: Any) -> tuple[Any, ...]:
    """Return `message` as the array that travels."""
    return (_NUMBER_OF[type(message)], *message)


def from_plain(plain: Any) -> Any:
    """Return the message that `plain`, an array off the wire, stands for.

    Raises
    ------
    ProtocolError
        The array is no message: an unknown word, or fields of the wrong number or type.
    """
    if type(plain) is not list or not plain:
        raise ProtocolError("the peer sent something that is not a message")
    number = plain[0]
    if type(number) is not int or not 0 <= number < len(WORDS):
        raise ProtocolError(f"the peer sent the unknown word {number!r:.40}")
    fields = plain[1:]
    shape = _SHAPES[number]
    if len(fields) != len(shape) or not all(map(isinstance, fields, shape)):
        raise ProtocolError(f"the peer sent a malformed {WORDS[number].__name__}")
    return _MAKERS[number](fields)
