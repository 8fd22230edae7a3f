"""`lastcall orphans`."""

from __future__ import annotations

from typing import Any

import click

from ...store import reports
from ..kinds import DAYS_MAX, Seconds
from ..options import question_options
from ..running import ask
from ..tables import UUID_CHARS, Column, duration, moment, one_line, print_json, print_limit, print_table

EXIT_ALERT = 1
ORPHANS = 1000


@click.command
@click.option(
    "--hours",
    type=Seconds(min=0, max=DAYS_MAX * 24),
    default=2.0,
    show_default=True,
    help="The alert counts sessions active for longer than this.",
)
@click.option(
    "--alert-above",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Exit with 1 if there are more such sessions.",
)
@click.option("--close", is_flag=True, help="Close the orphaned sessions.")
@question_options
def orphans(*, hours: float, alert_above: int, close: bool, as_json: bool, **database: Any) -> int:
    """List active sessions whose server is gone, and check the alert.

    The exit code is 1 if more than --alert-above sessions have been active for over --hours, orphaned or not. --close
    closes the orphaned ones; their end is the last time their server was known to be alive. It first makes sure that
    this server is dead, which may take as long as its lease.
    """
    if close:
        return _close_orphans(as_json, database)

    async def question(store: reports.Rows) -> reports.OrphansReport:
        return await reports.find_orphans(store, hours=hours, alert_above=alert_above, limit=ORPHANS)

    found = ask(question, **database)
    if as_json:
        print_json(found)
    else:
        _print_orphans(found)
    return EXIT_ALERT if found.alert else 0


def _print_orphans(found: reports.OrphansReport) -> None:
    if found.orphans:
        print_table(_ORPHAN_COLUMNS, [_orphan_cells(each) for each in found.orphans])
        print_limit(found.orphans, ORPHANS)
        click.echo("Run lastcall orphans --close to close them.")
    else:
        click.echo("No orphaned sessions.")
    verdict = "ALERT" if found.alert else "ok"
    sessions = "session has" if found.overdue == 1 else "sessions have"
    overdue = f"{found.overdue} {sessions} been active for over {found.hours:g} h"
    click.echo(f"{overdue} (alert above {found.alert_above}): {verdict}.")


_ORPHAN_COLUMNS = (
    Column("session", below=1, least=UUID_CHARS),
    Column("user", whole=False),
    Column("started (UTC)", below=1),
    Column("owner last seen"),
    Column("active for", below=1),
    Column("owner", whole=False),
)


def _orphan_cells(each: reports.OrphanReport) -> list[str]:
    return [
        str(each.session_id),
        one_line(each.user_id),
        moment(each.session_start),
        moment(each.owner_last_seen),
        duration(each.hours_active * 3600),
        "none" if each.hostname is None else f"{one_line(each.hostname)}:{each.pid}",
    ]


def _close_orphans(as_json: bool, database: dict[str, Any]) -> int:
    from ...sessions.orphans import close_orphans

    closed = ask(close_orphans, writes=True, **database)
    if as_json:
        print_json({"closed": closed})
    elif not closed:
        click.echo("No orphaned sessions to close.")
    else:
        print_table(_CLOSED_COLUMNS, [_closed_cells(each) for each in closed])
        click.echo(f"Closed {len(closed)} orphaned session{'s' if len(closed) > 1 else ''}.")
    return 0


_CLOSED_COLUMNS = (
    Column("session", below=1, least=UUID_CHARS),
    Column("user", whole=False),
    Column("started (UTC)", below=1),
    Column("ended (UTC)"),
    Column("lasted", below=1),
    Column("reason"),
)


def _closed_cells(each: reports.ClosedReport) -> list[str]:
    return [
        str(each.session_id),
        one_line(each.user_id),
        moment(each.session_start),
        moment(each.session_end),
        duration(each.duration_seconds),
        each.end_reason,
    ]
