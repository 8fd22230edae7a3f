"""The server's side of a WebSocket by itself: its two ways for messages, which must not be told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from lastcall.transport.flusher import Flusher
from lastcall.transport.frame_pace import FRAMES_PER_CHECKPOINT
from lastcall.transport.sieve import Sieve
from lastcall.transport.stream import BufferedStream
from lastcall.transport.websocket import WebSocket
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.support.raw_wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Stream, close

from ...support.examples import examples

BYTES_MAX = 1_000


@asynccontextmanager
async def opened(*, deliver: bool = True) -> AsyncIterator[tuple[WebSocket, Stream, list[object]]]:
    """A connection after its handshake, the client's end of its stream, and the messages that are delivered."""
    messages: list[object] = []
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as tasks:
        flusher = Flusher()
        tasks.start_soon(flusher.run)
        stream = BufferedStream(ours, tasks, flusher, send_seconds=1.0, bytes_high=1_000_000, bytes_max=1_000_000)
        ws = WebSocket(stream, tasks, BYTES_MAX)
        if deliver:
            ws.deliver(messages.append, lambda: None)
        yield ws, theirs, messages
        tasks.cancel_scope.cancel()


async def test_empty_fragments_are_not_kept() -> None:
    async with opened() as (ws, client, messages):
        await client.send_all(Frame(TEXT, b"Hel", fin=False).encode())
        await client.send_all(Frame(CONTINUATION, fin=False).encode() * 10_000)
        await wait_all_tasks_blocked()
        assert len(ws._message_parts) == 1
        await client.send_all(Frame(CONTINUATION, b"lo", fin=False).encode() + Frame(CONTINUATION).encode())
        await wait_all_tasks_blocked()
        assert messages == ["Hello"]


async def test_other_tasks_run_during_a_flood_of_tiny_frames() -> None:
    flood, turns = Frame(PONG).encode() * 10_000, 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with opened() as (_ws, client, messages), trio.open_nursery() as others:
        await wait_all_tasks_blocked()
        others.start_soon(take_turns)
        await client.send_all(flood + Frame(TEXT, b"over").encode())
        while not messages:
            await trio.lowlevel.checkpoint()
        others.cancel_scope.cancel()
    assert turns >= 10_000 // FRAMES_PER_CHECKPOINT


