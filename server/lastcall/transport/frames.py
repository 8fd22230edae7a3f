"""WebSocket frames that the server writes by itself, beside trio-websocket (RFC 6455, section 5.2)."""

from __future__ import annotations

from typing import cast

from wsproto.frame_protocol import CloseReason, FrameProtocol

_TEXT_FINAL = 0x81  # FIN, opcode 1; a server's frames are not masked


def text_frame(payload: bytes) -> bytes:
    """One whole text message. Written out here because it runs once per token, and wsproto's way is for any frame."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT_FINAL, size)) + payload
    if size < 65_536:
        return bytes((_TEXT_FINAL, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT_FINAL, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return bytes(FrameProtocol(client=False, extensions=[]).close(cast("CloseReason", code), reason))
