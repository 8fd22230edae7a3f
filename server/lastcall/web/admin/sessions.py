"""`/v1/admin/sessions`: their list, one of them with its transcript and memories, and its end; also a user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from ...protocol.ids import public_id
from ...store.operators import acts
from ...store.operators.sessions import (
    DetailsReport,
    ItemReport,
    find_details,
    items_of,
    memories_of,
    page_of_sessions,
)
from ...store.records import EndReason
from ..access import actor_of, overseer_of, principal_of, services_of
from ..answers import answer
from ..conversations import invalid_value, limit_of
from .parameters import (
    body_of,
    cursor_of,
    cursor_text,
    no_session,
    page_of,
    session_id_of,
    text_of,
    unix,
    user_of_query,
)
from .session_bodies import (
    ClosedSession,
    Closing,
    SessionDetail,
    SessionEnding,
    SessionItem,
    SessionItemPage,
    SessionMemory,
    SessionPage,
    SessionRow,
)

_ITEM_CURSOR = re.compile(r"(-?\d{1,18})_([0-9a-f]{32})", re.ASCII)


class _Close(Struct, forbid_unknown_fields=True):
    reason: str | None = None


async def list_sessions(request: Request) -> Response:
    """A page of sessions, newest first."""
    await overseer_of(request)
    limit = limit_of(request)
    reason = text_of(request, "end_reason")
    if reason is not None and reason not in {each.value for each in EndReason}:
        raise invalid_value("end_reason is none of those that sessions have.", "end_reason")
    found = await page_of_sessions(
        services_of(request).store,
        limit + 1,
        cursor_of(request),
        active=request.query_params.get("active") == "true",
        user=user_of_query(request),
        reason=reason,
    )
    return answer(session_page(found, limit))


async def show_session(request: Request) -> Response:
    """A session, who closed it, and what was remembered from it."""
    await overseer_of(request)
    store, session_id = services_of(request).store, session_id_of(request)
    found = await find_details(store, session_id)
    if found is None:
        raise no_session()
    closing = await acts.closing_of(store, session_id, found.user_id)
    memories = [
        SessionMemory(
            id=f"mem_{each.memory_id}",
            kind=each.kind,
            content=each.content,
            quote=each.quote,
            item_id=each.source_item_id,
            created_at=each.created_at.timestamp(),
        )
        for each in await memories_of(store, session_id)
    ]
    return answer(SessionDetail(session=session_row(found), closing=_closing(closing), memories=memories))


async def list_session_items(request: Request) -> Response:
    """A page of what was stored in a session, oldest first; deleted items too."""
    await overseer_of(request)
    limit, session_id = limit_of(request), session_id_of(request)
    after = text_of(request, "after")
    place = _ITEM_CURSOR.fullmatch(after) if after is not None else None
    if after is not None and place is None:
        raise invalid_value("after must be the `next` of a page.", "after")
    store = services_of(request).store
    if place is None:
        found = await items_of(store, session_id, limit + 1)
    else:
        found = await items_of(store, session_id, limit + 1, (int(place[1]), UUID(place[2])))
    page, last = page_of(found, limit)
    behind = None if last is None else f"{last.position}_{last.message_id.hex}"
    return answer(SessionItemPage(data=[_item(each) for each in page], next=behind))


async def close_session(request: Request) -> Response:
    """Ends a session: its row now, its socket within a second. `{"reason": "…"}` is told to its user."""
    actor, session_id = await actor_of(request), session_id_of(request)
    reason = (await body_of(request, _Close)).reason
    reason = " ".join(reason.split()) if reason else None
    if reason and (len(reason) > acts.REASON_CHARS_MAX or "\0" in reason):
        raise invalid_value(f"reason must have at most {acts.REASON_CHARS_MAX} characters, none of them NUL.", "reason")
    closed = await acts.close_session(services_of(request).store, session_id, actor, reason or None)
    if closed is None:
        raise no_session()
    return answer(ClosedSession(id=public_id("sess", session_id), closed=closed is not False))


async def session_ending(request: Request) -> Response:
    """How a session of the user ended, and who closed it."""
    principal, session_id = await principal_of(request), session_id_of(request)
    found = await acts.closing_of(services_of(request).store, session_id, principal.user_id)
    if found is None or not principal.may_enter(found.conversation_id):
        raise no_session()
    body = SessionEnding(
        id=public_id("sess", session_id),
        conversation_id=public_id("conv", found.conversation_id),
        started_at=found.session_start.timestamp(),
        ended_at=unix(found.session_end),
        end_reason=found.end_reason,
        closed_by=_closing(found),
    )
    return answer(body)


def session_page(found: Sequence[DetailsReport], limit: int) -> SessionPage:
    """The page of those that were found, of which one more than `limit` was asked for."""
    page, last = page_of(found, limit)
    behind = None if last is None else cursor_text(last.session_start, last.session_id)
    return SessionPage(data=[session_row(each) for each in page], next=behind)


def session_row(each: DetailsReport) -> SessionRow:
    return SessionRow(
        id=public_id("sess", each.session_id),
        conversation_id=public_id("conv", each.conversation_id),
        user=each.user_id,
        state=each.state,  # type: ignore[arg-type]  # the view knows no other
        started_at=each.session_start.timestamp(),
        last_event_at=each.last_event_at.timestamp(),
        ended_at=unix(each.session_end),
        row_closed_at=unix(each.ended_at),
        seconds=each.duration_seconds,
        end_reason=each.end_reason,
        close_code=each.close_code,
        memory_status=each.memory_status,  # type: ignore[arg-type]  # the schema allows no other
        memory_attempts=each.memory_attempts,
        memory_due_at=unix(each.memory_due_at),
        memory_error=each.memory_error,
        memory_done_at=unix(each.memory_finalized_at),
        server=server_name(each.hostname, each.pid),
        closed_by_server=server_name(each.closed_host, each.closed_pid),
        key=each.prefix,
    )


def server_name(hostname: str | None, pid: int | None) -> str | None:
    return None if hostname is None else f"{hostname}/{pid}"


def _closing(found: acts.ClosingReport | None) -> Closing | None:
    return Closing(name=found.actor, reason=found.reason) if found and found.actor is not None else None


def _item(each: ItemReport) -> SessionItem:
    return SessionItem(
        id=each.item_id,
        kind=each.kind,
        role=each.role,
        content=each.content,
        name=each.name,
        call_id=each.call_id,
        status=each.status,
        stored_at=each.created_at.timestamp(),
        deleted_at=unix(each.deleted_at),
    )
