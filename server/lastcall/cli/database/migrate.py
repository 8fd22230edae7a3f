"""`lastcall migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import question_options
from ..running import open_address, run_logged
from ..tables import print_json

EXIT_NOT_CURRENT = 1
PARTITIONS_MAX = 1024  # as in store/postgres/preparation/partitions.py, which is slow to import

_DONE = {"missing": "Created", "outdated": "Updated"}
_TO_DO = {"missing": "There are no tables in", "outdated": "Older than this release, or incomplete, are the tables in"}


@click.command
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if there is something to change.")
@click.option(
    "--partitions",
    type=click.IntRange(0, PARTITIONS_MAX),
    help="Of each large table, by user; only while there are no tables.  [default: 0, not partitioned]",
)
@question_options
def migrate(*, check: bool, partitions: int | None, as_json: bool, database_url: str | None, data_dir: Path) -> int:
    """Create or update the tables, as a role that may: their owner.

    serve does it too, if its role may. If not, run this first; serve then only needs to read and write rows.
    """
    from ...memory.meaning.encoder import is_installed
    from ...store.postgres import MigrationReport, migrate_schema

    async def migrated() -> MigrationReport:
        async with open_address(database_url, data_dir, makes_data=not check) as address:
            return await migrate_schema(address, check=check, meaning=is_installed(), partitions=partitions)

    report = run_logged(migrated)
    if as_json:
        print_json(report)
    else:
        click.echo(_line(report.state, report.schema, report.version, changed=report.changed))
    return EXIT_NOT_CURRENT if check and report.state in _TO_DO else 0


def _line(state: str, schema: str, version: int, *, changed: bool) -> str:
    if changed:
        return f"{_DONE[state]} the tables in the schema {schema} (version {version})."
    if state in _TO_DO:
        return f"{_TO_DO[state]} the schema {schema}: run lastcall migrate."
    return f"The tables in the schema {schema} are current (version {version})."
