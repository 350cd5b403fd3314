"""Framing, codec and payloads: whatever goes in comes out, and whatever is broken is refused."""

from __future__ import annotations

import pickle
import struct
import threading
import traceback
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_core import messages
from distributed_core.comm.address import Address, format_address, parse_address
from distributed_core.errors import AddressError, NotSerializable, ProtocolError, TooLarge
from distributed_core.protocol import payload
from distributed_core.protocol.codec import OUT_OF_BAND_BYTES, Buffer, decode, encode
from distributed_core.protocol.framing import LARGE_BYTES, MAGIC, Decoder, Limits, encode_packet
from distributed_core.protocol.plain import from_plain, to_plain

SMALL = Limits(frames_max=4, body_bytes_max=1000, frame_bytes_max=3 * LARGE_BYTES, packet_bytes_max=4 * LARGE_BYTES)


def drive(decoder: Decoder, stream: bytes, sizes: list[int]) -> list[list[Any]]:
    """Feed a stream in pieces, as a connection would, with large frames read to their place."""
    packets, start, turn = [], 0, 0
    while True:
        packet = decoder.next_packet()
        if packet is not None:
            packets.append([bytes(frame) for frame in packet])
            continue
        if start == len(stream):
            return packets
        size = sizes[turn % len(sizes)]
        turn += 1
        view = decoder.wanted()
        if view is not None:
            piece = stream[start : start + min(size, len(view))]
            view[: len(piece)] = piece
            view.release()
            decoder.filled(len(piece))
        else:
            piece = stream[start : start + size]
            decoder.feed(piece)
        start += len(piece)


frames = st.lists(
    st.one_of(st.binary(max_size=100), st.integers(LARGE_BYTES - 2, LARGE_BYTES + 99).map(bytes)),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(frames, min_size=1, max_size=3), st.lists(st.integers(1, 70_000), min_size=1, max_size=5))
def test_packets_survive_any_splitting(packets: list[list[bytes]], sizes: list[int]) -> None:
    stream = b"".join(bytes(piece) for packet in packets for piece in encode_packet(list(packet)))
    assert drive(Decoder(), stream, [size + 500 for size in sizes]) == packets


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    decoder = Decoder(SMALL)
    try:
        for byte in noise:
            decoder.feed(bytes([byte]))
            decoder.next_packet()
    except ProtocolError:
        return
    assert MAGIC.startswith(noise[:4]) or noise[:4] == MAGIC


@pytest.mark.parametrize(
    "header",
    [
        MAGIC + struct.pack(">I", 0),
        MAGIC + struct.pack(">I", 5),
        MAGIC + struct.pack(">IQ", 1, 1001),
        MAGIC + struct.pack(">IQQ", 2, 10, 3 * LARGE_BYTES + 1),
        MAGIC + struct.pack(">IQQQ", 3, 10, 3 * LARGE_BYTES, 2 * LARGE_BYTES),
    ],
)
def test_limits_hold_before_memory_is_taken(header: bytes) -> None:
    decoder = Decoder(SMALL)
    decoder.feed(header)
    with pytest.raises(TooLarge):
        decoder.next_packet()


def test_a_header_that_lies_takes_no_memory() -> None:
    before = psutil.Process().memory_info().rss
    decoder = Decoder()
    decoder.feed(MAGIC + struct.pack(">IQQ", 2, 1, 1 << 33) + b"\x90")
    try:
        assert decoder.next_packet() is None
    except TooLarge:
        return
    assert decoder.wanted() is not None
    assert psutil.Process().memory_info().rss - before < 50 << 20


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(st.lists(plain, max_size=5))
def test_plain_data_comes_back(batch: list[Any]) -> None:
    assert decode(encode(batch)) == batch


