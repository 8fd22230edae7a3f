"""Generated bad inputs, by seed: handshakes, auth, HTTP, frames, JSON, unicode, and peers that are slow or half there.

An input is what one peer does on one connection: `Piece`s of bytes, and how it ends.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

SECRET = "sk-hostile-0123456789abcdef0123456789abcdef"  # must never be seen in a log
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DRIP_SECONDS = 0.05
FLOOD_EVENTS = 3_000
FLOOD_FRAMES = 12_000
BIG_BYTES = 1_048_576
WORDS = (
    "",
    "\0",
    "\ud800",
    "\u202e",
    "é" * 300,
    "😀",
    "'; DROP TABLE messages;--",
    "../../etc/passwd",
    "%00",
    "\r\nX: y",
)
PATHS = (
    "/", "//", "*", "/\x7f", "http://evil/", "/healthz?x=" + "y" * 9_000, "/readyz", "/metrics", "/console",
    "/v1/realtime", "/v1/memories?user=%00", "/v1/realtime/client_secrets", "/static/../../schema.sql",
    "/sign-in", "/sign-in/callback?state=%00&code=%ff", "/static/%2e%2e/x",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", "X" * 500)
WITHIN_A_SESSION = ("frames", "json", "unicode", "event flood", "frame flood", "big message")
ENDS = ("close", "half-close", "reset", "silence", "read")


@dataclass(frozen=True, slots=True)
class Input:
    """pieces: bytes, and seconds to wait before them. reads: whether the peer takes what it is sent meanwhile."""

    kind: str
    pieces: list[tuple[bytes, float]]
    end: str
    reads: bool = True

    @property
    def opens(self) -> bool:
        """Whether it begins with a good handshake, and what comes behind it counts."""
        return self.kind in WITHIN_A_SESSION


def inputs(seed: int, count: int) -> Iterator[Input]:
    """So many inputs, the same for the same seed."""
    random = Random(seed)
    kinds = [(name, weight) for name, (weight, _) in KINDS.items()]
    for _ in range(count):
        (name,) = random.choices([name for name, _ in kinds], [weight for _, weight in kinds])
        yield KINDS[name][1](random)


# --- parts


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True, length_bytes: int = 0
) -> bytes:
    """A client's frame, right or wrong. Its mask is zero: legal, and quick to make. length_bytes: 0 for what fits."""
    size = len(payload)
    extended = max(length_bytes, 0 if size < 126 else 2 if size < 65_536 else 8)
    short = {0: size, 2: 126, 8: 127}[extended]
    head = bytes(((fin << 7) | (rsv << 4) | opcode, (masked << 7) | short))
    return head + (size.to_bytes(extended, "big") if extended else b"") + bytes(4 * masked) + payload


def handshake(random: Random, *, target: str = "/v1/realtime", wrong: bool = False) -> bytes:
    headers = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(random.randbytes(16)).decode(),
    }
    if wrong:
        name = random.choice(list(headers))
        headers[name] = random.choice(("", "x" * random.choice((1, 200, 20_000)), "é", "7", ", ,", "h2c"))
        if random.random() < 0.3:
            del headers[name]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {target} HTTP/1.1\r\n{lines}".encode("latin-1", "replace")


def opened(random: Random) -> tuple[bytes, float]:
    return handshake(random, target=f"/v1/realtime?user=hostile{random.randrange(50)}") + b"\r\n", 0.0


def event(**fields: Any) -> bytes:
    return frame(TEXT, json.dumps(fields).encode("utf-8", "surrogatepass"))


