"""What the HTTP routes answer, in shapes that OpenAI's clients know. `api.py` describes them by these very types."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct
from starlette.responses import Response

from ..protocol.items import Item


class ErrorBody(Struct, kw_only=True):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class ErrorAnswer(Struct):
    error: ErrorBody


class Health(Struct):
    status: Literal["ok"] = "ok"


class Readiness(Struct, omit_defaults=True):
    """reason: why the server is unready."""

    status: Literal["ready", "unready"]
    reason: str | None = None


class MemoryBody(Struct):
    kind: str
    content: str


class MemoryList(Struct, kw_only=True):
    """Oldest first."""

    object: Literal["list"] = "list"
    data: list[MemoryBody]


class ItemList(Struct, kw_only=True):
    """A page of items. has_more: there are further ones in the direction in which it was paged."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationBody(Struct, kw_only=True):
    """Times: seconds since 1970. last_active_at: of its newest item, else of its beginning."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    title: str | None
    last_active_at: int


class ConversationList(Struct, kw_only=True):
    """A page of conversations, newest first."""

    object: Literal["list"] = "list"
    data: list[ConversationBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


def answer(body: Struct, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