@pytest.mark.parametrize("size", [0, 10, OUT_OF_BAND_BYTES - 1, OUT_OF_BAND_BYTES, 10 * OUT_OF_BAND_BYTES])
def test_buffers_come_back_and_can_be_forwarded(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    batch = [[1, [b"head", Buffer(memoryview(content)[:size])]]]
    made = encode(batch)
    assert len(made) == (2 if size >= OUT_OF_BAND_BYTES else 1)
    forwarded = decode(encode(decode(made)))
    assert bytes(forwarded[0][1][1].view) == content[:size]


@pytest.mark.parametrize(
    "broken",
    [
        [b""],
        [b"\xc1"],
        [msgpack.packb(5)],
        [msgpack.packb([]), b"a frame that nobody names"],
        [msgpack.packb([msgpack.ExtType(1, struct.pack(">I", 1))])],
        [msgpack.packb([msgpack.ExtType(9, b"")])],
        [msgpack.packb([1]) + b"more"],
        [b"\x91" * 5000 + b"\x90"],
    ],
)
def test_broken_bodies_are_refused(broken: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode(list(broken))


def test_what_is_not_plain_is_refused() -> None:
    for value in (object(), 2**70, {"a": threading.Lock()}):
        with pytest.raises(NotSerializable):
            encode([value])


@settings(deadline=None, max_examples=300)
@given(st.one_of(plain, st.lists(plain, max_size=8)))
def test_what_is_no_message_is_refused(value: Any) -> None:
    try:
        message = from_plain(value)
    except ProtocolError:
        return
    assert list(to_plain(message)) == value


def test_every_word_has_its_place() -> None:
    for number, word in enumerate(messages.WORDS):
        assert word.__doc__
        fields = {"int": 1, "str": "s", "bool": True, "bytes": b"", "float": 0.5}
        values = [fields.get(str(getattr(each, "__forward_arg__", each)), []) for each in word.__annotations__.values()]
        values = [
            {} if "dict" in str(each) else value
            for each, value in zip(word.__annotations__.values(), values, strict=True)
        ]
        (copy,) = decode(encode([to_plain(word(*values))]))
        assert copy[0] == number
        assert from_plain(copy) == word(*values)


class Reference:
    def __reduce__(self) -> Any:
        return payload.reference(self)


class Holder:
    def __init__(self, inside: Any) -> None:
        self.inside = inside


def test_references_at_any_depth() -> None:
    one, two = Reference(), Reference()
    frames, found = payload.dumps_call((one, [Holder({"x": two})], one), {"k": (two,)})
    assert found == [one, two]
    args, kwargs = payload.loads_call(frames, ["first", "second"])
    assert args[0] == args[2] == "first"
    assert args[1][0].inside == {"x": "second"}
    assert kwargs == {"k": ("second",)}
    with pytest.raises(NotSerializable):
        payload.dumps(one)


def test_arrays_travel_out_of_band_and_are_writable() -> None:
    array = np.arange(100_000)
    frames = payload.dumps({"a": array})
    assert [type(each) for each in frames] == [bytes, Buffer]
    sent = [bytearray(frame) for frame in encode([frames])]
    back = payload.loads(decode(sent)[0])["a"]
    assert (back == array).all()
    back[0] = 7
    assert array[0] == 0
    small = payload.loads(decode(encode([payload.dumps(np.arange(3))]))[0])
    small[0] = 7


class Odd(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(one, two)


class Hostile(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        Odd(1, two=2),
        Hostile(),
        Locked(),
        SystemExit(3),
        KeyError(("a", 1)),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "r"),
    ],
)
def test_any_exception_can_be_sent(error: BaseException) -> None:
    def raise_it() -> None:
        raise error

    try:
        raise_it()
    except BaseException as caught:
        frames = payload.dumps_exception(caught)
    back = payload.loads_exception(frames)
    assert isinstance(back, BaseException)
    assert type(error).__name__ in repr(back) + str(type(back))
    assert traceback.extract_tb(back.__traceback__)[-1].name == "raise_it"


@settings(deadline=None, max_examples=200)
@given(plain)
def test_sizes_are_never_an_error(value: Any) -> None:
    assert payload.sizeof(value) >= 0
    if payload.small_plain(value):
        assert len(pickle.dumps(value)) < 8192


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a:1", Address("a", 1)),
        ("tcp://10.0.0.1:8786", Address("10.0.0.1", 8786)),
        ("[::1]:80", Address("::1", 80)),
        ("host", Address("host", 8786)),
        ("[::1]", Address("::1", 8786)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, 8786) == address
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:b", "a:0", "a:65536", "a b:1", "::1:80", "[::1", "u@h:1", "a:-1", "a:1²"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text, 8786)
