"""Bytes in, packets out: how frames lie on a connection. Sans-IO, and every limit holds before memory is taken.

A packet is a header (magic, number of frames as u32, length of each frame as u64; network byte order) and its frames.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass

from distributed_core.errors import ProtocolError, TooLarge

MAGIC = b"DC2\x01"
_HEAD = struct.Struct(">4sI")
#: Frames from this size on are read straight into memory of their own and written without being joined to others.
LARGE_BYTES = 64 << 10
#: Frames from this size on get pages of their own, which the system fills in as bytes arrive: a header that lies costs
#: addresses but no memory, and nothing is cleared or moved first. No huge pages: where a hypervisor takes free memory
#: back, each costs milliseconds.
PAGES_BYTES = 4 << 20
#: Smaller frames than this are bytes; larger ones may become an array's memory, so they can be written to.
WRITABLE_BYTES = 4 << 10

Frame = bytes | bytearray | memoryview
Place = Callable[[int], memoryview | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one packet may take."""

    frames_max: int = 1 << 20
    body_bytes_max: int = 2 << 30
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
        #: Asked for the memory of a large frame, by its size; None is the process's own.
        self.place: Place | None = None
        self._buffer = bytearray()
        self._start = 0
        self._lengths: tuple[int, ...] | None = None
        self._frames: list[Frame] = []
        self._large: memoryview | None = None
        self._large_filled = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes of the connection, in order."""
        if self._large is not None:
            rest = memoryview(data)
            nbytes = min(len(rest), len(self._large) - self._large_filled)
            self._large[self._large_filled : self._large_filled + nbytes] = rest[:nbytes]
            self._large_filled += nbytes
            data = rest[nbytes:]
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
        return None if self._large is None else self._large[self._large_filled :]

    def filled(self, nbytes: int) -> None:
        """`nbytes` were read into the memory that `wanted` gave."""
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
            kind = bytes if length < WRITABLE_BYTES else bytearray
            self._frames.append(kind(memoryview(self._buffer)[self._start : self._start + length]))
            self._start += length
            return True
        if length >= LARGE_BYTES:
            # What came of it already moves over; the rest is read straight to its place.
            large = _memory(length, self.place)
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


def _memory(nbytes: int, place: Place | None) -> memoryview:
    if nbytes < PAGES_BYTES:
        return memoryview(bytearray(nbytes))
    elsewhere = place(nbytes) if place is not None else None
    if elsewhere is not None:
        return elsewhere
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise TooLarge(f"the peer sent a frame of {nbytes} bytes, more than this machine has memory for") from None
    return memoryview(pages)
