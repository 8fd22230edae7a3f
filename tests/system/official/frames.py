"""Checks frames of the server: valid by the official client's strict types, and null only where that is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
# Where the public reference allows null; JavaScript clients drop an event with any other.
NULLABLE = {
    "previous_item_id",
    "status_details",
    "usage",
    "metadata",
    "conversation_id",
    "error.code",
    "error.param",
    "error.event_id",
}


def check(frame: Mapping[str, Any]) -> None:
    """Raises for a frame that a strict client would reject or silently drop."""
    STRICT.validate_python(frame, strict=False)
    stray = [path for path in _nulls(frame) if not _may_be_null(path)]
    assert not stray, f"null at {stray} of {frame}"


def _may_be_null(path: str) -> bool:
    return path.startswith("session.") or path in NULLABLE or path.removeprefix("response.") in NULLABLE


def _nulls(value: Any, path: str = "") -> Iterator[str]:
    if value is None:
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _nulls(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _nulls(inner, f"{path}[]")
