"""The frames that the server writes by itself, compared with wsproto's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.transport.frames import close_frame, text_frame
from wsproto.frame_protocol import Frame, FrameProtocol, Opcode


def by_wsproto(text: str) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(text, fin=True))


def as_a_client_reads(data: bytes) -> list[Frame]:
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(data)
    return list(protocol.received_frames())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576])
def test_a_text_frame_of_any_size_is_wsprotos_own(size: int) -> None:
    assert text_frame(b"x" * size) == by_wsproto("x" * size)


@given(st.text())
def test_a_text_frame_of_any_text_is_wsprotos_own(text: str) -> None:
    assert text_frame(text.encode()) == by_wsproto(text)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_frames_in_a_row_are_read_as_so_many_messages(texts: list[str]) -> None:
    frames = as_a_client_reads(b"".join(text_frame(text.encode()) for text in texts))
    assert [(frame.opcode, frame.payload, frame.message_finished) for frame in frames] == [
        (Opcode.TEXT, text, True) for text in texts
    ]


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4001])
@pytest.mark.parametrize("reason", ["", "the server is restarting"])
def test_a_close_frame_is_read_with_its_code_and_its_reason(code: int, reason: str) -> None:
    (frame,) = as_a_client_reads(close_frame(code, reason))
    assert frame.opcode is Opcode.CLOSE
    assert (int(frame.payload[0]), frame.payload[1] or "") == (code, reason)


def test_a_close_frame_never_exceeds_what_a_control_frame_may_hold() -> None:
    assert len(close_frame(1011, "é" * 200)) <= 2 + 125
