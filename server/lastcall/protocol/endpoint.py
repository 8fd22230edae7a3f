"""The WebSocket endpoint: its paths and the bounds of its query."""

from __future__ import annotations

PATH = "/v1/realtime"
AZURE_PREFIX = "/openai"  # which clients of Azure OpenAI put before every path
AZURE_PATH = AZURE_PREFIX + PATH
AZURE_BETA_PATH = "/openai/realtime"  # retired
MODEL_CHARS_MAX = 128
REPLAY_ITEMS_MAX = 200
