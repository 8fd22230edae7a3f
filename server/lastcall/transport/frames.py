"""WebSocket frames that need no library (RFC 6455, 5.2): text, whole and unfragmented. Pure."""

from __future__ import annotations

from struct import Struct
from typing import cast

from wsproto.frame_protocol import CloseReason, FrameProtocol

_TEXT_FINAL = 0x81  # FIN, no reserved bits, opcode 1
_MASKED = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127  # in place of a length: it follows in so many
_SHORT_BYTES_MAX = 125
_MASK_BYTES = 4
_head_of_two_bytes = Struct(">BBH").pack


def text_frame(payload: bytes) -> bytes:
    """Encodes one complete text message, as a server. Runs once per token, where wsproto's encoder is too slow."""
    size = len(payload)
    if _SHORT_BYTES_MAX < size < 65_536:  # as nearly all events are
        return _head_of_two_bytes(_TEXT_FINAL, _TWO_BYTES, size) + payload
    if size <= _SHORT_BYTES_MAX:
        return bytes((_TEXT_FINAL, size)) + payload
    return bytes((_TEXT_FINAL, _EIGHT_BYTES)) + size.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Encodes a close frame; a reason too long for a control frame is cut."""
    return bytes(FrameProtocol(client=False, extensions=[]).close(cast("CloseReason", code), reason))


def read_text_frame(data: bytes, start: int, bytes_max: int) -> tuple[str, int] | None:
    """Decodes the client's frame at `start`: its text, and where the next frame begins.

    None where it is anything but a whole, valid text message of at most `bytes_max`: wsproto looks at it then. So it
    need not be told here what is wrong, or missing.
    """
    if len(data) < start + 2 or data[start] != _TEXT_FINAL:
        return None
    size, mask = data[start + 1] ^ _MASKED, start + 2
    if size == _TWO_BYTES:
        size, mask = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
        if size <= _SHORT_BYTES_MAX:
            return None
    elif size > _SHORT_BYTES_MAX:  # of eight bytes, or not masked
        return None
    payload, end = mask + _MASK_BYTES, mask + _MASK_BYTES + size
    if size > bytes_max or len(data) < end:
        return None
    try:
        return _unmasked(data[payload:end], data[mask:payload]).decode(), end
    except UnicodeDecodeError:
        return None


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """All bytes at once, as one number: a loop over them would take a hundred times as long."""
    size = len(payload)
    key = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
