"""Plain data to frames and back: the one door to msgpack.

Plain is None, bool, int, float, str, bytes, lists, tuples, dicts with keys of str or int, and `Buffer`. Frame 0 of a
packet is the msgpack of a list of messages; a large `Buffer` is a frame of its own, and its place in the body an index.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from distributed_core.errors import NotSerializable, ProtocolError
from distributed_core.protocol.framing import Frame

#: Buffers from this size on become frames of their own.
OUT_OF_BAND_BYTES = 32 << 10
_INDEX = 1
_INLINE = 2


class Buffer:
    """A part of a payload that is not copied where it is large: bytes, or memory of an array."""

    __slots__ = ("view",)

    def __init__(self, view: Any) -> None:
        self.view = view

    @property
    def nbytes(self) -> int:
        return self.view.nbytes if isinstance(self.view, memoryview) else len(self.view)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buffer) and bytes(self.view) == bytes(other.view)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Buffer of {self.nbytes} bytes>"


def encode(batch: list[Any]) -> list[Frame]:
    """Return the frames of a batch of plain messages.

    Raises
    ------
    NotSerializable
        Something in it is not plain.
    """
    frames: list[Frame] = [b""]

    def place(value: Any) -> msgpack.ExtType:
        if type(value) is not Buffer:
            raise NotSerializable(f"{type(value).__name__} is no plain data; this is a bug of the sender")
        if value.nbytes >= OUT_OF_BAND_BYTES:
            frames.append(value.view if isinstance(value.view, memoryview) else memoryview(value.view))
            return msgpack.ExtType(_INDEX, struct.pack(">I", len(frames) - 1))
        return msgpack.ExtType(_INLINE, bytes(value.view))

    try:
        frames[0] = msgpack.packb(batch, default=place, use_bin_type=True)
    except (ValueError, OverflowError) as error:
        raise NotSerializable(f"a message cannot be packed: {error}") from None
    return frames


def decode(frames: list[Frame]) -> list[Any]:
    """Return the batch of plain messages that `frames` hold.

    Raises
    ------
    ProtocolError
        They hold none: broken msgpack, a nesting that is too deep, an index that leads nowhere.
    """
    used = 1

    def find(code: int, data: bytes) -> Buffer:
        nonlocal used
        if code == _INLINE:
            return Buffer(data)
        if code != _INDEX or len(data) != 4:
            raise ProtocolError("the peer sent an unknown extension")
        index = int.from_bytes(data, "big")
        if index != used or index >= len(frames):
            raise ProtocolError("the peer sent an index that leads to no frame, or twice to one")
        used += 1
        return Buffer(memoryview(frames[index]))

    try:
        batch = msgpack.unpackb(frames[0], ext_hook=find, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise ProtocolError(f"the peer sent a broken body ({type(error).__name__})") from None
    if type(batch) is not list or used != len(frames):
        raise ProtocolError("the peer sent a body that does not fit its frames")
    return batch
