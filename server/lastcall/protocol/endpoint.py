"""The WebSocket endpoint: its path and the bounds of its query."""

from __future__ import annotations

PATH = "/v1/realtime"
MODEL_CHARS_MAX = 128
REPLAY_ITEMS_MAX = 200
