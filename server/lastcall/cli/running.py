"""Runs a command: under Trio, with logging configured and the database of its settings open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from .options import LEVELS

if TYPE_CHECKING:
    from ..logs import Level
    from ..store.address import DatabaseAddress
    from ..store.operators.acts import Actor
    from ..store.postgres import PostgresStore

T = TypeVar("T")


def run_logged(
    function: Callable[..., Awaitable[T]],
    *args: object,
    json_logs: bool = False,
    level: str | None = None,
    fields: Mapping[str, object] | None = None,
) -> T:
    """Runs `trio.run` with logging configured; JSON logs and level debug also get the traceback of what it raises.

    fields: see `logs.configure`.
    """
    import structlog
    import trio

    from .. import logs

    least = level or _level_of_environment() or ("info" if json_logs else "warning")
    logs.configure(json_logs=json_logs, level=cast("Level", least), fields=fields)
    try:
        return trio.run(function, *args)
    except Exception:
        if json_logs or least == "debug":
            structlog.get_logger(__name__).exception("command_failed")
        raise


def _level_of_environment() -> str | None:
    level = os.environ.get("LASTCALL_LOG_LEVEL", "").lower()
    return level if level in LEVELS else None


def ask(
    question: Callable[[PostgresStore], Awaitable[T]],
    database_url: str | None,
    data_dir: Path,
    *,
    writes: bool = False,
    makes_data: bool = False,
) -> T:
    """Runs an operator's query on the given database, or else on the embedded one.

    writes: it changes rows. makes_data: it does, and creates the embedded database and the tables if there are none.
    """

    async def asked() -> T:
        from ..store.postgres import Access, open_store

        access = Access.CREATE if makes_data else Access.WRITE if writes else Access.READ
        async with (
            open_address(database_url, data_dir, makes_data=makes_data) as address,
            open_store(address, access=access) as store,
        ):
            return await question(store)

    return run_logged(asked)


def login_name() -> str | None:
    """Whoever runs the command; None for a container's user without a name."""
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):
        return None


def operator() -> Actor:
    """Whoever runs the command, for the audit log."""
    from ..store.operators.acts import Actor

    return Actor(login_name() or f"user {os.getuid()}", "command")


@contextlib.asynccontextmanager
async def open_address(database_url: str | None, data_dir: Path, *, makes_data: bool) -> AsyncIterator[DatabaseAddress]:
    """The address of the given database, or else of the embedded one, which runs for as long as the block lasts."""
    from ..store.address import read_address

    if database_url is not None:
        yield read_address(database_url, os.environ)
        return
    from ..embedded.postgres import open_embedded

    if not makes_data:
        _require_data(data_dir)
    async with open_embedded(data_dir) as embedded:
        yield read_address(embedded.url, {})  # the PG… variables mean another database


@contextlib.asynccontextmanager
async def database_of(database_url: str | None, data_dir: Path) -> AsyncIterator[DatabaseAddress | None]:
    """As `open_address`; None where the embedded database does not exist yet."""
    from ..embedded.postgres import place

    if database_url is None and not place(data_dir).cluster.exists():
        yield None
        return
    async with open_address(database_url, data_dir, makes_data=False) as address:
        yield address


def _require_data(data_dir: Path) -> None:
    """Keeps a query from creating an empty database."""
    from ..embedded.postgres import place

    if not place(data_dir).cluster.exists():
        raise click.ClickException(
            f"there is no data in {data_dir} yet; run lastcall serve there first, or pass --data-dir or --database-url"
        )
