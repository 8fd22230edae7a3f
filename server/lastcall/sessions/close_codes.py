"""The WebSocket close codes of ended sessions."""

from __future__ import annotations

from ..store.records import EndReason

CLOSE_CODES = {
    EndReason.CLIENT_CLOSED: 1000,
    EndReason.PROTOCOL_ERROR: 1002,
    EndReason.MESSAGE_TOO_BIG: 1009,
    EndReason.SLOW_READER: 1008,
    EndReason.FLOODING: 1008,
    EndReason.EXPIRED: 1001,
    EndReason.IDLE: 1001,
    EndReason.OVERLOADED: 1013,
    EndReason.REFUSED: 1008,
    EndReason.SERVER_ERROR: 1011,
    EndReason.SHUTDOWN: 1012,
    EndReason.OWNER_DIED: 1012,
    EndReason.CLOSED_ELSEWHERE: 4001,
}
"""The WebSocket close code of each reason. Reasons without one end without a close frame."""
