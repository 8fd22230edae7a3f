"""`lastcall stats`: sessions and answers by day, and what the answers took by user and key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import click

from ...store import reports
from ..kinds import DAYS_MAX, Day
from ..options import limit_option, question_options
from ..running import ask
from ..tables import Column, duration, one_line, print_json, print_limit, print_table

if TYPE_CHECKING:
    from ...store.operators.usage import UsageGroup, UsageSum

DAYS = 7
ROWS = 1_000


@click.command
@click.option("--days", type=click.IntRange(1, DAYS_MAX), help=f"Number of days, including today.  [default: {DAYS}]")
@click.option("--since", type=Day(), help="The first day, in UTC: 2026-01-31, or an age like 30d.")
@click.option("--until", type=Day(), help="The last day, in UTC; without it today.")
@click.option(
    "--by",
    type=click.Choice(["day", "user", "key"]),
    multiple=True,
    help="Sum up what the answers took by this; may be given several times.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@limit_option(ROWS)
@question_options
def stats(
    *,
    days: int | None,
    since: date | None,
    until: date | None,
    by: Sequence[UsageGroup],
    limit: int,
    as_csv: bool,
    as_json: bool,
    **database: Any,
) -> None:
    """Show the sessions of each day, and what the answers took: time, and tokens as the model reported them."""
    if as_csv and as_json:
        raise click.UsageError("Pass only one of --csv and --json.")
    first, behind = _days(days, since, until)

    async def question(store: reports.Rows) -> Sequence[reports.DayReport | UsageSum]:
        from ...store.operators.usage import read_usage

        if by:
            return await read_usage(store, first, behind, by, limit)
        return (await reports.daily_stats(store, first, behind))[:limit]

    found = ask(question, **database)
    if as_json:
        print_json(found)
    elif as_csv:
        from ...store.operators.usage import UsageSum

        _print_csv(UsageSum if by else reports.DayReport, found)
    elif not found:
        click.echo(f"No {'answers' if by else 'sessions'} {_when(first, behind, since or until)}.")
    else:
        columns = [each for each in _COLUMNS if each[0] in by] + _SUMS if by else _DAYS
        print_table([column for _, column, _ in columns], [[cell(each) for _, _, cell in columns] for each in found])
        print_limit(found, limit)


def _days(days: int | None, since: date | None, until: date | None) -> tuple[datetime, datetime]:
    """The midnights at which the time begins, and ends."""
    if days is not None and since is not None:
        raise click.UsageError("Pass only one of --days and --since.")
    last = until or datetime.now(UTC).date()
    try:
        first = since or last - timedelta(days=(days or DAYS) - 1)
        if first > last:
            raise click.UsageError("--since must not be later than --until.")
        first_at, behind = (datetime.combine(each, time(), UTC) for each in (first, last + timedelta(days=1)))
    except OverflowError:
        raise click.UsageError("These days are too far back, or ahead.") from None
    return first_at, behind


def _when(first: datetime, behind: datetime, named: date | None) -> str:
    """named: None: the days are the last ones."""
    if named is not None:
        return f"from {first.date()} to {behind.date() - timedelta(days=1)}"
    count = (behind - first).days
    return f"in the last {count} days" if count > 1 else "today"


def _print_csv(kind: type[Any], rows: Sequence[Any]) -> None:
    from ...store.operators.csv_line import csv_line

    names = [each.name for each in fields(kind)]
    cells = [["" if (value := getattr(row, name)) is None else str(value) for name in names] for row in rows]
    for line in [names, *cells]:
        click.echo(csv_line(line).removesuffix("\r\n"))


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _key(each: UsageSum) -> str:
    if each.key_id is None:
        return "none"
    return one_line(f"{each.key_prefix}… ({each.key_subject})") if each.key_prefix else str(each.key_id)


_COLUMNS = [
    ("day", Column("day"), lambda each: str(each.date)),
    ("user", Column("user", whole=False), lambda each: one_line(each.user_id)),
    ("key", Column("key", whole=False), _key),
]

_SUMS = [
    ("", Column("sessions", "right"), lambda each: str(each.sessions)),
    ("", Column("answers", "right"), lambda each: str(each.answers)),
    ("", Column("failed", "right"), lambda each: str(each.failed)),
    ("", Column("tokens in", "right", below=2), lambda each: _count(each.input_tokens)),
    ("", Column("cached", "right"), lambda each: _count(each.cached_tokens)),
    ("", Column("out", "right"), lambda each: _count(each.output_tokens)),
    ("", Column("first piece", "right", below=1), lambda each: duration(each.first_seconds)),
    ("", Column("answer", "right"), lambda each: duration(each.answer_seconds)),
]

_DAYS = [
    ("", Column("date"), lambda each: each.date.isoformat()),
    ("", Column("sessions", "right"), lambda each: str(each.total_sessions)),
    ("", Column("average", "right"), lambda each: duration(each.avg_duration)),
    ("", Column("still active", "right"), lambda each: str(each.still_active)),
    ("", Column("memory pending", "right", below=1), lambda each: str(each.memory_pending)),
    ("", Column("memory failed", "right"), lambda each: str(each.memory_failed)),
    ("", Column("answers", "right"), lambda each: str(each.answers)),
    ("", Column("tokens in", "right", below=1), lambda each: _count(each.input_tokens)),
    ("", Column("tokens out", "right"), lambda each: _count(each.output_tokens)),
]
