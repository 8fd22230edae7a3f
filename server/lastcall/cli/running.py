"""How a command runs: under Trio, with logging set up, and with the database that its settings name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from ..runtime.start_up import import_structlog
from .options import LEVELS

if TYPE_CHECKING:
    from ..logs import Level
    from ..store.postgres import PostgresStore

T = TypeVar("T")


def run_logged(
    function: Callable[..., Awaitable[T]], *args: object, json_logs: bool = False, level: str | None = None
) -> T:
    """`trio.run` with logging set up; what it raises is logged whole where the log is for that, and raised."""
    import_structlog()
    import structlog
    import trio

    from .. import logs

    least = level or _level_of_environment() or ("info" if json_logs else "warning")
    logs.configure(json_logs=json_logs, level=cast("Level", least))
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
    makes_data: bool = False,
) -> T:
    """What an operator's question answers, asked of the given database, else of the embedded one.

    makes_data: the embedded one is made where it is missing.
    """

    async def asked() -> T:
        if database_url is None and not makes_data:
            _require_data(data_dir)
        async with _open_database(database_url, data_dir) as store:
            return await question(store)

    return run_logged(asked)


@contextlib.asynccontextmanager
async def _open_database(database_url: str | None, data_dir: Path) -> AsyncIterator[PostgresStore]:
    from ..embedded.postgres import open_embedded
    from ..store.postgres import open_store

    async with contextlib.AsyncExitStack() as stack:
        if database_url is None:
            database_url = (await stack.enter_async_context(open_embedded(data_dir))).url
        yield await stack.enter_async_context(open_store(database_url))


def _require_data(data_dir: Path) -> None:
    """A question is no reason to make a database."""
    from ..embedded.postgres import place

    if not place(data_dir).cluster.exists():
        raise click.ClickException(
            f"there is no data in {data_dir} yet; run lastcall serve there first, or pass --data-dir or --database-url"
        )
