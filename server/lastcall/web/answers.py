"""Bodies of HTTP responses, in the shapes of OpenAI's clients. `openapi.py` describes the API by these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from ..protocol.errors import RequestRefused
from ..protocol.items import Item


class Health(Struct):
    status: Literal["ok"] = "ok"


class Readiness(Struct, omit_defaults=True):
    """reason: why the server is unready."""

    status: Literal["ready", "unready"]
    reason: str | None = None


class MemorySource(Struct, kw_only=True):
    """Where a memory was said. item_id: empty where an agent names none."""

    session_id: str
    conversation_id: str
    item_id: str | None


class MemoryBody(Struct, kw_only=True):
    """A memory. quote: the user's words that it comes from. Times are Unix seconds; expires_at null: never.

    slot: what it is about; of slots such as `home`, only the newest memory is listed. source: null where it is gone.
    """

    id: str
    object: Literal["memory"] = "memory"
    kind: str
    content: str
    quote: str
    slot: str
    said_at: int
    edited_at: int | None
    expires_at: int | None
    source: MemorySource | None


class DeletedMemory(Struct, kw_only=True):
    id: str
    object: Literal["memory.deleted"] = "memory.deleted"
    deleted: bool = True


class MemoryList(Struct, kw_only=True):
    """Oldest first."""

    object: Literal["list"] = "list"
    data: list[MemoryBody]


class RecalledTurnBody(Struct, kw_only=True):
    """A turn that a message brings back. words: the message's that it or its neighbours have, the rarest first.

    nearness: of its meaning to the message's, from -1 to 1; null where only words are compared.
    """

    object: Literal["recalled_turn"] = "recalled_turn"
    date: str
    who: Literal["user", "assistant"]
    text: str
    conversation_id: str
    item_id: str
    score: float
    words: list[str]
    nearness: float | None = None


class RecallExplanation(Struct, kw_only=True):
    """The best turns first. comes_back: whether the agent would get them with this message."""

    object: Literal["list"] = "list"
    comes_back: bool
    data: list[RecalledTurnBody]


class ItemList(Struct, kw_only=True):
    """A page of items. has_more: whether more follow in the direction of paging.

    times: where they are asked for, when each item was stored, in Unix seconds and in the order of `data`.
    """

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool
    times: list[int] | UnsetType = UNSET


class ConversationBody(Struct, kw_only=True):
    """Times are Unix seconds. last_active_at: of the newest item, else created_at.

    title: given by hand, or the first words that the user said there; null where there are none yet.
    """

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


class ConversationDeleted(Struct, kw_only=True):
    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class ConversationRenamed(Struct, kw_only=True):
    """title: as given; null: its first words are its title again."""

    id: str
    object: Literal["conversation"] = "conversation"
    title: str | None


class SignInState(Struct, kw_only=True):
    """user: who is signed in with this browser; null: nobody. provider: where people can sign in; null: nowhere."""

    object: Literal["sign_in"] = "sign_in"
    user: str | None
    provider: str | None


class SignInAddress(Struct, kw_only=True):
    """url: at the identity provider, where the browser goes on."""

    object: Literal["sign_in.address"] = "sign_in.address"
    url: str


class SignedOut(Struct, kw_only=True):
    """url: where the browser goes to sign out at the identity provider too; null: nowhere."""

    object: Literal["sign_in.ended"] = "sign_in.ended"
    url: str | None


def answer(body: Struct, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")


def error_answer(error: RequestRefused, headers: Mapping[str, str] | None = None) -> Response:
    """headers: in addition to those of the error."""
    return Response(error.body, status_code=error.status, headers={**error.headers, **(headers or {})})
