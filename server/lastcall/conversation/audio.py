"""Replies to events about audio, of which a conversation of texts has none. Pure."""

from __future__ import annotations

from ..protocol.client_events import AudioBufferClear, ItemTruncate
from ..protocol.server_events import AudioBufferCleared
from .timeline import Timeline
from .validation import item_not_found, refusal


def answer_about_audio(event: AudioBufferClear | ItemTruncate, timeline: Timeline) -> AudioBufferCleared:
    """The reply: the buffer for audio is always empty, so it is cleared. Raises `EventRejected` for a truncation."""
    if isinstance(event, AudioBufferClear):
        return AudioBufferCleared()
    if timeline.get(event.item_id) is None:
        raise item_not_found(event, event.item_id, "item_id")
    message = "Only model output audio messages can be truncated, and this server handles text only, no audio."
    raise refusal(event, "unsupported_content_type", message, "item_id")