def torn(random: Random, data: bytes) -> list[tuple[bytes, float]]:
    """The bytes in up to six pieces, with waits between them."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(6)))
    bounds = [0, *cuts, len(data)]
    return [(data[a:b], random.choice((0.0, 0.0, DRIP_SECONDS))) for a, b in pairwise(bounds)]


def damaged(random: Random, data: bytes) -> bytes:
    """The bytes with some of them changed, gone or doubled."""
    mutable = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(mutable) + 1)
        mutable[at : at + random.randrange(4)] = random.randbytes(random.randrange(4))
    return bytes(mutable)


# --- kinds


def garbage(random: Random) -> Input:
    return Input("garbage", torn(random, random.randbytes(random.choice((1, 50, 3_000, 40_000)))), random.choice(ENDS))


def bad_handshake(random: Random) -> Input:
    data = handshake(random, wrong=True) + b"\r\n"
    return Input(
        "handshake", torn(random, data if random.random() < 0.5 else damaged(random, data)), random.choice(ENDS)
    )


def bad_auth(random: Random) -> Input:
    """Wrong keys, in every place where a key may be."""
    target = f"/v1/realtime?conversation={random.choice(('x', 'conv_' + 'f' * 32, '%00'))}"
    secret = random.choice((f"Bearer {SECRET}", f"Basic {SECRET}", "Bearer " + "x" * 9_000, "Bearer é", SECRET))
    header = random.choice(
        (
            f"Authorization: {secret}",
            f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{SECRET}",
            f"OpenAI-Safety-Identifier: {random.choice(('a' * 300, chr(27) + '[2J', chr(233)))}",
            "Origin: http://evil.example",
        )
    )
    data = handshake(random, target=target) + header.encode("latin-1", "replace") + b"\r\n\r\n"
    return Input("auth", [(data, 0.0)], random.choice(("read", "close", "reset")))


def bad_http(random: Random) -> Input:
    method, path = random.choice(METHODS), random.choice(PATHS)
    body = random.randbytes(random.choice((0, 0, 10, 5_000)))
    length = random.choice((str(len(body)), "-1", "99999999999", "x", str(len(body) + 5)))
    lines = [f"{method} {path} HTTP/{random.choice(('1.1', '1.1', '1.0', '2.0', '9'))}", "Host: localhost"]
    lines += random.choice(
        ([], [f"Content-Length: {length}"], ["Transfer-Encoding: chunked"], ["Expect: 100-continue"])
    )
    lines += random.choice(([], [f"Authorization: Bearer {SECRET}"], ["X: " + "y" * 20_000], [": nameless"]))
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body
    return Input("http", torn(random, data * random.choice((1, 1, 5))), random.choice(ENDS))


def bad_frames(random: Random) -> Input:
    frames = []
    for _ in range(random.randrange(1, 8)):
        payload = random.choice((b"", random.randbytes(random.randrange(130)), b'{"type":"response.create"}'))
        frames.append(
            frame(
                random.choice((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG, random.randrange(16))),
                payload,
                fin=random.random() < 0.7,
                rsv=random.choice((0, 0, 0, 1, 7)),
                masked=random.random() < 0.9,
                length_bytes=random.choice((0, 0, 2, 8)),
            )
        )
    data = b"".join(frames)
    return Input("frames", [opened(random), *torn(random, damaged(random, data))], random.choice(ENDS))


def bad_json(random: Random) -> Input:
    deep, many = random.choice((10, 70, 990, 5_000)), random.choice((10, 25_000))
    text = random.choice(
        (
            "[" * deep,
            '{"type":"session.update","session":{"tracing":' + "[" * deep + "]" * deep + "}}",
            '{"type":"session.update","session":{"tracing":[' + "[]," * many + "0]}}",
            '{"type":"session.update","session":{"max_output_tokens":' + "9" * many + "}}",
            '{"type":' + random.choice(("7", "null", '"foo"', "{}", '"' + "x" * many + '"')) + "}",
            json.dumps({"type": "conversation.item.create", "item": {"role": random.choice(("user", "root", 5))}}),
            json.dumps({"type": "response.cancel", "response_id": 5, "event_id": ["x"]}),
            '"' * many,
        )
    )
    data = frame(TEXT, text.encode())
    return Input("json", [opened(random), (data, 0.0), (data, 0.0)], random.choice(ENDS))


def bad_unicode(random: Random) -> Input:
    word = random.choice(WORDS) * random.choice((1, 3))
    content = [{"type": "input_text", "text": word}]
    item = {"role": "user", "content": content, "id": random.choice((None, word, "same"))}
    raw = random.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b'{"type":"\xc0\x80"}'))
    pieces = [opened(random), (event(type="conversation.item.create", item=item), 0.0)]
    pieces += random.choice(([], [(frame(TEXT, raw), 0.0)]))
    return Input("unicode", pieces, random.choice(ENDS))


def event_flood(random: Random) -> Input:
    kind = random.choice(("session.update", "response.create", "response.cancel", "conversation.item.create"))
    fields: dict[str, Any] = {"type": kind}
    if kind == "session.update":
        fields["session"] = {}
    elif kind == "conversation.item.create":
        fields["item"] = {"role": "user", "content": [{"type": "input_text", "text": "flood " * 20}]}
    data = event(**fields) * FLOOD_EVENTS
    return Input("event flood", [opened(random), (data, 0.0)], random.choice(("close", "reset", "read")))


def frame_flood(random: Random) -> Input:
    fragment = frame(CONTINUATION, fin=False)
    one = random.choice((frame(PING), frame(PONG), fragment, frame(PING, b"x" * 125)))
    data = (frame(TEXT, fin=False) if one == fragment else b"") + one * FLOOD_FRAMES
    return Input("frame flood", [opened(random), (data, 0.0)], random.choice(ENDS), reads=random.random() < 0.5)


def too_big(random: Random) -> Input:
    word = random.choice((b"x", b"[", b"[],"))
    payload = word * (BIG_BYTES // len(word) + random.choice((0, 1)))
    return Input("big message", [opened(random), (frame(TEXT, payload), 0.0)], random.choice(ENDS))


def slow(random: Random) -> Input:
    """Drips its handshake, its request or its frames."""
    data = random.choice((handshake(random) + b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", opened(random)[0]))
    return Input(
        "slow", [(bytes([byte]), DRIP_SECONDS) for byte in data[: random.randrange(10, 60)]], random.choice(ENDS)
    )


def half_open(random: Random) -> Input:
    """Says little or nothing, and stays."""
    data = random.choice((b"", b"GET ", handshake(random), opened(random)[0]))
    return Input("half open", [(data, 0.0)], "silence")


def deaf(random: Random) -> Input:
    """Asks for much and reads nothing of it."""
    item = {"role": "user", "content": [{"type": "input_text", "text": "deaf " * 5_000}]}
    turn = event(type="conversation.item.create", item=item) + event(type="response.create")
    return Input("deaf", [opened(random), *[(turn, DRIP_SECONDS)] * 5], "silence", reads=False)


KINDS: dict[str, tuple[int, Callable[[Random], Input]]] = {
    "garbage": (12, garbage),
    "handshake": (15, bad_handshake),
    "auth": (12, bad_auth),
    "http": (18, bad_http),
    "frames": (15, bad_frames),
    "json": (10, bad_json),
    "unicode": (8, bad_unicode),
    "event flood": (1, event_flood),
    "frame flood": (1, frame_flood),
    "big message": (2, too_big),
    "slow": (3, slow),
    "half open": (2, half_open),
    "deaf": (1, deaf),
}
"""By name: how often, of all together, and what makes one."""
