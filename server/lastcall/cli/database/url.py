"""`lastcall database-url`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from ...config import Settings
from ..options import settings_options


@click.command("database-url")
@settings_options(("database_url", "data_dir"))
@click.option("--stop", is_flag=True, help="Stop the embedded PostgreSQL, unless a server uses it.")
def database_url(database_url: str | None, data_dir: Path, stop: bool) -> None:
    """Print the URL of the database, for psql and other programs.

    Starts the embedded PostgreSQL if it is not running. It keeps running until --stop.
    """
    if stop:
        _stop(database_url, data_dir)
    elif database_url is not None:
        from ...store.address import url_for_tools

        click.echo(url_for_tools(database_url, os.environ))
    else:
        click.echo(_start(data_dir))


def _start(data_dir: Path) -> str:
    from ...embedded.postgres import keep_running, place, start

    keep_running(data_dir)  # before the start: a server that is shutting down would stop it again
    url = start(data_dir)
    where = place(data_dir)
    option = "" if data_dir == Settings().data_dir else f" --data-dir {shlex.quote(str(data_dir))}"
    again = f"lastcall database-url{option} --stop"
    click.echo(f"lastcall: PostgreSQL in {where.directory} keeps running; {again} stops it", err=True)
    return url


def _stop(database_url: str | None, data_dir: Path) -> None:
    if database_url is not None:
        raise click.UsageError("--stop applies only to the embedded PostgreSQL; leave out --database-url.")
    from ...embedded.postgres import stop

    answer = "was stopped" if stop(data_dir) else "was not running"
    click.echo(f"lastcall: PostgreSQL in {data_dir} {answer}", err=True)
