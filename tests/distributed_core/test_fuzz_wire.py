"""Bytes, bodies and words off the wire: whatever comes is refused with a `ProtocolError` or is what it says.

By default about 2,100 inputs run; see `fuzzing.FACTOR`.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_core.comm.address import parse_address
from distributed_core.errors import AddressError, ProtocolError, UsageError
from distributed_core.protocol.codec import decode, encode
from distributed_core.protocol.framing import GREETING_LIMITS, LARGE_BYTES, MAGIC, Decoder, Limits, encode_packet
from distributed_core.protocol.plain import from_plain, to_plain
from distributed_core.quantities import parse_duration, parse_environment, parse_memory, parse_resources
from tests.distributed_core.fuzzing import ANY_WORD, anything, inputs, integers

SMALL = Limits(frames_max=5, body_bytes_max=1 << 16, frame_bytes_max=3 * LARGE_BYTES, packet_bytes_max=4 * LARGE_BYTES)
lengths = st.one_of(st.integers(0, 200), st.sampled_from([2**63, 2**64 - 1, LARGE_BYTES, 1 << 16, (1 << 16) + 1]))
headers = st.builds(
    lambda magic, count, sizes, rest: magic + struct.pack(">I", count) + struct.pack(f">{len(sizes)}Q", *sizes) + rest,
    st.sampled_from([MAGIC, MAGIC, MAGIC, b"DC2\x02", b"GET "]),
    st.one_of(st.integers(0, 6), st.sampled_from([2**31, 2**32 - 1])),
    st.lists(lengths, max_size=5),
    st.binary(max_size=60),
)
packets = st.lists(st.binary(max_size=40), min_size=1, max_size=3).map(
    lambda frames: b"".join(map(bytes, encode_packet(list(frames))))
)


def read(decoder: Decoder, pieces: list[bytes]) -> list[list[bytes]]:
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while (packet := decoder.next_packet()) is not None:
            found.append([bytes(frame) for frame in packet])
    return found


@inputs(600)
@given(st.one_of(headers, packets, st.binary(max_size=100)), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_headers_that_lie(stream: bytes, sizes: list[int]) -> None:
    """600 streams by default, each whole and in pieces: both ways end alike, and hold no more than was sent."""
    pieces, start, turn = [], 0, 0
    while start < len(stream):
        pieces.append(stream[start : start + sizes[turn % len(sizes)]])
        start, turn = start + sizes[turn % len(sizes)], turn + 1
    outcomes: list[Any] = []
    for way in ([stream], pieces):
        decoder = Decoder(SMALL)
        try:
            outcomes.append(read(decoder, way))
        except ProtocolError as error:
            outcomes.append(type(error))
        assert len(decoder._buffer) <= len(stream) + 8
    one, other = outcomes
    # In pieces a packet may be given out before the next one is found broken.
    assert one == other or not isinstance(one, list)


def test_split_at_every_byte() -> None:
    frames = [b"body", b"", bytes(LARGE_BYTES + 1), b"x"]
    stream = b"".join(map(bytes, encode_packet(list(frames)))) * 2
    for place in [*range(80), len(stream) // 2 - 1, len(stream) // 2, len(stream) // 2 + 1, len(stream) - 1]:
        assert read(Decoder(), [stream[:place], stream[place:]]) == [frames, frames]
    for place in range(0, len(stream) // 2 - 1, 997):
        assert read(Decoder(), [stream[:place]]) == []


@pytest.mark.parametrize("count", [0, 2, 2**20, 2**32 - 1])
def test_a_stranger_may_send_one_frame(count: int) -> None:
    decoder = Decoder(GREETING_LIMITS)
    decoder.feed(MAGIC + struct.pack(">I", count))
    with pytest.raises(ProtocolError):
        decoder.next_packet()


bodies = st.one_of(
    anything.map(lambda value: _packed([value])),
    st.binary(max_size=40),
    st.builds(lambda depth, kind: kind * depth, st.integers(1, 3000), st.sampled_from([b"\x91", b"\x81\xa0", b"\xc7"])),
    st.sampled_from(
        [
            b"\xdd\xff\xff\xff\xff",  # a list of 2**32 elements
            b"\xdf\xff\xff\xff\xff",  # a map of as many
            b"\x91\xc6\xff\xff\xff\xff",  # bytes of as many
            b"\x91\xa2\xc3\x28",  # no UTF-8
            b"\x91\xd6\xff\x00\x00\x00\x00",  # a timestamp
            b"\x91\x81\x91\x01\x02",  # a list as a key
            b"\x91\xd6\x01\x00\x00\x00\x01",  # a buffer that is not there
            b"\x91\xc7\x00\x02",
        ]
    ),
)


def _packed(value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value, use_bin_type=True))
    except (ValueError, OverflowError):
        return b"\x91" * 700 + b"\x90"


@inputs(600)
@given(bodies, st.lists(st.binary(max_size=3), max_size=2))
def test_bodies(body: bytes, more: list[bytes]) -> None:
    """600 bodies by default."""
    try:
        batch = decode([body, *more])
    except ProtocolError:
        return
    assert type(batch) is list


@inputs(400)
@given(st.one_of(anything, st.builds(lambda number, rest: [number, *rest], integers, st.lists(anything, max_size=7))))
def test_arrays_that_are_no_messages(plain: Any) -> None:
    """400 arrays by default."""
    try:
        message = from_plain(plain)
    except ProtocolError:
        return
    assert list(to_plain(message))[1:] == plain[1:] or plain != plain


@inputs(300)
@given(ANY_WORD, st.data())
def test_each_word_with_one_field_wrong(word: Any, data: st.DataObject) -> None:
    """300 words by default: one field less, one more, and one of another type."""
    plain = list(to_plain(word))
    for wrong in (plain[:-1], [*plain, None], [str(plain[0]), *plain[1:]]):
        with pytest.raises(ProtocolError):
            from_plain(wrong)
    place = data.draw(st.integers(1, len(plain) - 1))
    changed = [*plain[:place], object(), *plain[place + 1 :]]
    if str(getattr(list(type(word).__annotations__.values())[place - 1], "__forward_arg__", "")) != "Any":
        with pytest.raises(ProtocolError):
            from_plain(changed)


@inputs(200)
@given(st.text(max_size=30))
def test_texts_of_people(text: str) -> None:
    """200 texts by default: addresses, durations, amounts, resources, variables."""
    for parse in (parse_address, parse_duration, parse_memory, parse_resources, lambda each: parse_environment([each])):
        try:
            parse(text)
        except (UsageError, AddressError) as error:
            said = str(error)
            assert "\n" not in said


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "h"])
def test_more_time_or_memory_than_there_is(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)
    with pytest.raises(UsageError):
        parse_memory(text.removesuffix("h") + "T")


@pytest.mark.parametrize("host", ["a\0b:1", "a\x1bb:1", "\u202ea:1"])
def test_hosts_that_cannot_be_printed(host: str) -> None:
    with pytest.raises(AddressError):
        parse_address(host)


def test_what_is_read_may_not_be_read_elsewhere() -> None:
    """Why payloads and figures are looked at: in an answer they lie a little deeper, and its reader gives up."""
    body = b"\x91" * 1020 + b"\x90"
    batch = decode([body])
    with pytest.raises((ProtocolError, UsageError)):
        decode(encode([[[[[batch]]]]]))
