"""`lastcall sessions`."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import click

from ...store import reports
from ...store.records import EndReason
from ..kinds import Age, SessionId, UserName
from ..options import limit_option, question_options
from ..running import ask, operator
from ..tables import UUID_CHARS, Column, duration, moment, one_line, print_json, print_limit, print_table

SESSIONS = 50


@click.command("close")
@click.argument("session_id", type=SessionId())
@click.option("--reason", help="What its user is told; it stays in the audit log.")
@question_options
def close_session(*, session_id: UUID, reason: str | None, as_json: bool, **database: Any) -> None:
    """Close the session SESSION_ID. Its server closes the connection within a second (close code 4001)."""

    from ...store.operators import acts

    if reason is not None and len(reason) > acts.REASON_CHARS_MAX:
        raise click.UsageError(f"The reason may have at most {acts.REASON_CHARS_MAX} characters.")

    async def question(store: reports.Rows) -> reports.ClosedReport | bool | None:
        return await acts.close_session(store, session_id, operator(), reason)

    closed = ask(question, writes=True, **database)
    if closed is None:
        raise click.UsageError(f"There is no session {session_id}; see lastcall sessions.")
    if isinstance(closed, bool):
        raise click.UsageError(f"Session {session_id} has already ended.")
    if as_json:
        print_json(closed)
    else:
        click.echo(
            f"Closed session {session_id} of {one_line(closed.user_id)} after {duration(closed.duration_seconds)}."
        )


@click.command("sessions")
@click.option("--user", type=UserName(), help="Only sessions of this user.")
@click.option("--active", is_flag=True, help="Only active sessions, orphaned or not.")
@click.option("--ended", is_flag=True, help="Only ended sessions.")
@click.option("--orphaned", is_flag=True, help="Only active sessions whose server is gone.")
@click.option(
    "--reason", type=click.Choice([each.value for each in EndReason]), help="Only sessions that ended for this reason."
)
@click.option("--since", type=Age(), help="Only sessions that began within this time: 90s, 15m, 24h, 7d or 2w.")
@limit_option(SESSIONS)
@question_options
def sessions(
    *,
    user: str | None,
    active: bool,
    ended: bool,
    orphaned: bool,
    reason: str | None,
    since: float | None,
    limit: int,
    as_json: bool,
    **database: Any,
) -> None:
    """List sessions, newest first."""
    state = _one_state(active=active, ended=ended, orphaned=orphaned)

    async def question(store: reports.Rows) -> list[reports.SessionReport]:
        return await reports.list_sessions(
            store, user=user, state=state, reason=reason, since_seconds=since, limit=limit
        )

    found = ask(question, **database)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No sessions.")
    else:
        imported = any(each.original_id is not None for each in found)
        print_table(
            _IMPORTED_COLUMNS if imported else _SESSION_COLUMNS, [_session_cells(each, imported) for each in found]
        )
        print_limit(found, limit)


def _one_state(**given: bool) -> reports.State | None:
    states = [name for name, is_given in given.items() if is_given]
    if len(states) > 1:
        raise click.UsageError("Pass only one of --active, --ended and --orphaned.")
    return cast("reports.State", states[0]) if states else None


_SESSION_COLUMNS = (
    Column("session", below=1, least=UUID_CHARS),
    Column("user", whole=False),
    Column("started (UTC)", below=1),
    Column("lasted"),
    Column("state or end", below=1),
    Column("memory"),
)

# Two rows below the session's id in a narrow terminal.
_IMPORTED_COLUMNS = (
    Column("session", below=2, least=UUID_CHARS),
    Column("original id", whole=False),
    *_SESSION_COLUMNS[1:],
)


def _session_cells(each: reports.SessionReport, imported: bool) -> list[str]:
    return [
        str(each.session_id),
        *([one_line(each.original_id or "-")] if imported else []),
        one_line(each.user_id),
        moment(each.session_start),
        duration(each.lasted_seconds),
        one_line(each.end_reason or each.state),
        each.memory_status,
    ]
