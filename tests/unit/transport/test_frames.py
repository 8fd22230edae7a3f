"""Frames that are written and read without wsproto, against wsproto."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.transport.frames import close_frame, read_text_frame, text_frame
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage
from wsproto.frame_protocol import Frame as ParsedFrame
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.support.raw_wire import BINARY, CONTINUATION, PING, TEXT, Frame

BYTES_MAX = 100_000


def encoded_by_wsproto(text: str) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(text, fin=True))


def parsed_by_a_client(data: bytes) -> list[ParsedFrame]:
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(data)
    return list(protocol.received_frames())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576])
def test_a_text_frame_of_any_size_equals_wsprotos(size: int) -> None:
    assert text_frame(b"x" * size) == encoded_by_wsproto("x" * size)


@given(st.text())
def test_a_text_frame_of_any_text_equals_wsprotos(text: str) -> None:
    assert text_frame(text.encode()) == encoded_by_wsproto(text)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_consecutive_frames_are_parsed_as_one_message_each(texts: list[str]) -> None:
    frames = parsed_by_a_client(b"".join(text_frame(text.encode()) for text in texts))
    assert [(frame.opcode, frame.payload, frame.message_finished) for frame in frames] == [
        (Opcode.TEXT, text, True) for text in texts
    ]


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4001])
@pytest.mark.parametrize("reason", ["", "the server is restarting"])
def test_a_close_frame_carries_its_code_and_reason(code: int, reason: str) -> None:
    (frame,) = parsed_by_a_client(close_frame(code, reason))
    assert frame.opcode is Opcode.CLOSE
    assert (int(frame.payload[0]), frame.payload[1] or "") == (code, reason)


def test_a_close_frame_never_exceeds_the_size_of_a_control_frame() -> None:
    assert len(close_frame(1011, "é" * 200)) <= 2 + 125


# --- frames that are read

MASKS = st.binary(min_size=4, max_size=4)


def read_by_wsproto(data: bytes) -> str:
    connection = Connection(ConnectionType.SERVER)
    connection.receive_data(data)
    (event,) = connection.events()
    assert isinstance(event, TextMessage)
    assert event.message_finished
    return event.data


@given(st.text(max_size=300), MASKS, st.binary(max_size=20), st.binary(max_size=20))
def test_a_whole_text_frame_is_read_as_wsproto_reads_it(text: str, mask: bytes, before: bytes, after: bytes) -> None:
    data = Frame(TEXT, text.encode(), mask=mask).encode()
    found = read_text_frame(before + data + after, len(before), BYTES_MAX)
    assert found == (read_by_wsproto(data), len(before) + len(data))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4_000, 65_535])
def test_a_whole_text_frame_of_any_size_below_64_kib_is_read(size: int) -> None:
    data = Frame(TEXT, b"x" * size).encode()
    assert read_text_frame(data, 0, BYTES_MAX) == ("x" * size, len(data))


@given(st.text(min_size=1, max_size=200), MASKS, st.data())
def test_a_part_of_a_frame_is_left_to_wsproto(text: str, mask: bytes, data: st.DataObject) -> None:
    whole = Frame(TEXT, text.encode(), mask=mask).encode()
    assert read_text_frame(whole[: data.draw(st.integers(0, len(whole) - 1))], 0, BYTES_MAX) is None


@pytest.mark.parametrize(
    "frame",
    [
        Frame(TEXT, b"x" * 101),
        Frame(TEXT, b"x" * 70_000),
        Frame(TEXT, b"x", fin=False),
        Frame(TEXT, b"x", rsv=4),
        Frame(TEXT, b"x", rsv=1),
        Frame(TEXT, b"x", masked=False),
        Frame(TEXT, b"x" * 80, masked=False),
        Frame(TEXT, b"", masked=False),
        Frame(TEXT, b"x" * 80, length_bytes=2),
        Frame(TEXT, b"x" * 80, length_bytes=8),
        Frame(TEXT, b"\xff"),
        Frame(TEXT, b"\xed\xa0\x80"),
        Frame(TEXT, "é".encode()[:1]),
        Frame(BINARY, b"x"),
        Frame(CONTINUATION, b"x"),
        Frame(PING, b"x"),
        Frame(3, b"x"),
    ],
    ids=repr,
)
def test_whatever_is_no_short_valid_text_is_left_to_wsproto(frame: Frame) -> None:
    assert read_text_frame(frame.encode() + bytes(20), 0, 100) is None
