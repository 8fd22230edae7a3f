"""`/v1/admin/users` and `…/memories`: who is known, what is stored and remembered of one; to erase it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...store.operators import acts
from ...store.operators.users import UserReport, page_of_users
from ...store.people.reports import erase_user as erase
from ...store.people.reports import export_lines
from ...store.reports import Rows
from ..access import actor_of, overseer_of, services_of
from ..answers import answer
from ..conversations import invalid_value, limit_of
from ..memories import forgotten, memories_of, memory_id_of
from .bodies import UserErased, UserPage, UserRow
from .parameters import body_of, page_of, text_of, unix, user_named, user_of_query


class _Erase(Struct, forbid_unknown_fields=True):
    """confirm: the name once more, which nobody types by mistake."""

    user: str
    confirm: str


async def list_users(request: Request) -> Response:
    """A page of users by name."""
    await overseer_of(request)
    limit, after, begins = limit_of(request), text_of(request, "after"), text_of(request, "begins_with")
    found = await page_of_users(services_of(request).store, limit + 1, after=after, begins_with=begins)
    page, last = page_of(found, limit)
    return answer(UserPage(data=[_row(each) for each in page], next=last.user_id if last else None))


async def list_memories(request: Request) -> Response:
    """What is remembered of a user, oldest first, each with its source; the newest 1,000."""
    await overseer_of(request)
    return await memories_of(request, _wanted_user(request))


async def forget_memory(request: Request) -> Response:
    """Erases one memory, whoever's it is. It is not learned again from the same words."""
    actor, memory_id = await actor_of(request), memory_id_of(request)
    is_gone = await acts.forget_memory(services_of(request).store, memory_id, actor)
    return forgotten(memory_id, is_gone=is_gone)


async def export_user(request: Request) -> Response:
    """Everything that is stored of a user: one JSON object a line, whose `type` says what it is."""
    actor, store, user = await actor_of(request), services_of(request).store, _wanted_user(request)
    await acts.note_export(store, actor, user)
    headers = {"content-disposition": 'attachment; filename="user.ndjson"'}
    return StreamingResponse(_lines(store, user), media_type="application/x-ndjson", headers=headers)


async def erase_user(request: Request) -> Response:
    """Deletes everything that is stored of a user and ends their sessions: `{"user": "…", "confirm": "…"}`."""
    actor, wanted = await actor_of(request), await body_of(request, _Erase)
    user = user_named(wanted.user, "user")
    if user_named(wanted.confirm, "confirm") != user:
        raise invalid_value("confirm must be the user's name.", "confirm")
    erased = await erase(services_of(request).store, user, actor)
    return answer(UserErased(user=user, sessions=erased.sessions, messages=erased.messages, memories=erased.memories))


def _wanted_user(request: Request) -> str:
    user = user_of_query(request)
    if user is None:
        raise invalid_value("user_id is missing.", "user_id")
    return user


async def _lines(store: Rows, user: str) -> AsyncIterator[str]:
    async for line in export_lines(store, user):
        yield line + "\n"


def _row(each: UserReport) -> UserRow:
    return UserRow(
        user=each.user_id,
        sessions=each.sessions,
        active=each.active,
        conversations=each.conversations,
        memories=each.memories,
        last_started_at=unix(each.last_start),
    )
