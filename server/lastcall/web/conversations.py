"""A user's conversations: their items and the list of them, in pages; renaming and deleting one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..auth.identity import Principal
from ..conversation.rows import restored_item
from ..conversation.validation import ID_CHARS_MAX
from ..protocol.errors import RequestRefused
from ..protocol.ids import parse_public_id, public_id
from ..protocol.parsing import unknown_field
from ..store.conversations.seam import ConversationSummary
from ..store.errors import ItemNotFound
from ..store.records import PAGE_BYTES_MAX, PageItem
from .access import principal_of, services_of
from .answers import (
    ConversationBody,
    ConversationDeleted,
    ConversationList,
    ConversationRenamed,
    ItemList,
    answer,
)

PAGE_DEFAULT = 20
PAGE_MAX = 100
TITLE_CHARS_MAX = 200
SEARCH_CHARS_MAX = 200
# Controls, lone surrogates, and what turns the direction of the text around it. Joiners stay: emoji consist of them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


async def conversation_items(request: Request) -> Response:
    """A page of a conversation's items, in the same shape as on the WebSocket."""
    principal = await principal_of(request)
    limit = limit_of(request)
    descending = _choice(request, "order", "desc", ("asc", "desc")) == "desc"
    after, before = _item_id(request, "after"), _item_id(request, "before")
    if after is not None and before is not None:
        raise invalid_value("after and before cannot be used together.", "before")
    older = descending is (before is None)
    with_times = _choice(request, "times", "false", ("false", "true")) == "true"
    conversation_id = _conversation_id(request, principal)
    try:
        found = await services_of(request).store.page_items(
            conversation_id, principal.user_id, limit + 1, older=older, cursor=after or before
        )
    except ItemNotFound:
        name = "after" if before is None else "before"
        raise invalid_value("The conversation has no item with this id.", name) from None
    if found is None:
        raise _unknown()
    fitting = _fitting(found[:limit])
    shown = fitting if older is descending else fitting[::-1]
    page = [restored_item(stored) for stored in shown]
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    body = ItemList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > len(page))
    if with_times:
        body.times = [int(stored.stored_at) for stored in shown]
    return answer(body)


def _fitting(found: Sequence[PageItem]) -> Sequence[PageItem]:
    """The first items whose content fits a page; at least one."""
    sizes = accumulate(len(each.content.encode()) for each in found)
    return found[: max(1, sum(size <= PAGE_BYTES_MAX for size in sizes))]


async def conversations(request: Request) -> Response:
    """A page of the user's conversations, newest first."""
    principal = await principal_of(request)
    if principal.conversation_id is not None:
        raise RequestRefused("forbidden", "This client secret is for one conversation only.")
    limit = limit_of(request)
    try:
        after = parse_public_id("conv", request.query_params["after"]) if "after" in request.query_params else None
    except ValueError:
        raise invalid_value("after must be conv_ and 32 hex digits.", "after") from None
    search = _search(request)
    store = services_of(request).store
    found = await store.list_conversations(principal.user_id, limit + 1, after=after, search=search)
    if found is None:
        raise invalid_value("The user has no conversation with this id.", "after")
    page = [_conversation(each) for each in found[:limit]]
    first_id, last_id = (page[0].id, page[-1].id) if page else (None, None)
    return answer(ConversationList(data=page, first_id=first_id, last_id=last_id, has_more=len(found) > limit))


async def rename_conversation(request: Request) -> Response:
    """Gives a conversation a title, or takes it away."""
    principal = await principal_of(request)
    conversation_id = _conversation_id(request, principal)
    title = _title(await request.body())
    if not await services_of(request).store.rename_conversation(conversation_id, principal.user_id, title):
        raise _unknown()
    return answer(ConversationRenamed(id=public_id("conv", conversation_id), title=title))


async def delete_conversation(request: Request) -> Response:
    """Deletes a conversation: it is neither shown nor resumed any more, and its live sessions end."""
    principal = await principal_of(request)
    conversation_id = _conversation_id(request, principal)
    if not await services_of(request).store.delete_conversation(conversation_id, principal.user_id):
        raise _unknown()
    return answer(ConversationDeleted(id=public_id("conv", conversation_id)))


class _Renaming(msgspec.Struct, forbid_unknown_fields=True):
    title: str | None


def _title(body: bytes) -> str | None:
    try:
        title = msgspec.json.decode(body, type=_Renaming).title
    except (msgspec.DecodeError, RecursionError) as error:
        if (name := unknown_field(error)) is not None:
            raise RequestRefused("unknown_parameter", f"Unknown parameter: '{name}'.", name) from None
        raise invalid_value(f"Invalid body: {error}.", "title") from None
    if title is None:
        return None
    title = " ".join(title.split())
    if not 1 <= len(title) <= TITLE_CHARS_MAX or _CONTROLS.search(title):
        sentence = f"title must have 1 to {TITLE_CHARS_MAX} characters, none of them a control character."
        raise invalid_value(sentence, "title")
    return title


def _search(request: Request) -> str | None:
    words = request.query_params.get("search")
    if words is not None and (not 1 <= len(words) <= SEARCH_CHARS_MAX or "\0" in words):
        raise invalid_value(f"search must have 1 to {SEARCH_CHARS_MAX} characters, none of them NUL.", "search")
    return words


def _conversation_id(request: Request, principal: Principal) -> UUID:
    try:
        conversation_id = parse_public_id("conv", request.path_params["conversation_id"])
    except ValueError:
        raise _unknown() from None
    if not principal.may_enter(conversation_id):
        raise _unknown()
    return conversation_id


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


def invalid_value(message: str, param: str) -> RequestRefused:
    """The refusal of a parameter."""
    return RequestRefused("invalid_value", message, param)


def limit_of(request: Request) -> int:
    """The size of a page that is asked for. Raises `RequestRefused`."""
    text = request.query_params.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= PAGE_MAX):
        raise invalid_value(f"limit must be a number from 1 to {PAGE_MAX}.", "limit")
    return int(text)


def _choice(request: Request, name: str, default: str, choices: Sequence[str]) -> str:
    value = request.query_params.get(name, default)
    if value not in choices:
        raise invalid_value(f"{name} must be {' or '.join(choices)}.", name)
    return value


def _item_id(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    if value is not None and (not 1 <= len(value) <= ID_CHARS_MAX or "\0" in value):
        raise invalid_value(f"{name} must have 1 to {ID_CHARS_MAX} characters, none of them NUL.", name)
    return value
