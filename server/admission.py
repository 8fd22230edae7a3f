"""Who may open a session, judged by the handshake alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import msgspec

from .identity import user_of
from .session import parse_public_id

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
MODEL_CHARS_MAX = 128
REPLAY_ITEMS_MAX = 200


@dataclass(frozen=True, slots=True)
class Admission:
    """A handshake that is accepted.

    conversation_id: the one to go on in, or None for a new one. replay: how many of its newest items to send again.
    """

    user_id: str
    conversation_id: UUID | None
    model: str
    subprotocol: str | None
    replay: int = REPLAY_ITEMS_MAX


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that is refused, with an HTTP status and a JSON body in the shape of the public API's errors."""

    status: int
    message: str
    code: str
    param: str | None = None

    @property
    def body(self) -> bytes:
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def admit(
    target: str, host: str, headers: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]
) -> Admission | Refusal:
    """Judges a handshake by its request target, its Host, its other headers (names in lower case) and the
    subprotocols that it offers."""
    path, _, query_text = target.partition("?")
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    query = {key: values[-1] for key, values in parse_qs(query_text, keep_blank_values=True).items()}
    if path != PATH:
        return Refusal(404, f"WebSockets are served at {PATH} only.", "not_found")
    if not _same_origin(fields.get("origin"), host):
        return Refusal(403, "This page may not connect here: its origin is another one.", "forbidden_origin")
    if "call_id" in query or query.get("intent") == "transcription":
        return Refusal(400, "Calls and transcription are not served: this server speaks text only.", "invalid_value")
    try:
        user_id = user_of(fields, query)
    except ValueError as error:
        return Refusal(400, str(error), "invalid_value", "user")
    try:
        conversation = query.get("conversation")
        conversation_id = parse_public_id("conv", conversation) if conversation else None
    except ValueError:
        return Refusal(400, "A conversation's id looks like conv_ and 32 hex digits.", "invalid_value", "conversation")
    try:
        replay = _replay_of(query)
    except ValueError as error:
        return Refusal(400, str(error), "invalid_value", "replay")
    model = (query.get("model") or "lastcall")[:MODEL_CHARS_MAX]
    return Admission(user_id, conversation_id, model, SUBPROTOCOL if SUBPROTOCOL in subprotocols else None, replay)


def _replay_of(query: Mapping[str, str]) -> int:
    text = query.get("replay", str(REPLAY_ITEMS_MAX))
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) > REPLAY_ITEMS_MAX:
        raise ValueError(f"replay is a number of items from 0, none, to {REPLAY_ITEMS_MAX}.")
    return int(text)


def _same_origin(origin: str | None, host: str) -> bool:
    """Browsers name the page's origin; other clients name none. Without keys, nothing else keeps foreign pages out."""
    if origin is None:
        return True
    try:
        return host != "" and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
