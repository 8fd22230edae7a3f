"""The import itself: page by page, each in one short transaction, so that a server beside it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import trio

from ..store.errors import InvalidRow, StoreUnavailable
from ..store.imports.source import Row, Source
from ..store.reports import Rows
from .columns import BadImport, ColumnMapping
from .rows import AdoptedSession, BadRow, RowReader
from .tally import Tally
from .times import ZoneMissing

# Of the time that a page takes, so that others have the database's disk and a processor meanwhile.
PAUSE_SHARE = 0.5
AWAY_SECONDS_MAX = 60.0  # that the database may be out of reach
RETRY_SECONDS = 1.0

Progress = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is imported, and how. zone: of times that have none. target: None: only find out what would be done."""

    source: Source
    source_name: str
    mapping: ColumnMapping
    zone: tzinfo | None
    target: Rows | None
    dry_run: bool


def require_zone(plan: Plan) -> None:
    """Raises `BadImport` where a column holds times without a zone, and none was given."""
    without = {each.name for each in plan.source.columns if each.has_zone is False}
    for name in plan.mapping.times:
        if name in without and plan.zone is None:
            raise _zone_missing(name)


def _zone_missing(name: str) -> BadImport:
    return BadImport(f"the times in {name} have no time zone: add --time-zone, such as UTC or Europe/Berlin")


async def adopt(plan: Plan, progress: Progress) -> Tally:
    """Imports all rows that are not there yet. Where it is interrupted, running it again does the rest.

    Raises:
        BadImport: The source cannot be imported like this, or the database was away for too long.
    """
    require_zone(plan)
    names = plan.mapping.names
    reader = RowReader(plan.source_name, plan.mapping, names, plan.zone, datetime.now(UTC))
    tally = Tally()
    async for page in plan.source.pages(names):
        began = trio.current_time()
        sessions = _sessions(reader, page, tally, plan.mapping)
        if plan.target is None:
            tally.imported += len(sessions)
        elif sessions:
            await _store(plan.target, plan, list(sessions.values()), tally)
        progress(tally)
        await trio.sleep(0 if plan.dry_run else PAUSE_SHARE * (trio.current_time() - began))
    return tally


def _sessions(
    reader: RowReader, page: Sequence[Row], tally: Tally, mapping: ColumnMapping
) -> dict[str, AdoptedSession]:
    """The sessions of a page by their original ids."""
    found: dict[str, AdoptedSession] = {}
    for row in page:
        tally.rows += 1
        try:
            session = reader.read(row)
        except BadRow as error:
            tally.skip(str(error), reader.original_id(row))
        except ZoneMissing as error:
            raise _zone_missing(" or ".join(mapping.times)) from error
        else:
            if session.original_id in found:
                tally.skip("another row has the same id", session.original_id)
            else:
                found[session.original_id] = session
                tally.read(session)
    return found


async def _store(target: Rows, plan: Plan, sessions: list[AdoptedSession], tally: Tally) -> None:
    """Stores a page; where the database refuses it, its halves, down to the row that is to blame."""
    try:
        outcomes = await _patiently(target, plan, sessions)
    except InvalidRow as error:
        if len(sessions) == 1:
            tally.skip(f"the database refuses it: {error}", sessions[0].original_id)
            return
        half = len(sessions) // 2
        await _store(target, plan, sessions[:half], tally)
        await _store(target, plan, sessions[half:], tally)
        return
    for session in sessions:
        outcome = outcomes[session.session_id]
        if outcome == "new":
            tally.imported += 1
        elif outcome == "present":
            tally.present += 1
        else:
            problem = "another session with this id was imported before (from another source? give it a --source name)"
            tally.skip(problem, session.original_id)


async def _patiently(target: Rows, plan: Plan, sessions: Sequence[AdoptedSession]) -> dict[object, str]:
    """Asks again while the database is away: what was stored already is found to be there."""
    rows = json.dumps([_columns(session, plan.source_name) for session in sessions])
    give_up_at = trio.current_time() + AWAY_SECONDS_MAX
    while True:
        try:
            answer = await (
                target.fetch("find_imported", rows) if plan.dry_run else target.fetch("import_sessions", rows)
            )
        except StoreUnavailable as error:
            if trio.current_time() >= give_up_at:
                again = "run the same command again, which goes on where this one stopped"
                raise BadImport(f"the database is away: {error}; {again}") from error
            await trio.sleep(RETRY_SECONDS)
        else:
            return {row["session_id"]: row["outcome"] for row in answer}


def _columns(session: AdoptedSession, source: str) -> dict[str, str]:
    return {
        "session_id": str(session.session_id),
        "conversation_id": str(session.conversation_id),
        "user_id": session.user_id,
        "session_start": session.session_start.isoformat(),
        "session_end": session.session_end.isoformat(),
        "end_reason": session.end_reason.value,
        "original_id": session.original_id,
        "imported_from": source,
    }
