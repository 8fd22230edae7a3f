"""The opening handshake of a WebSocket (RFC 6455, section 4.2): what the request must have, and the reply. Pure.

`request_head` has parsed the request, so neither h11 nor wsproto parses it a second time.
"""

from __future__ import annotations

from msgspec import Struct
from wsproto.utilities import generate_accept_token

from ...protocol.errors import WEBSOCKET_VERSION, RequestRefused
from .request_head import RequestHead


class Upgrade(Struct, frozen=True):
    """What a handshake offers. host: the Host header."""

    key: bytes
    host: str
    subprotocols: tuple[str, ...]


def read_upgrade(head: RequestHead) -> Upgrade:
    """Raises `RequestRefused`."""
    fields = dict(head.fields)
    version, key, host = (fields.get(name) for name in (b"sec-websocket-version", b"sec-websocket-key", b"host"))
    if head.version < (1, 1) or head.has_body:
        raise _refused("A WebSocket handshake is an HTTP/1.1 request without a body.")
    if head.method != b"GET":
        raise _refused("A WebSocket handshake is a GET request.")
    if b"upgrade" not in _listed(fields.get(b"connection", b"").lower()):
        raise _refused("The header 'Connection: Upgrade' is missing.")
    if fields.get(b"upgrade", b"").lower() != b"websocket":
        raise _refused("The header Upgrade must be 'websocket' and nothing else.")
    if version != WEBSOCKET_VERSION.encode():
        message = f"The header 'Sec-WebSocket-Version: {WEBSOCKET_VERSION}' is missing."
        raise _refused(message, 400 if version is None else 426)
    if key is None or host is None:
        raise _refused(f"The header {'Sec-WebSocket-Key' if key is None else 'Host'} is missing.")
    offered = b",".join(head.values(b"sec-websocket-protocol")) if b"sec-websocket-protocol" in fields else b""
    subprotocols = tuple(each.decode("latin-1") for each in _listed(offered))
    return Upgrade(key, host.decode("latin-1"), subprotocols)


def _refused(message: str, status: int = 400) -> RequestRefused:
    return RequestRefused("http_error", message, status=status)


def _listed(value: bytes) -> list[bytes]:
    return [each.strip() for each in value.split(b",")] if value else []


def accepted(upgrade: Upgrade, subprotocol: str | None) -> bytes:
    """The reply that opens the WebSocket. subprotocol: one of those offered, or none."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + generate_accept_token(upgrade.key),
    ]
    if subprotocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("latin-1"))
    return b"\r\n".join([*lines, b"", b""])
