"""Checks an opening handshake: the path, the query and the subprotocols. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs
from uuid import UUID

from ..auth.identity import SUBPROTOCOL, Presented
from ..protocol.endpoint import MODEL_CHARS_MAX, PATH, REPLAY_ITEMS_MAX
from ..protocol.errors import RequestRefused
from ..protocol.ids import parse_public_id


@dataclass(frozen=True, slots=True)
class Admission:
    """What a valid handshake asks for.

    conversation_id: the one to resume; None for a new one. replay: how many of its newest items to send again.
    """

    presented: Presented
    conversation_id: UUID | None
    model: str
    subprotocol: str | None
    replay: int = REPLAY_ITEMS_MAX


def admit(target: str, host: str, headers: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]) -> Admission:
    """Parses a handshake; `auth.authenticator` finds out whose it is. Raises `RequestRefused`.

    target: of the request line. headers: all but Host, with names in lower case. subprotocols: those offered.
    """
    path, _, query_text = target.partition("?")
    # Where a header is repeated the first one counts, as over HTTP.
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    query = {key: values[-1] for key, values in parse_qs(query_text, keep_blank_values=True).items()}
    if path != PATH:
        raise RequestRefused("not_found", f"WebSockets are served at {PATH} only.")
    if "call_id" in query or query.get("intent") == "transcription":
        raise RequestRefused("invalid_value", "Calls and transcription are not supported: this server is text only.")
    try:
        conversation = query.get("conversation")
        conversation_id = parse_public_id("conv", conversation) if conversation else None
    except ValueError:
        message = "conversation must be conv_ and 32 hex digits."
        raise RequestRefused("invalid_value", message, "conversation") from None
    model = (query.get("model") or "lastcall")[:MODEL_CHARS_MAX]
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
    presented = Presented(fields, query, host, subprotocols)
    return Admission(presented, conversation_id, model, subprotocol, _replay_of(query))


def _replay_of(query: Mapping[str, str]) -> int:
    text = query.get("replay", str(REPLAY_ITEMS_MAX))
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) > REPLAY_ITEMS_MAX:
        raise RequestRefused("invalid_value", f"replay must be a number from 0 to {REPLAY_ITEMS_MAX}.", "replay")
    return int(text)
