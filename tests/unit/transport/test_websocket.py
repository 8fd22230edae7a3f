"""The server's side of a WebSocket by itself: what a client's smallest frames may cost the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from lastcall.transport.websocket import FRAMES_AT_A_STRETCH, WebSocket
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.support.raw_wire import CONTINUATION, HANDSHAKE, PING, PONG, TEXT, Frame, Stream, close

BYTES_MAX = 1_000


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[WebSocket, Stream]]:
    """A connection after its handshake, and the client's end of its stream."""
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as tasks:
        ws = WebSocket(ours, BYTES_MAX)
        await theirs.send_all(HANDSHAKE)
        await (await ws.request(tasks)).accept()
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


async def test_others_run_while_a_flood_of_tiny_frames_is_read() -> None:
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
    assert turns >= 10_000 // FRAMES_AT_A_STRETCH


async def test_a_texts_size_is_counted_in_bytes_and_a_message_has_its_own_count() -> None:
    async with opened() as (ws, client):
        for _ in range(3):
            await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2)).encode())
            assert len(await ws.get_message()) == BYTES_MAX // 2
        assert not ws.too_big
        await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2 + 1)).encode())
        await wait_all_tasks_blocked()
        assert ws.too_big


async def test_a_ping_that_crosses_our_close_frame_does_not_keep_us_from_the_clients_answer() -> None:
    async with opened() as (ws, client), trio.open_nursery() as closing:
        closing.start_soon(ws.aclose, 1012)
        await wait_all_tasks_blocked()
        await client.send_all(Frame(PING, b"crossing").encode() + close(1012).encode())
        await wait_all_tasks_blocked()
        assert ws.closed is not None
        assert ws.closed.code == 1012
        assert not ws.malformed
