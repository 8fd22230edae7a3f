"""A user's conversations and their items, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from ..conversation import ITEM_ID_CHARS_MAX
from ..identity import USER_QUERY, user_of
from ..items import restored_item
from ..session import parse_public_id, public_id
from ..store import ConversationSummary, StoredItem, UnknownItem
from .answers import Conversation, ConversationList, ItemList, answer
from .errors import InvalidQuery, error_response

PAGE_DEFAULT = 20
PAGE_MAX = 100


class Conversations(Protocol):
    """What these routes need of the running server. Both raise `StoreUnavailable`; see `server.store.Store`."""

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None
    ) -> Sequence[StoredItem] | None: ...

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None
    ) -> Sequence[ConversationSummary] | None: ...


async def conversation_items(request: Request) -> Response:
    """A page of a conversation's items, in the shape that they have on the WebSocket."""
    user = user_in(request)
    limit = _limit(request)
    descending = _choice(request, "order", "desc", ("asc", "desc")) == "desc"
    after, before = _item_id(request, "after"), _item_id(request, "before")
    if after is not None and before is not None:
        raise InvalidQuery("Give either after or before.", "before")
    older = descending is (before is None)
    try:
        conversation_id = parse_public_id("conv", request.path_params["conversation_id"])
    except ValueError:
        return _unknown()
    try:
        found = await _conversations(request).page_items(
            conversation_id, user, limit + 1, older=older, cursor=after or before
        )
    except UnknownItem:
        name = "after" if before is None else "before"
        raise InvalidQuery("The conversation has no item of this id.", name) from None
    if found is None:
        return _unknown()
    page = [restored_item(stored) for stored in found[:limit]]
    if older is not descending:
        page.reverse()
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    return answer(ItemList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > limit))


async def conversations(request: Request) -> Response:
    """A page of the user's conversations, newest first."""
    user = user_in(request)
    limit = _limit(request)
    try:
        after = parse_public_id("conv", request.query_params["after"]) if "after" in request.query_params else None
    except ValueError:
        raise InvalidQuery("A conversation's id looks like conv_ and 32 hex digits.", "after") from None
    found = await _conversations(request).list_conversations(user, limit + 1, after=after)
    if found is None:
        raise InvalidQuery("There is no conversation of this id.", "after")
    page = [_conversation(each) for each in found[:limit]]
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    return answer(ConversationList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > limit))


def user_in(request: Request) -> str:
    """Whose request it is. Raises `InvalidQuery`."""
    try:
        return user_of(request.headers, request.query_params)
    except ValueError as error:
        raise InvalidQuery(str(error), USER_QUERY) from None


def _conversation(each: ConversationSummary) -> Conversation:
    return Conversation(
        id=public_id("conv", each.conversation_id),
        created_at=int(each.created_at),
        title=each.title,
        last_active_at=int(each.last_active_at),
    )


def _unknown() -> Response:
    """The same answer for another user's conversation as for none."""
    return error_response(404, "conversation_not_found", "There is no such conversation of this user.")


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= PAGE_MAX):
        raise InvalidQuery(f"limit is a number from 1 to {PAGE_MAX}.", "limit")
    return int(text)


def _choice(request: Request, name: str, default: str, choices: Sequence[str]) -> str:
    value = request.query_params.get(name, default)
    if value not in choices:
        raise InvalidQuery(f"{name} is {' or '.join(choices)}.", name)
    return value


def _item_id(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    if value is not None and (not 1 <= len(value) <= ITEM_ID_CHARS_MAX or "\0" in value):
        raise InvalidQuery(f"An item's id has 1 to {ITEM_ID_CHARS_MAX} characters, and no NUL.", name)
    return value


def _conversations(request: Request) -> Conversations:
    services: Conversations = request.app.state.services
    return services
