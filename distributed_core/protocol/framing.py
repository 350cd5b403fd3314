"""Bytes in, packets out: how frames lie on a connection. Sans-IO, and every limit holds before memory is taken.

A packet is a header (magic, number of frames as u32, length of each frame as u64; network byte order) and its frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from distributed_core.errors import ProtocolError, TooLarge

MAGIC = b"DC2\x01"
_HEAD = struct.Struct(">4sI")
#: Frames from this size on are read straight into memory of their own and written without being joined to others.
LARGE_BYTES = 64 << 10
#: A large frame's memory grows by at most this much at a time: a header that lies costs no more.
GROWTH_BYTES = 32 << 20

Frame = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Limits:
    """What one packet may take."""

    frames_max: int = 1 << 16
    body_bytes_max: int = 256 << 20
    frame_bytes_max: int = 1 << 40
    packet_bytes_max: int = 1 << 40


DEFAULT_LIMITS = Limits()
#: For a connection that has not greeted yet.
GREETING_LIMITS = Limits(frames_max=1, body_bytes_max=1 << 20, frame_bytes_max=1 << 20, packet_bytes_max=1 << 20)


def encode_packet(frames: list[Frame]) -> list[Frame]:
    """Return the bytes of a packet in pieces: small ones joined, large ones as they are."""
    head = _HEAD.pack(MAGIC, len(frames)) + struct.pack(f">{len(frames)}Q", *map(_nbytes, frames))
    small: list[Frame] = [head]
    pieces: list[Frame] = []
    for frame in frames:
        if _nbytes(frame) >= LARGE_BYTES:
            if small:
                pieces.append(b"".join(small) if len(small) > 1 else small[0])
                small = []
            pieces.append(frame)
        else:
            small.append(frame)
    if small:
        pieces.append(b"".join(small) if len(small) > 1 else small[0])
    return pieces


def _nbytes(frame: Frame) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


class Decoder:
    """Turns the bytes of a connection into packets.

    Feed it what arrives with `feed`; ask `next_packet` until it gives None. While `wanted` gives memory, the next bytes
    of the connection belong there: read into it and call `filled`, so that no copy stands between socket and array.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._buffer = bytearray()
        self._start = 0
        self._lengths: tuple[int, ...] | None = None
        self._frames: list[Frame] = []
        self._large: bytearray | None = None
        self._large_filled = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes of the connection, in order."""
        self._buffer += data

    def next_packet(self) -> list[Frame] | None:
        """Return the frames of the next whole packet, or None.

        Raises
        ------
        ProtocolError, TooLarge
            The bytes are no packet, or one beyond the limits. The connection is of no more use.
        """
        if self._lengths is None and not self._read_head():
            return None
        assert self._lengths is not None
        while len(self._frames) < len(self._lengths):
            if not self._read_frame(self._lengths[len(self._frames)]):
                return None
        frames, self._frames, self._lengths = self._frames, [], None
        self._compact()
        return frames

    def wanted(self) -> memoryview | None:
        """Return where the next bytes belong, if the connection is inside a large frame."""
        large = self._large
        if large is None:
            return None
        assert self._lengths is not None
        total = self._lengths[len(self._frames)]
        if self._large_filled == len(large):
            large.extend(bytes(min(total - len(large), max(GROWTH_BYTES, len(large)))))
        return memoryview(large)[self._large_filled :]

    def filled(self, nbytes: int) -> None:
        """`nbytes` were read into the memory that `wanted` gave; that view must be released by now."""
        self._large_filled += nbytes

    # --- inside -----------------------------------------------------------------------------------

    def _available(self) -> int:
        return len(self._buffer) - self._start

    def _read_head(self) -> bool:
        if self._available() < _HEAD.size:
            if self._buffer[self._start : self._start + 4] != MAGIC[: min(4, self._available())]:
                raise ProtocolError("the peer does not speak this protocol")
            return False
        magic, count = _HEAD.unpack_from(self._buffer, self._start)
        if magic != MAGIC:
            raise ProtocolError("the peer does not speak this protocol")
        if not 1 <= count <= self.limits.frames_max:
            raise TooLarge(f"the peer sent a packet of {count} frames; {self.limits.frames_max} are allowed")
        if self._available() < _HEAD.size + 8 * count:
            return False
        lengths = struct.unpack_from(f">{count}Q", self._buffer, self._start + _HEAD.size)
        if lengths[0] > self.limits.body_bytes_max:
            raise TooLarge(f"the peer sent a body of {lengths[0]} bytes; {self.limits.body_bytes_max} are allowed")
        if max(lengths) > self.limits.frame_bytes_max or sum(lengths) > self.limits.packet_bytes_max:
            raise TooLarge(
                f"the peer sent a packet of {sum(lengths)} bytes; {self.limits.packet_bytes_max} are allowed"
            )
        self._start += _HEAD.size + 8 * count
        self._lengths = lengths
        return True

    def _read_frame(self, length: int) -> bool:
        if self._large is not None:
            if self._large_filled < length:
                return False
            frame: Frame = self._large
            self._large = None
            self._frames.append(frame)
            return True
        available = self._available()
        if available >= length:
            self._frames.append(bytes(memoryview(self._buffer)[self._start : self._start + length]))
            self._start += length
            return True
        if length >= LARGE_BYTES:
            # What came of it already moves over; the rest is read straight to its place.
            large = bytearray(min(length, max(available, GROWTH_BYTES)))
            large[:available] = memoryview(self._buffer)[self._start :]
            self._large = large
            self._large_filled = available
            self._start += available
            self._compact()
        return False

    def _compact(self) -> None:
        if self._start == len(self._buffer):
            self._buffer = bytearray()
            self._start = 0
        elif self._start > 1 << 20:
            del self._buffer[: self._start]
            self._start = 0
