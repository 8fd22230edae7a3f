"""The events of a text turn of the Realtime API, as plain dictionaries: what a server sends that has nothing more."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

Event = dict[str, Any]
SESSION_SECONDS = 86_400
INSTRUCTIONS = "You are a friendly assistant. Answer briefly and plainly."
RATE_LIMIT = {"name": "requests", "limit": 1000, "remaining": 998, "reset_seconds": 0.002}


def new_id(kind: str) -> str:
    return f"{kind}_{uuid4().hex}"


def session_created(session_id: str, conversation_id: str, user: str) -> Event:
    session = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": "bench",
        "output_modalities": ["text"],
        "instructions": INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "audio": {"input": {"turn_detection": None}},
        "expires_at": int(time.time()) + SESSION_SECONDS,
        "conversation_id": conversation_id,
        "user": user,
    }
    return {"type": "session.created", "session": session}


def conversation_created(conversation_id: str) -> Event:
    return {
        "type": "conversation.created",
        "conversation": {"id": conversation_id, "object": "realtime.conversation"},
    }


def user_item(text: str) -> Event:
    return _item(new_id("item"), "user", "completed", [{"type": "input_text", "text": text}])


def item_added(previous_item_id: str | None, item: Event) -> Event:
    return {"type": "conversation.item.added", "previous_item_id": previous_item_id, "item": item}


def item_done(previous_item_id: str | None, item: Event) -> Event:
    return {"type": "conversation.item.done", "previous_item_id": previous_item_id, "item": item}


class Response:
    """The events of one response with one message. conversation_id, previous_item_id: as clients see them."""

    def __init__(self, conversation_id: str, previous_item_id: str | None) -> None:
        self.id = new_id("resp")
        self.item_id = new_id("item")
        self._conversation_id = conversation_id
        self._previous_item_id = previous_item_id
        self._place = {"response_id": self.id, "output_index": 0}
        self._part = {**self._place, "item_id": self.item_id, "content_index": 0}

    def begin(self) -> list[Event]:
        """The events before the first delta."""
        item = _item(self.item_id, "assistant", "in_progress", [])
        return [
            {"type": "response.created", "response": self._response("in_progress", [])},
            {"type": "rate_limits.updated", "rate_limits": [RATE_LIMIT]},
            {"type": "response.output_item.added", **self._place, "item": item},
            item_added(self._previous_item_id, item),
            {"type": "response.content_part.added", **self._part, "part": {"type": "text", "text": ""}},
        ]

    def delta(self, text: str) -> Event:
        return {"type": "response.output_text.delta", **self._part, "delta": text}

    def end(self, text: str) -> list[Event]:
        """The events after the last delta; the last two of them acknowledge."""
        item = _item(self.item_id, "assistant", "completed", [{"type": "output_text", "text": text}])
        return [
            {"type": "response.output_text.done", **self._part, "text": text},
            {"type": "response.content_part.done", **self._part, "part": {"type": "text", "text": text}},
            {"type": "response.output_item.done", **self._place, "item": item},
            item_done(self._previous_item_id, item),
            {"type": "response.done", "response": self._response("completed", [item])},
        ]

    def _response(self, status: str, output: list[Event]) -> Event:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": output,
            "conversation_id": self._conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": "inf",
            "metadata": None,
            "usage": None,
        }


def _item(item_id: str, role: str, status: str, content: list[Event]) -> Event:
    return {
        "type": "message",
        "id": item_id,
        "object": "realtime.item",
        "status": status,
        "role": role,
        "content": content,
    }