async def test_the_size_limit_counts_the_bytes_of_each_message() -> None:
    async with opened() as (ws, client, messages):
        for _ in range(3):
            await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2)).encode())
            await wait_all_tasks_blocked()
            assert messages.pop() == "é" * (BYTES_MAX // 2)
        assert not ws.too_big
        await client.send_all(Frame(TEXT, "é".encode() * (BYTES_MAX // 2 + 1)).encode())
        await wait_all_tasks_blocked()
        assert ws.too_big


async def test_a_ping_that_crosses_our_close_frame_is_ignored() -> None:
    """The library would raise instead of reading the client's close frame."""
    async with opened() as (ws, client, _messages), trio.open_nursery() as closing:
        closing.start_soon(ws.aclose, 1012)
        await wait_all_tasks_blocked()
        await client.send_all(Frame(PING, b"crossing").encode() + close(1012).encode())
        await wait_all_tasks_blocked()
        assert ws.closed is not None
        assert ws.closed.code == 1012
        assert not ws.malformed


async def test_nothing_is_read_before_deliver() -> None:
    async with opened(deliver=False) as (ws, client, messages):
        expected = [f"{number}" for number in range(50)]
        for number in expected:
            await client.send_all(Frame(TEXT, number.encode()).encode())
        await client.send_all(close(1000).encode())
        await wait_all_tasks_blocked()
        assert ws.closed is None
        ws.deliver(messages.append, lambda: messages.append("the end"))
        await wait_all_tasks_blocked()
        assert messages == [*expected, "the end"]


async def test_a_close_before_deliver_reads_the_reply_of_the_peer() -> None:
    async with opened(deliver=False) as (ws, client, messages):
        await client.send_all(Frame(TEXT, b"never delivered").encode() + close(1013).encode())
        await ws.aclose(1013)
        assert (ws.answered, messages) == (True, [])


async def test_the_end_is_told_once_and_after_the_last_message() -> None:
    async with opened(deliver=False) as (ws, client, messages):
        ws.deliver(messages.append, lambda: messages.append("the end"))
        await client.send_all(Frame(TEXT, b"bye").encode() + close(1000).encode())
        await wait_all_tasks_blocked()
        assert messages == ["bye", "the end"]


@pytest.mark.parametrize("fragments", [1, 2])
async def test_a_message_that_is_too_big_is_the_end_also_of_a_client_that_says_nothing_more(fragments: int) -> None:
    held = 0

    def hold(size: int) -> None:
        nonlocal held
        held += size

    async with opened(deliver=False) as (ws, client, messages):
        ws.count_bytes(hold)
        ws.deliver(messages.append, lambda: messages.append("the end"))
        part = "é".encode() * (BYTES_MAX // 2 // fragments + 1)
        for number in range(fragments):
            first, last = number == 0, number == fragments - 1
            await client.send_all(Frame(TEXT if first else CONTINUATION, part, fin=last).encode())
        await wait_all_tasks_blocked()
        assert messages == ["the end"]
        assert (ws.too_big, held) == (True, 0)


async def test_whole_text_frames_never_meet_wsproto_and_all_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it notices a wsproto whose private parts have changed."""
    met: list[bytes] = []
    short, ping, fragment = Frame(TEXT, b"short").encode(), Frame(PING).encode(), Frame(TEXT, b"a", fin=False).encode()
    rest = Frame(CONTINUATION, b"b").encode()
    async with opened() as (ws, client, messages):
        receive_data = ws._wsproto.receive_data

        def meet(data: bytes | None) -> None:
            met.append(data or b"")
            receive_data(data)

        monkeypatch.setattr(ws._wsproto, "receive_data", meet)
        pieces = [short + short, short[:5], short[5:], short + ping, short, fragment, ping, rest + short, short, b""]
        for piece in pieces:
            if piece:
                await client.send_all(piece)
                await wait_all_tasks_blocked()
    assert met == [short[:5], short[5:], ping, fragment, ping, rest + short]
    assert messages == ["short"] * 5 + ["ab"] + ["short"] * 2


async def test_a_close_that_began_is_awaited_and_sends_no_second_frame() -> None:
    async with opened() as (ws, client, messages), trio.open_nursery() as closing:
        assert ws.begin_close(1012, "shutdown") == b"\x88\x0a" + (1012).to_bytes(2, "big") + b"shutdown"
        assert ws.begin_close(1001, None) == ws.ping_frame() == b""
        assert ws.closed is not None
        over = trio.Event()

        async def close_and_tell() -> None:
            await ws.aclose(1012)
            over.set()

        closing.start_soon(close_and_tell)
        await client.send_all(Frame(TEXT, b"crossing").encode())
        await wait_all_tasks_blocked()
        assert (over.is_set(), ws.answered) == (False, False)
        await client.send_all(close(1012).encode())
        await over.wait()
        assert (ws.answered, messages) == (True, [])


@pytest.mark.parametrize(("first", "answered"), [(close(1000), True), (Frame(3), False)], ids=["closed", "malformed"])
async def test_only_a_peer_that_closes_in_order_sends_nothing_more(first: Frame, answered: bool) -> None:
    async with opened() as (ws, client, _messages):
        await client.send_all(first.encode())
        await wait_all_tasks_blocked()
        assert ws.answered is answered
        assert ws.begin_close(1012, None) == b""


async def test_a_message_that_crosses_our_close_frame_is_not_delivered() -> None:
    async with opened() as (ws, client, messages), trio.open_nursery() as closing:
        closing.start_soon(ws.aclose, 1012)
        await wait_all_tasks_blocked()
        await client.send_all(Frame(TEXT, b"crossing").encode() * 2 + close(1012).encode())
        await wait_all_tasks_blocked()
        assert not messages


# --- the two ways

MASKS = st.sampled_from([b"\1\2\3\4", bytes(4)])
INNER = Frame(TEXT, b"in").encode()  # in a payload it is no frame
TEXTS = st.text(max_size=40).map(str.encode) | st.sampled_from([
    b"", b"x" * 126, b"x" * (BYTES_MAX + 1), "é".encode() * (BYTES_MAX // 2), INNER.replace(b"\x81\x82", b"in")
])  # fmt: skip
PAYLOADS = st.sampled_from([b"", b"\x03\xe8", b"\xc3", b"\xa9", b"text", INNER, INNER * 2]) | st.binary(max_size=130)
WHOLE = st.builds(Frame, st.just(TEXT), TEXTS, mask=MASKS)
PARTS = st.builds(Frame, st.sampled_from([TEXT, BINARY, CONTINUATION]), PAYLOADS, fin=st.booleans(), mask=MASKS)
PINGS = st.builds(Frame, st.sampled_from([PING, PONG]), PAYLOADS.map(lambda payload: payload[:125]), mask=MASKS)
WRONG = st.builds(
    Frame,
    st.sampled_from([TEXT, CONTINUATION, PING, CLOSE, 3, 11]),
    PAYLOADS,
    fin=st.booleans(),
    rsv=st.sampled_from([0, 1, 4]),
    masked=st.booleans(),
    length_bytes=st.sampled_from([None, 2, 8]),
)
FRAMES = st.tuples(st.lists(st.one_of(WHOLE, WHOLE, PARTS, PINGS), min_size=1, max_size=8), st.lists(WRONG, max_size=1))
GARBAGE = st.binary(max_size=6) | st.sampled_from([b"", b"\x81" + INNER, b"\x81\xfe\x00" + INNER])


@st.composite
def cut(draw: st.DrawFn, frames: Sequence[bytes]) -> list[bytes]:
    """The frames' bytes in pieces; cuts are as likely between two frames as within one."""
    pieces = [b""]
    for frame in frames:
        if draw(st.booleans()):
            pieces.append(b"")
        at = draw(st.integers(0, min(len(frame), 8)) | st.integers(0, len(frame)))
        if draw(st.booleans()):
            pieces[-1] += frame[:at]
            pieces.append(frame[at:])
        else:
            pieces[-1] += frame
    return pieces


async def heard(pieces: list[bytes], way: str) -> tuple[object, ...]:
    """Everything that comes of a client's bytes: messages and the end in their order, and the bytes for the client."""
    seen: list[object] = []
    answer = bytearray()
    async with opened(deliver=False) as (ws, client, _):
        if way == "wsproto":
            ws._sieve.__class__ = Blind

        async def note_bytes() -> None:
            while data := await client.receive_some(1_000_000):
                answer.extend(data)

        async with trio.open_nursery() as listening:
            listening.start_soon(note_bytes)
            ws.deliver(seen.append, lambda: seen.append("the end"))
            for piece in pieces:
                try:
                    await client.send_all(piece)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                await wait_all_tasks_blocked()
            listening.cancel_scope.cancel()
        end = ws.closed.code if ws.closed else None, ws.malformed, ws.too_big, ws.crashed
    return seen, bytes(answer), end


class Blind(Sieve):
    """Leaves everything to wsproto."""

    __slots__ = ()

    async def _sift(self, data: bytes) -> bytes:
        return data


@examples(200)
@given(frames=FRAMES, garbage=GARBAGE, data=st.data())
def test_the_short_way_hears_what_wsproto_hears_however_the_bytes_are_cut(
    frames: tuple[list[Frame], list[Frame]], garbage: bytes, data: st.DataObject
) -> None:
    sent = [frame.encode() for part in frames for frame in part]
    pieces = [piece for piece in data.draw(cut([*sent, garbage]), "pieces") if piece]
    assert trio.run(heard, pieces, "short") == trio.run(heard, pieces, "wsproto")


@pytest.mark.parametrize(
    "pieces",
    [
        [Frame(BINARY, INNER, mask=bytes(4)).encode()[:6], INNER],
        [Frame(PING, INNER, mask=bytes(4)).encode()[:6], INNER],
        [b"\x81", INNER],
        [b"\x81\xfe\x00", INNER],
        [Frame(TEXT, b"a", fin=False).encode(), INNER],
        [Frame(TEXT, b"a", fin=False).encode(), Frame(PING).encode(), INNER],
    ],
    ids=["in a payload", "in a ping", "behind one byte", "in a length", "in a message", "behind a ping in a message"],
)
def test_what_looks_like_a_frame_within_another_one_is_none(pieces: list[bytes]) -> None:
    assert trio.run(heard, pieces, "short") == trio.run(heard, pieces, "wsproto")
