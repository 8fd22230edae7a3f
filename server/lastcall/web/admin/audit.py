"""`/v1/admin/audit`: who did what, in pages and as a file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...store.operators.acts import AuditReport, audit_log
from ...store.operators.csv_line import csv_line
from ...store.reports import Rows
from ..access import overseer_of, services_of
from ..answers import answer
from ..conversations import limit_of
from .bodies import AuditPage, AuditRow
from .parameters import before_of, page_of, text_of, user_of_query

EXPORT_PAGE_LINES = 500
COLUMNS = ("id", "at", "actor", "key_id", "via", "action", "target", "details")


async def list_audit(request: Request) -> Response:
    """A page of the audit log, newest first."""
    await overseer_of(request)
    limit = limit_of(request)
    found = await audit_log(
        services_of(request).store,
        limit + 1,
        before=before_of(request),
        action=text_of(request, "action"),
        target=text_of(request, "target"),
        user=user_of_query(request),
    )
    page, last = page_of(found, limit)
    return answer(AuditPage(data=[_row(each) for each in page], next=last.audit_id if last else None))


async def export_audit(request: Request) -> Response:
    """The whole audit log as CSV, newest first."""
    await overseer_of(request)
    headers = {"content-disposition": 'attachment; filename="audit.csv"'}
    return StreamingResponse(_lines(services_of(request).store), media_type="text/csv", headers=headers)


async def _lines(store: Rows) -> AsyncIterator[str]:
    yield csv_line(COLUMNS)
    before: int | None = None
    while page := await audit_log(store, EXPORT_PAGE_LINES, before=before):
        for each in page:
            yield csv_line(_cells(each))
        before = page[-1].audit_id


def _cells(each: AuditReport) -> tuple[str, ...]:
    key_id, details = str(each.credential_id or ""), json.dumps(each.details, ensure_ascii=False)
    return (
        str(each.audit_id), each.done_at.isoformat(), each.actor, key_id, each.via, each.action, each.target, details
    )  # fmt: skip


def _row(each: AuditReport) -> AuditRow:
    return AuditRow(
        id=each.audit_id,
        at=each.done_at.timestamp(),
        actor=each.actor,
        key_id=None if each.credential_id is None else str(each.credential_id),
        via="command" if each.via == "command" else "api",
        action=each.action,
        target=each.target,
        details=each.details,
    )
