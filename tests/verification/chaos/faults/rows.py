"""Faults of rows: somebody else closes or deletes them."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import trio
from lastcall.store.errors import StoreError

from ..ledger import Visit
from ..plan import Step
from .chaos_run import ChaosRun

TRIES_MAX = 20  # to change rows while the database is away
RETRY_SECONDS = 0.2
BY_HAND = """UPDATE conversation_sessions SET is_active = false, session_end = now(), ended_at = now(),
    duration_seconds = extract(epoch FROM (now() - session_start)) WHERE session_id = $1 AND is_active
    RETURNING 1 AS changed"""
DELETE = "SELECT chaos.delete_session($1) AS changed"
ERASE = "SELECT chaos.erase_user($1) AS changed"


async def row_closed(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    """Closes a row as somebody in psql would."""
    visit = _open_visit(run)
    if visit is None or not await _changed(run, BY_HAND, UUID(visit.session_id)):
        return None
    return visit.session_id


async def row_deleted(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    visit = _open_visit(run)
    if visit is None or not await _changed(run, DELETE, UUID(visit.session_id)):
        return None
    return visit.session_id


async def user_erased(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    """Deletes everything of a user in one transaction."""
    visit = _open_visit(run)
    if visit is None or not await _changed(run, ERASE, visit.user_id):
        return None
    return visit.user_id


def _open_visit(run: ChaosRun) -> Visit | None:
    visits = [visit for visit in run.ledger.visits.values() if visit.is_open]
    visits = [visit for visit in visits if visit.client_process not in run.ledger.clients_ended]
    return run.random.choice(visits) if visits else None


async def _changed(run: ChaosRun, sql: str, subject: object) -> bool:
    """Whether a statement has changed any row. Tried again while the database is away."""
    for _ in range(TRIES_MAX):
        with suppress(StoreError):
            rows = await run.store.select(sql, subject)
            return any(row["changed"] for row in rows)
        await trio.sleep(RETRY_SECONDS)
    return False
