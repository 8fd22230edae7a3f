"""Any bytes on a connection: a reply or a close within bounds, the right end reason, and no effect on anything else."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st
from lastcall.config import Settings
from lastcall.protocol.client_events import AnyClientEvent, EventRejected, ItemCreate
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event
from lastcall.store.records import StoredItem

from tests.support.examples import examples
from tests.support.fake_rows import SessionRecord
from tests.support.raw_wire import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    SETTINGS,
    TEXT,
    Frame,
    Stream,
    World,
    close,
    events_from,
    frames_from_server,
    in_a_world,
    text,
)

MESSAGE_BYTES_MAX = 2_000  # of the worlds with small frames, so that they reach it
PAUSE_SECONDS = 1.0  # before a client leaves, so that all it said is handled
ENDS = ("half-close", "close", "silence")
ANSWERS = {"error", "session.updated", "conversation.item.done", "response.done"}

Pieces = Sequence[tuple[bytes, float]]


@dataclass
class Heard:
    """The bytes that a client received, and the rows of its session, if one began."""

    data: bytes
    row: SessionRecord | None
    items: list[StoredItem]


def converse(pieces: Pieces, end: str, **changes: Any) -> Heard:
    """Sends pieces of bytes, each after a pause in seconds; then shuts the sending side, closes, or is silent."""

    async def scenario(world: World) -> Heard:
        stream, heard = world.dial(), bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, stream, heard)
            await _speak(stream, pieces, end)
            await world.emptied()
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
        row = next(iter(world.rows_of("fuzz")), None)
        return Heard(bytes(heard), row, world.store.items(row.conversation_id) if row else [])

    return in_a_world(scenario, **changes)


async def _listen(stream: Stream, heard: bytearray) -> None:
    with contextlib.suppress(trio.ClosedResourceError):
        while data := await stream.receive_some(65_536):
            heard.extend(data)


async def _speak(stream: Stream, pieces: Pieces, end: str) -> None:
    try:
        for piece, pause in pieces:
            await trio.sleep(pause)
            await stream.send_all(piece)
    except trio.BrokenResourceError:
        return
    await trio.sleep(PAUSE_SECONDS)
    if end != "silence":
        await (stream.aclose() if end == "close" else stream.send_eof())


@st.composite
def cut(draw: st.DrawFn, data: bytes, pauses: Sequence[float]) -> Pieces:
    """The bytes in pieces."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    bounds = [0, *places, len(data)]
    return [(data[start:stop], draw(st.sampled_from(pauses))) for start, stop in pairwise(bounds)]


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """Bytes that once were right: some left out, some doubled, some put in."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 12)))
        data = data[:start] + draw(st.binary(max_size=12) | st.just(data[start:stop] * 2)) + data[stop:]
    return data


# --- before a handshake ---------------------------------------------------------------------------------------------

REQUESTS = [
    HANDSHAKE,
    HANDSHAKE.replace(b"Version: 13", b"Version: 12"),
    HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"),
    HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/memories HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /v1/memories HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    b"POST /v1/memories HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999999999999\r\n\r\nabc",
    b"HEAD /healthz HTTP/1.0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    b"GET /" + b"a" * 70_000,
    b"GET /v1/realtime HTTP/1.1\r\nUpgrade: websocket\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
]
WEBSOCKET_HEADERS = (b"Version", b"Key", b"Protocol", b"Extensions")
PATIENCE_SECONDS = (0.0, 0.0, 0.0, 0.5, 4.0, 11.0)  # between pieces; a handshake may take 10 in all
HTTP_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def check_first_bytes(pieces: Pieces, end: str) -> int | None:
    """Returns the status of the answer."""
    heard = converse(pieces, end)
    if not heard.data:
        return None
    answer = HTTP_ANSWER.match(heard.data)
    assert answer, heard.data
    status = int(answer[1])
    # 501: an unknown transfer coding. 503: /readyz, because nobody renews a lease here.
    assert status < 500 or status in {501, 503}, heard.data
    if heard.row is not None:
        assert status == 101
        assert heard.row.end_reason in {"client_lost", "client_vanished", "protocol_error", "client_closed"}
    return status


@examples(80)
@given(st.data(), st.binary(max_size=200), st.sampled_from(ENDS))
def test_bytes_that_are_no_request_are_refused_or_dropped(data: st.DataObject, garbage: bytes, end: str) -> None:
    status = check_first_bytes(data.draw(cut(garbage, PATIENCE_SECONDS)), end)
    assert status is None or 400 <= status < 500


def with_header(name: bytes, value: bytes) -> bytes:
    """The handshake, with one header in place of its own."""
    others = [line for line in HANDSHAKE.split(b"\r\n") if line and not line.startswith(name + b":")]
    return b"\r\n".join([*others, name + b": " + value, b"", b""])


@pytest.mark.parametrize("end", ["half-close", "silence"])
@pytest.mark.parametrize(
    "name", [b"Host", b"Connection", b"Upgrade", *(b"Sec-WebSocket-" + n for n in WEBSOCKET_HEADERS)]
)
@pytest.mark.parametrize("value", [b"", b"\xe9", b"\xff\xfe, realtime", b"xn--\x80", b"," * 500, b"x" * 300])
def test_a_handshake_with_any_one_header_wrong_is_answered_or_dropped(name: bytes, value: bytes, end: str) -> None:
    check_first_bytes([(with_header(name, value), 0.0)], end)


@pytest.mark.parametrize(
    "target", [b"*", b"/v1/realtime?user=%FF", b"/v1/realtime?conversation=%00", b"http://[", b"/\xe9"]
)
def test_a_handshake_for_any_target_is_answered_or_dropped(target: bytes) -> None:
    check_first_bytes([(HANDSHAKE.replace(b"/v1/realtime?user=fuzz", target), 0.0)], "half-close")


@pytest.mark.parametrize("request_bytes", REQUESTS, ids=lambda data: data[:30].decode("latin-1"))
def test_an_unusual_request_is_answered_or_dropped(request_bytes: bytes) -> None:
    check_first_bytes([(request_bytes, 0.0)], "silence")


@examples(120)
@given(st.data(), damaged(REQUESTS), st.sampled_from(ENDS))
def test_a_damaged_request_is_answered_or_dropped(data: st.DataObject, request: bytes, end: str) -> None:
    note(f"answered {check_first_bytes(data.draw(cut(request, PATIENCE_SECONDS)), end)}")


# --- frames ---------------------------------------------------------------------------------------------------------

SENT_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1014), *range(3000, 5000)}  # those an endpoint may send
PROTOCOL_ERROR, NOT_UTF8 = ("protocol_error", 1002), ("protocol_error", 1007)
TOO_BIG = ("message_too_big", 1009)
BY_END = {"half-close": ("client_lost", None), "close": ("client_lost", None), "silence": ("client_vanished", None)}


@dataclass
class Fate:
    """The outcome of a connection by RFC 6455. ends: end reason and close code, any of these; none while it lasts.

    messages: those that were complete before the end. pings: their payloads.
    """

    ends: set[tuple[str, int | None]] = field(default_factory=set)
    messages: list[str | bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)


def fate_of(frames: Sequence[Frame], bytes_max: int) -> Fate:
    fate, message = Fate(), _Message()
    for frame in frames:
        if _is_malformed(frame):
            fate.ends = {PROTOCOL_ERROR}
        elif frame.opcode == CLOSE:
            fate.ends = {_close_end(frame.payload)}
        elif frame.opcode == PING:
            fate.pings.append(frame.payload)
        elif frame.opcode != PONG:
            fate.ends = message.add(frame, bytes_max)
            if frame.fin and not fate.ends:
                fate.messages.append(message.whole())
                message = _Message()
        if fate.ends:
            break
    return fate


def _is_malformed(frame: Frame) -> bool:
    control = frame.opcode >= CLOSE
    return (
        frame.opcode not in {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
        or (control and (not frame.fin or len(frame.payload) > 125))
        or (frame.length_bytes or 0) > frame.least_length_bytes
        or frame.rsv != 0
        or not frame.masked
    )


def _close_end(payload: bytes) -> tuple[str, int]:
    code = int.from_bytes(payload[:2], "big") if payload else 1005
    if len(payload) == 1 or (payload and code not in SENT_CLOSE_CODES):
        return PROTOCOL_ERROR
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return "client_closed", code


class _Message:
    """A message as its fragments come in."""

    def __init__(self) -> None:
        self.opcode: int | None = None
        self.data = b""
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, frame: Frame, bytes_max: int) -> set[tuple[str, int | None]]:
        if (frame.opcode == CONTINUATION) == (self.opcode is None):
            return {PROTOCOL_ERROR}
        self.opcode = frame.opcode if self.opcode is None else self.opcode
        self.data += frame.payload
        ends: set[tuple[str, int | None]] = {TOO_BIG} if len(self.data) > bytes_max else set()
        try:
            if self.opcode == TEXT:
                self.decoder.decode(frame.payload, frame.fin)
        except UnicodeDecodeError:
            ends.add(NOT_UTF8)
        return ends

    def whole(self) -> str | bytes:
        return self.data.decode() if self.opcode == TEXT else self.data


def check_frames(frames: Sequence[Frame], end: str, pieces: Pieces, bytes_max: int) -> Fate:
    """The outcome of these frames, and the items that must be stored."""
    heard = converse([(HANDSHAKE, 0.0), *pieces], end, message_bytes_max=bytes_max)
    head, _, data = heard.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert ACCEPT in head
    fate, sent, row = fate_of(frames, bytes_max), frames_from_server(data), heard.row
    assert row is not None
    assert (row.end_reason, row.close_code) in (fate.ends or {BY_END[end]})
    assert [payload for opcode, payload in sent if opcode == PONG] == fate.pings
    closes = [payload for opcode, payload in sent if opcode == CLOSE]
    if fate.ends:
        assert [payload[:2] for payload in closes] == [_code_bytes(row.close_code)]
    check_answers(events_from(sent), fate, heard.items)
    return fate


def _code_bytes(code: int | None) -> bytes:
    assert code is not None
    return b"" if code == 1005 else code.to_bytes(2, "big")


def _parsed(message: str | bytes) -> AnyClientEvent | None:
    try:
        return parse_event(message, JsonBounds(Settings().json_values_max, Settings().json_depth_max))
    except EventRejected:
        return None


def check_answers(events: list[dict[str, Any]], fate: Fate, stored: list[StoredItem]) -> None:
    """Every message has one answer, in order; what was acknowledged, and nothing that was not valid, is stored."""
    greeting = [event["type"] for event in events[:2]]
    assert greeting == ["session.created", "conversation.created"] or (fate.ends and not greeting)
    answers = [event for event in events if event["type"] in ANSWERS and not _of_the_agent(event)]
    acknowledged = [event["item"]["id"] for event in events if event["type"] == "conversation.item.done"]
    valid = [parsed for parsed in map(_parsed, fate.messages) if isinstance(parsed, ItemCreate)]
    said = ["".join(part.text for part in create.item.content or []) for create in valid]
    kept = [item.content for item in stored if item.role != "assistant"]
    if fate.ends:
        assert len(answers) <= len(fate.messages)
        assert set(acknowledged) <= {item.item_id for item in stored}
    else:
        assert len(answers) == len(fate.messages)
        assert sorted(acknowledged) == sorted(item.item_id for item in stored)
    rest = iter(said)
    assert all(content in rest for content in kept), "kept what was said, in that order"


def _of_the_agent(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "conversation.item.done" and event["item"]["role"] == "assistant")


def user_item(words: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": words}]
    return {"type": "conversation.item.create", "item": {"role": "user", "content": content, **fields}}


events = st.one_of(
    st.builds(user_item, st.text(max_size=20)),
    st.builds(user_item, st.text(max_size=20), id=st.sampled_from(["a", "b", "", "\0", "x" * 129])),
    st.just({"type": "response.create"}),
    st.builds(lambda words: {"type": "session.update", "session": {"instructions": words}}, st.text(max_size=600)),
).map(lambda event: json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
payloads = st.one_of(events, st.text().map(lambda text: text.encode("utf-8", "replace")), st.binary(max_size=200))
big_payloads = st.builds(lambda word, times: (word * times).encode(), st.sampled_from("xé€😀"), st.integers(400, 2_100))
controls = st.builds(Frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
close_payloads = st.one_of(
    st.binary(max_size=6),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.sampled_from([0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1009, 1011, 1012, 1014, 1015, 1016])
        | st.integers(2990, 3010)
        | st.integers(4990, 5010)
        | st.just(65_535),
        st.sampled_from([b"", b"bye", b"Exceeded maximum message size: 1", "é".encode(), b"\xc3", b"x" * 123]),
    ),
)
wild_frames = st.builds(
    Frame,
    st.integers(0, 15),
    payloads | st.binary(min_size=120, max_size=130),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    masked=st.sampled_from([True, True, True, False]),
    mask=st.binary(min_size=4, max_size=4),
    length_bytes=st.sampled_from([None, None, None, 2, 8]),
)


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """A message in any fragments, with pings and pongs between them."""
    opcode = draw(st.sampled_from([TEXT, TEXT, TEXT, BINARY]))
    data = draw(payloads | big_payloads)
    bounds = [0, *sorted(draw(st.lists(st.integers(0, len(data)), max_size=4))), len(data)]
    frames: list[Frame] = []
    for start, stop in pairwise(bounds):
        frames.append(Frame(CONTINUATION if frames else opcode, data[start:stop], fin=False))
        frames.extend(draw(st.lists(controls, max_size=1)))
    last = max(index for index, frame in enumerate(frames) if frame.opcode < CLOSE)
    frames[last] = replace(frames[last], fin=True)
    return frames


conversations = st.lists(
    st.one_of(
        messages(),
        messages(),
        messages(),
        controls.map(lambda frame: [frame]),
        st.builds(lambda payload: [Frame(CLOSE, payload)], close_payloads),
        wild_frames.map(lambda frame: [frame]),
    ),
    max_size=8,
).map(lambda groups: [frame for group in groups for frame in group])


@examples(200)
@given(st.data(), conversations, st.sampled_from(ENDS))
def test_any_frames_are_handled_as_the_standard_says(data: st.DataObject, frames: list[Frame], end: str) -> None:
    pieces = data.draw(cut(b"".join(frame.encode() for frame in frames), (0.0, 0.0, 0.01)))
    fate = check_frames(frames, end, pieces, MESSAGE_BYTES_MAX)
    note(f"ends with {sorted(fate.ends, key=str)}")


@examples(80)
@given(st.data(), conversations, st.sampled_from(ENDS))
def test_any_bytes_after_the_handshake_end_with_a_reason_and_one_close_frame(
    data: st.DataObject, frames: list[Frame], end: str
) -> None:
    sent = data.draw(damaged([b"".join(frame.encode() for frame in frames)]))
    heard = converse([(HANDSHAKE, 0.0), *data.draw(cut(sent, (0.0, 0.01)))], end, message_bytes_max=MESSAGE_BYTES_MAX)
    assert heard.row is not None
    assert heard.row.end_reason in {
        "client_closed", "client_lost", "client_vanished", "protocol_error", "message_too_big",
    }  # fmt: skip
    note(f"ends with {heard.row.end_reason}")
    events = events_from(frames_from_server(heard.data.partition(b"\r\n\r\n")[2]))
    acknowledged = {event["item"]["id"] for event in events if event["type"] == "conversation.item.done"}
    assert acknowledged <= {item.item_id for item in heard.items}


def fragments(data: bytes, size: int, opcode: int = TEXT) -> list[Frame]:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    last = len(parts) - 1
    return [Frame(CONTINUATION if number else opcode, part, fin=number == last) for number, part in enumerate(parts)]


ITEM = json.dumps(user_item("Hello")).encode()
MAX = SETTINGS.message_bytes_max


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(PING, b"x" * 125)],
        [Frame(PING, b"x" * 126)],
        [Frame(PING, b"x", fin=False)],
        [Frame(PONG, b"x" * 70_000)],
        [Frame(CLOSE, b"\x03")],
        *([close(code)] for code in (0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1009, 1011, 1015, 1016)),
        *([close(code)] for code in (2999, 3000, 4000, 4999, 5000, 65_535)),
        [close(1000, b"x" * 123)],
        [close(1000, b"\xff")],
        [close(1009, b"Exceeded maximum message size: 1")],
        [Frame(CLOSE), text("never read"), Frame(PING)],
        [Frame(CONTINUATION, b"x")],
        [Frame(TEXT, b"x", fin=False), Frame(TEXT, b"y")],
        [Frame(TEXT, b"x", fin=False), Frame(CLOSE)],
        [Frame(TEXT, b"\xff")],
        [Frame(TEXT, b"\xc3", fin=False), Frame(CONTINUATION, b"\xa9")],
        [Frame(TEXT, b"\xc3", fin=False), Frame(CONTINUATION)],
        [Frame(TEXT, b"\xed\xa0\x80")],
        [Frame(BINARY, b"\xff")],
        [Frame(TEXT, ITEM, masked=False)],
        [Frame(3, b"x")],
        [Frame(TEXT, ITEM, rsv=4)],
        [Frame(TEXT, ITEM, length_bytes=8)],
        fragments(ITEM, 1),
        [Frame(TEXT, b"", fin=False), *[Frame(CONTINUATION, b"", fin=False)] * 5_000, Frame(CONTINUATION, ITEM)],
        [text(ITEM.decode() + " " * (MAX - len(ITEM)))],
        [text(ITEM.decode() + " " * (MAX - len(ITEM) + 1))],
        fragments(ITEM + b" " * (MAX - len(ITEM)), 65_536),
        fragments(ITEM + b" " * (MAX - len(ITEM) + 1), 65_536),
        fragments(b"x" * (MAX + 1), 60_000, BINARY),
        [text("é" * (MAX // 2))],
        [text("é" * (MAX // 2) + "x")],
        [text("x" * (MAX + 1)), Frame(PING, b"crossing"), text("and more")],
        [text("[" * 100_000)],
        [text('{"type":"response.create","x":' + "[" * 100_000 + "]" * 100_000 + "}")],
        [text('{"type":"session.update","session":{"tracing":' + "9" * 10_000 + "}}")],
        [text('{"type":"session.update","session":{"max_output_tokens":' + "9" * 10_000 + "}}")],
        [text('{"type":' + "9" * 10_000 + ',"event_id":"e"}')],
        [text({"type": ["response.create"], "event_id": "e" * 600})],
        [text(user_item("Hello", id="a\0b"))],
        [text(user_item("Hel\0lo"))],
        [text(r'{"type":"session.update","session":{"instructions":"\ud800"}}')],
    ],
    ids=lambda frames: "+".join(f"{f.opcode:x}:{f.payload[:8].hex()}({len(f.payload)})" for f in frames[:3]),
)  # fmt: skip
def test_known_hard_cases_are_handled_as_the_standard_says(frames: list[Frame]) -> None:
    check_frames(frames, "half-close", [(b"".join(frame.encode() for frame in frames), 0.0)], MAX)
