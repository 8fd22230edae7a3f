"""The server's side of a WebSocket by itself, and the frames that are written without wsproto."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from lastcall.transport.websocket import FRAMES_PER_CHECKPOINT, WebSocket, close_frame, text_frame
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from wsproto.frame_protocol import Frame as ParsedFrame
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.support.raw_wire import CONTINUATION, HANDSHAKE, PING, PONG, TEXT, Frame, Stream, close

BYTES_MAX = 1_000


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[WebSocket, Stream]]:
    """A connection after its handshake, and the client's end of its stream."""
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as tasks:
        ws = WebSocket(ours, BYTES_MAX)
        await theirs.send_all(HANDSHAKE)
        request = await ws.request(tasks)
        assert request is not None
        await request.accept()
        yield ws, theirs
        tasks.cancel_scope.cancel()


async def test_empty_fragments_are_not_kept() -> None:
    async with opened() as (ws, client):
        await client.send_all(Frame(TEXT, b"Hel", fin=False).encode())
        await client.send_all(Frame(CONTINUATION, fin=False).encode() * 10_000)
        await wait_all_tasks_blocked()
        assert len(ws._message_parts) == 1
        await client.send_all(Frame(CONTINUATION, b"lo", fin=False).encode() + Frame(CONTINUATION).encode())
        assert await ws.get_message() == "Hello"


async def test_other_tasks_run_during_a_flood_of_tiny_frames() -> None:
    flood, turns = Frame(PONG).encode() * 10_000, 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with opened() as (ws, client), trio.open_nursery() as others:
        await wait_all_tasks_blocked()
        others.start_soon(take_turns)
        await client.send_all(flood + Frame(TEXT, b"over").encode())
        assert await ws.get_message() == "over"
        others.cancel_scope.cancel()
    assert turns >= 10_000 // FRAMES_PER_CHECKPOINT


async def test_the_size_limit_counts_the_bytes_of_each_message() -> None:
    async with opened() as (ws, client):
        for _ in range(3):
            await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2)).encode())
            assert len(await ws.get_message()) == BYTES_MAX // 2
        assert not ws.too_big
        await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2 + 1)).encode())
        await wait_all_tasks_blocked()
        assert ws.too_big


async def test_a_ping_that_crosses_our_close_frame_is_ignored() -> None:
    """The library would raise instead of reading the client's close frame."""
    async with opened() as (ws, client), trio.open_nursery() as closing:
        closing.start_soon(ws.aclose, 1012)
        await wait_all_tasks_blocked()
        await client.send_all(Frame(PING, b"crossing").encode() + close(1012).encode())
        await wait_all_tasks_blocked()
        assert ws.closed is not None
        assert ws.closed.code == 1012
        assert not ws.malformed


# --- frames written without wsproto


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
