"""Who may open a session, judged by the handshake alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs
from uuid import UUID

import msgspec

from ..auth.identity import SUBPROTOCOL, Presented, RequestRefused
from ..protocol.endpoint import MODEL_CHARS_MAX, PATH, REPLAY_ITEMS_MAX
from ..protocol.ids import parse_public_id


@dataclass(frozen=True, slots=True)
class Admission:
    """What an acceptable handshake asks for.

    conversation_id: the one to go on in, or None for a new one. replay: how many of its newest items to send again.
    """

    presented: Presented
    conversation_id: UUID | None
    model: str
    subprotocol: str | None
    replay: int = REPLAY_ITEMS_MAX


def admit(target: str, host: str, headers: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]) -> Admission:
    """Reads a handshake: its request target, its Host, its other headers (names in lower case) and the subprotocols
    that it offers. Who it comes from is for `authentication.py` to find out. Raises `RequestRefused`."""
    path, _, query_text = target.partition("?")
    # Of a header given twice the first counts, as over HTTP.
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    query = {key: values[-1] for key, values in parse_qs(query_text, keep_blank_values=True).items()}
    if path != PATH:
        raise RequestRefused(404, "not_found", f"WebSockets are served at {PATH} only.")
    if "call_id" in query or query.get("intent") == "transcription":
        raise RequestRefused(
            400, "invalid_value", "Calls and transcription are not served: this server speaks text only."
        )
    try:
        conversation = query.get("conversation")
        conversation_id = parse_public_id("conv", conversation) if conversation else None
    except ValueError:
        message = "A conversation's id looks like conv_ and 32 hex digits."
        raise RequestRefused(400, "invalid_value", message, "conversation") from None
    model = (query.get("model") or "lastcall")[:MODEL_CHARS_MAX]
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
    presented = Presented(fields, query, host, subprotocols)
    return Admission(presented, conversation_id, model, subprotocol, _replay_of(query))


def _replay_of(query: Mapping[str, str]) -> int:
    text = query.get("replay", str(REPLAY_ITEMS_MAX))
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) > REPLAY_ITEMS_MAX:
        message = f"replay is a number of items from 0, none, to {REPLAY_ITEMS_MAX}."
        raise RequestRefused(400, "invalid_value", message, "replay")
    return int(text)


def refusal_body(refused: RequestRefused) -> bytes:
    """The JSON of an HTTP answer, in the shape of the public API's errors."""
    error = {"message": refused.message, "type": "invalid_request_error", "param": refused.param, "code": refused.code}
    return msgspec.json.encode({"error": error})
