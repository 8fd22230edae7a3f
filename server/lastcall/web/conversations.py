"""A user's conversations and their items, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from starlette.requests import Request
from starlette.responses import Response

from ..conversation.rows import restored_item
from ..conversation.validation import ID_CHARS_MAX
from ..protocol.errors import RequestRefused
from ..protocol.ids import parse_public_id, public_id
from ..store.errors import ItemNotFound
from ..store.records import PAGE_BYTES_MAX, ConversationSummary, StoredItem
from .access import principal_of, services_of
from .answers import ConversationBody, ConversationList, ItemList, answer

PAGE_DEFAULT = 20
PAGE_MAX = 100


async def conversation_items(request: Request) -> Response:
    """A page of a conversation's items, in the same shape as on the WebSocket."""
    principal = await principal_of(request)
    limit = _limit(request)
    descending = _choice(request, "order", "desc", ("asc", "desc")) == "desc"
    after, before = _item_id(request, "after"), _item_id(request, "before")
    if after is not None and before is not None:
        raise _invalid("after and before cannot be used together.", "before")
    older = descending is (before is None)
    try:
        conversation_id = parse_public_id("conv", request.path_params["conversation_id"])
    except ValueError:
        raise _unknown() from None
    if not principal.may_enter(conversation_id):
        raise _unknown()
    try:
        found = await services_of(request).store.page_items(
            conversation_id, principal.user_id, limit + 1, older=older, cursor=after or before
        )
    except ItemNotFound:
        name = "after" if before is None else "before"
        raise _invalid("The conversation has no item with this id.", name) from None
    if found is None:
        raise _unknown()
    fitting = _fitting(found[:limit])
    page = [restored_item(stored) for stored in fitting]
    if older is not descending:
        page.reverse()
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    return answer(ItemList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > len(page)))


def _fitting(found: Sequence[StoredItem]) -> Sequence[StoredItem]:
    """The first items whose content fits a page; at least one."""
    sizes = accumulate(len(each.content.encode()) for each in found)
    return found[: max(1, sum(size <= PAGE_BYTES_MAX for size in sizes))]


async def conversations(request: Request) -> Response:
    """A page of the user's conversations, newest first."""
    principal = await principal_of(request)
    if principal.conversation_id is not None:
        raise RequestRefused("forbidden", "This client secret is for one conversation only.")
    limit = _limit(request)
    try:
        after = parse_public_id("conv", request.query_params["after"]) if "after" in request.query_params else None
    except ValueError:
        raise _invalid("after must be conv_ and 32 hex digits.", "after") from None
    found = await services_of(request).store.list_conversations(principal.user_id, limit + 1, after=after)
    if found is None:
        raise _invalid("The user has no conversation with this id.", "after")
    page = [_conversation(each) for each in found[:limit]]
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    return answer(ConversationList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > limit))


def _conversation(each: ConversationSummary) -> ConversationBody:
    return ConversationBody(
        id=public_id("conv", each.conversation_id),
        created_at=int(each.created_at),
        title=each.title,
        last_active_at=int(each.last_active_at),
    )


def _unknown() -> RequestRefused:
    """The same for another user's conversation as for none."""
    return RequestRefused("conversation_not_found", "The user has no such conversation.")


def _invalid(message: str, param: str) -> RequestRefused:
    return RequestRefused("invalid_value", message, param)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= PAGE_MAX):
        raise _invalid(f"limit must be a number from 1 to {PAGE_MAX}.", "limit")
    return int(text)


def _choice(request: Request, name: str, default: str, choices: Sequence[str]) -> str:
    value = request.query_params.get(name, default)
    if value not in choices:
        raise _invalid(f"{name} must be {' or '.join(choices)}.", name)
    return value


def _item_id(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    if value is not None and (not 1 <= len(value) <= ID_CHARS_MAX or "\0" in value):
        raise _invalid(f"{name} must have 1 to {ID_CHARS_MAX} characters, none of them NUL.", name)
    return value
