"""The client's side of WebSocket frames, as cheap as Python allows: what loads a server must cost less than it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

TEXT, CLOSE, PING = 0x81, 0x88, 0x89  # whole frames, from a server, without a mask
PONG_BYTE = b"\x8a"
MASK = b"\x37\xfa\x21\x3d"
MASK_BIT = 0x80
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455
NORMAL_CLOSURE = (1000).to_bytes(2, "big")


class BadAnswer(Exception):
    """The server sent what it should not. The message is one line."""


def request(port: int, user: str) -> bytes:
    """The handshake of one connection."""
    lines = [
        f"GET /v1/realtime?model=bench&user={user} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def upgraded(head: bytes) -> bool:
    """Whether the head of an answer accepts the handshake."""
    return head.startswith(b"HTTP/1.1 101") and ACCEPT in head


def text_frame(event: dict[str, Any]) -> bytes:
    """One event as a client sends it."""
    return _masked(bytes([TEXT]), json.dumps(event).encode())


def pong_frame(payload: bytes) -> bytes:
    return _masked(PONG_BYTE, payload)


def close_frame(payload: bytes = NORMAL_CLOSURE) -> bytes:
    return _masked(bytes([CLOSE]), payload)


def _masked(first: bytes, payload: bytes) -> bytes:
    length = len(payload)
    size = bytes([MASK_BIT | length]) if length < 126 else bytes([MASK_BIT | 126]) + length.to_bytes(2, "big")
    mask = MASK * (length // 4 + 1)
    return first + size + MASK + bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))


class Received(NamedTuple):
    """What some bytes held. texts: how many text frames; last: the last one's payload, empty if there was none.

    control: control frames, as their first byte and payload. rest: the beginning of a frame.
    """

    texts: int
    last: bytes
    control: list[tuple[int, bytes]]
    rest: bytes


def parse(data: bytes) -> Received:
    """Takes bytes apart that begin with a frame. Raises `BadAnswer` for frames that no server here sends."""
    texts, last, position, size = 0, (0, 0), 0, len(data)
    control: list[tuple[int, bytes]] = []
    while size - position >= 2:
        length, start = data[position + 1], position + 2
        if length >= 126:
            start += 2 if length == 126 else 8
            if start > size:
                break
            length = int.from_bytes(data[position + 2 : start], "big")
        end = start + length
        if end > size:
            break
        first = data[position]
        if first == TEXT:
            texts, last = texts + 1, (start, end)
        elif first in (CLOSE, PING):
            control.append((first, data[start:end]))
        else:
            raise BadAnswer(f"the server sent a frame that begins with {first:#x}")
        position = end
    return Received(texts, data[last[0] : last[1]], control, data[position:])
