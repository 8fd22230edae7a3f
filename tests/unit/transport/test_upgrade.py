"""The opening handshake of a WebSocket by itself."""

from __future__ import annotations

import pytest
from lastcall.protocol.errors import RequestRefused
from lastcall.transport.http.request_head import RequestHead, parse_head
from lastcall.transport.http.upgrade import accepted, read_upgrade

from tests.support.raw_wire import ACCEPT, HANDSHAKE, KEY


def head(data: bytes = HANDSHAKE) -> RequestHead:
    parsed = parse_head(data)
    assert parsed is not None
    return parsed


def test_the_reply_proves_that_the_key_was_read() -> None:
    lines = accepted(read_upgrade(head()), None).split(b"\r\n")
    assert lines == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        b"",
        b"",
    ]


def test_a_subprotocol_is_named_in_the_reply() -> None:
    offered = HANDSHAKE[:-2] + b"Sec-WebSocket-Protocol: a, realtime\r\nSec-WebSocket-Protocol: b\r\n\r\n"
    upgrade = read_upgrade(head(offered))
    assert upgrade.subprotocols == ("a", "realtime", "b")
    assert b"\r\nSec-WebSocket-Protocol: realtime\r\n\r\n" in accepted(upgrade, "realtime")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Connection: Upgrade", b"Connection: keep-alive, UPGRADE"),
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        (b"\r\nHost", b"\r\nContent-Length: 0\r\nHost"),
        (KEY, b"any key"),
    ],
)
def test_what_the_standard_allows_is_accepted(old: bytes, new: bytes) -> None:
    assert read_upgrade(head(HANDSHAKE.replace(old, new))).host == "localhost"


@pytest.mark.parametrize(
    ("old", "new", "status", "about"),
    [
        (b"GET ", b"POST ", 400, "GET"),
        (b"HTTP/1.1", b"HTTP/1.0", 400, "HTTP/1.1"),
        (b"\r\nHost", b"\r\nContent-Length: 5\r\nHost", 400, "without a body"),
        (b"Connection: Upgrade", b"Connection: close", 400, "Connection: Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: h2c, websocket", 400, "Upgrade must"),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400, "Sec-WebSocket-Version"),
        (b"Version: 13", b"Version: 8", 426, "Sec-WebSocket-Version: 13"),
        (b"Sec-WebSocket-Key", b"X-Key", 400, "Sec-WebSocket-Key"),
        (b"Host: localhost\r\n", b"", 400, "Host"),
    ],
)
def test_a_handshake_that_lacks_something_is_refused_and_told_what(
    old: bytes, new: bytes, status: int, about: str
) -> None:
    assert HANDSHAKE.count(old)
    with pytest.raises(RequestRefused, match=about) as refused:
        read_upgrade(head(HANDSHAKE.replace(old, new, 1)))
    assert refused.value.status == status
    assert (refused.value.headers.get("sec-websocket-version") == "13") is (status == 426)
