"""`lastcall import`."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..kinds import DatabaseUrl
from ..options import question_options
from ..running import database_of, open_address, run_logged
from ..tables import Column, duration, moment, one_line, print_json, print_table

if TYPE_CHECKING:
    from ...adoption.run import Plan
    from ...adoption.tally import AdoptionReport, Tally
    from ...store.address import DatabaseAddress
    from ...store.imports.source import Source
    from ...store.reports import Rows

PROGRESS_SECONDS = 2.0
MESSAGES = "messages."


class Assignment(click.ParamType[Any]):
    """OURS=THEIRS, the name of a column; empty: none."""

    name = "ours=theirs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        ours, equals, theirs = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} is not like session_id=id.", param, ctx)
        return ours.strip(), theirs.strip()


@click.command("import")
@click.option("--from-table", metavar="TABLE", help="Table or view to import, such as public.conversation_sessions.")
@click.option(
    "--from-url", type=DatabaseUrl(), help="URL of the database that it is in; default the one that is imported into."
)
@click.option(
    "--from-csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to import instead; its first line names the columns.",
)
@click.option(
    "--column",
    "columns",
    type=Assignment(),
    multiple=True,
    help="Which column holds what, where it is not guessed right: session_id, user_id, session_start, session_end,"
    " is_active, duration_seconds or last_seen; nothing behind = is none. May be repeated.",
)
@click.option("--time-zone", help="Zone of times that have none, such as UTC, Europe/Berlin or +02:00.")
@click.option("--messages-table", metavar="TABLE", help="Table of their messages: the last one dates an open session.")
@click.option("--source", help="Name of the source, within which ids are unique; default the table's or file's.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@question_options
def import_sessions(*, as_json: bool, database_url: str | None, data_dir: Path, **options: Any) -> None:
    """Take over the sessions of another table, in another schema, another database or a CSV file.

    Their ids are kept, beside ours. Sessions that nobody closed are dated at the last sign of them, not now. Running it
    again imports what is new, and goes on where it was interrupted.
    """
    if (options["from_table"] is None) == (options["from_csv"] is None):
        raise click.UsageError("Pass either --from-table or --from-csv.")
    if options["from_csv"] and (options["messages_table"] or options["from_url"]):
        raise click.UsageError("--from-url and --messages-table go with --from-table.")

    async def imported() -> AdoptionReport:
        if options["dry_run"]:
            async with database_of(database_url, data_dir) as address:
                return await _import(address, **options)
        async with open_address(database_url, data_dir, makes_data=True) as address:
            return await _import(address, **options)

    report = run_logged(imported)
    if as_json:
        print_json(report)
    else:
        _print(report)


async def _import(
    address: DatabaseAddress | None,
    *,
    from_table: str | None,
    from_url: str | None,
    from_csv: Path | None,
    columns: tuple[tuple[str, str], ...],
    time_zone: str | None,
    messages_table: str | None,
    source: str | None,
    dry_run: bool,
) -> AdoptionReport:
    from ...adoption.columns import map_columns
    from ...adoption.run import Plan, adopt, require_zone
    from ...adoption.tally import AdoptionReport
    from ...adoption.times import read_zone

    zone = None if time_zone is None else read_zone(time_zone)
    own = [each for each in columns if not each[0].startswith(MESSAGES)]
    of_messages = {ours.removeprefix(MESSAGES): theirs for ours, theirs in columns if ours.startswith(MESSAGES)}
    async with _open_source(address, from_table, from_url, from_csv, messages_table, of_messages) as rows:
        mapping = map_columns(rows.columns, own, rows.evidence)
        plan = Plan(rows, source or rows.name, mapping, zone, None, dry_run)
        require_zone(plan)  # before anything is created
        async with _open_target(address, dry_run=dry_run) as (target, where):
            tally = await adopt(replace(plan, target=target), _progress(plan))
    return AdoptionReport(
        plan.source_name,
        where,
        dict(mapping.columns),
        list(mapping.last_seen),
        time_zone,
        dry_run,
        tally.rows,
        tally.imported,
        tally.present,
        tally.skipped,
        tally.was_active,
        dict(tally.dated_by),
        tally.durations_changed,
        tally.examples,
        tally.problems,
    )


@asynccontextmanager
async def _open_source(
    address: DatabaseAddress | None,
    table: str | None,
    url: str | None,
    csv: Path | None,
    messages: str | None,
    of_messages: dict[str, str],
) -> AsyncIterator[Source]:
    from ...adoption.csv_source import CsvSource
    from ...store.address import read_address
    from ...store.postgres import open_table

    if csv is not None:
        yield CsvSource(csv)
        return
    assert table is not None
    if url is not None:
        place = read_address(url, os.environ)
    elif address is not None:
        # Not on our own search path: the table would be looked for among ours.
        place = replace(address, settings={})
    else:
        raise click.UsageError("Pass --from-url: there is no embedded database yet in which a table could be.")
    async with open_table(place, table, messages, of_messages) as source:
        yield source


@asynccontextmanager
async def _open_target(address: DatabaseAddress | None, *, dry_run: bool) -> AsyncIterator[tuple[Rows | None, str]]:
    """Where the rows go; None where a dry run finds no tables yet."""
    from ...store.postgres import Access, migrate_schema, open_store, prepare_target

    if address is None:
        yield None, "a new embedded database"
        return
    state = await prepare_target(address, create=not dry_run)
    where = f"{address}, schema {state.schema}"
    if dry_run and (state.missing or (await migrate_schema(address, check=True)).state == "missing"):
        yield None, f"{where} (new)"
        return
    access = Access.READ if dry_run else Access.CREATE
    async with open_store(address, access=access) as store:
        yield store, f"{where} (new)" if state.created else where


def _progress(plan: Plan) -> Callable[[Tally], None]:
    """Says on stderr how far a long import has come."""
    said_at = time.monotonic()
    of = "" if plan.source.rows_total is None else f" of about {plan.source.rows_total:,}"

    def say(tally: Tally) -> None:
        nonlocal said_at
        if time.monotonic() - said_at < PROGRESS_SECONDS:
            return
        said_at = time.monotonic()
        done = f"{tally.imported:,} new, {tally.present:,} there already, {tally.skipped:,} left out"
        click.echo(f"lastcall: {tally.rows:,}{of} rows: {done}", err=True)

    return say


def _print(report: AdoptionReport) -> None:
    columns = [f"{theirs} as {ours}" if theirs != ours else ours for ours, theirs in report.columns.items()]
    click.echo(f"From {one_line(report.source)} into {report.target}: {one_line(', '.join(columns))}.")
    zone = report.time_zone or "as the times say"
    seen = one_line(", ".join(report.last_seen)) or "no column"
    click.echo(f"Last signs of open sessions: {seen}. Time zone: {zone}.")
    verb, open_verb = ("would be imported", "would be") if report.dry_run else ("imported", "were")
    done = f"{report.imported:,} {verb}, {report.present:,} are there already, {report.skipped:,} left out"
    click.echo(f"{report.rows:,} rows: {done}.")
    dated = ", ".join(f"{count:,} at {one_line(by)}" for by, count in report.dated_by.items())
    click.echo(
        f"{report.was_active:,} were still active. Ends that {open_verb} dated by other signs: {dated or 'none'}."
    )
    click.echo(
        f"{report.durations_changed:,} durations were not the difference of start and end, and are computed anew."
    )
    if report.examples:
        cells = [
            [
                one_line(each.original_id),
                one_line(each.user_id),
                moment(each.session_start),
                moment(each.session_end),
                duration(each.duration_seconds),
                one_line(each.dated_by),
            ]
            for each in report.examples
        ]
        click.echo("Some that were active:")
        print_table(_EXAMPLE_COLUMNS, cells)
    for problem in report.problems:
        ids = ", ".join(one_line(each) or "-" for each in problem.original_ids)
        click.echo(f"{problem.rows:,} rows: {one_line(problem.problem)}, such as {ids}.")


_EXAMPLE_COLUMNS = (
    Column("original id", below=1),
    Column("user", whole=False),
    Column("started (UTC)", below=1),
    Column("ended (UTC)"),
    Column("lasted", below=1),
    Column("dated by"),
)
