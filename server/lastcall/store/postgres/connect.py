"""Opening the store: the asyncio loop, the pool, the schema, and error messages for users."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog
import trio
import trio_asyncio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ..errors import DatabaseNotReady, DatabaseUnusable
from .calls import bounded_call
from .connections import COMMAND_SECONDS, CONNECT_SECONDS, CONNECTIONS, Connections
from .lease import IDLE_SECONDS
from .loop import open_loop
from .preparation.migration import Access, MigrationReport, migrate_database, prepare_database
from .preparation.settings import SessionSetup
from .store import PostgresStore

STATEMENT_SECONDS = 4.0  # below COMMAND_SECONDS: the server gives up first, and says why
CLOSE_SECONDS = 2.0
RETRY_WAIT_SECONDS_MIN = 0.1
RETRY_WAIT_SECONDS_MAX = 1.0

NOT_READY = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

Prepare = Callable[[asyncpg.Pool], Awaitable[None]]

_log = structlog.get_logger(__name__)


class DatabaseAddress:
    """A database URL as shown to people: host, port and name, without user and password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        # Not `hostname` and `port`: a URL may have several hosts, each with its port.
        hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[-1]
        self._text = f"{hosts}{parts.path or '/'}"

    def __str__(self) -> str:
        return self._text


@contextlib.asynccontextmanager
async def open_store(
    url: str, *, close_seconds: float = CLOSE_SECONDS, patience: float = 0.0, access: Access = Access.SERVE
) -> AsyncIterator[PostgresStore]:
    """Connects, makes sure that the database is fit for the access, and runs the writer until the block is left.

    On leaving, queued writes are committed and then the pool is closed or, failing that, cut off.

    Args:
        url: Of the database, as asyncpg takes it.
        close_seconds: For committing the queue, and again for closing the pool.
        patience: Seconds to keep trying while the database is not ready yet.
        access: What for; `Access.SERVE` applies the schema where it is not this release's.

    Raises:
        DatabaseUnusable: The database cannot be used; its message is one line for the user.
    """
    prepare = partial(prepare_database, access=access)
    async with open_loop() as loop:
        connections = Connections(await _connect_patiently(loop, url, patience, prepare))
        store = PostgresStore(url, connections, loop)
        try:
            async with trio.open_nursery() as services:
                services.start_soon(store.run_writer)
                try:
                    yield store
                finally:
                    store.close_writer(close_seconds)
        finally:
            with trio.move_on_after(close_seconds, shield=True):
                with contextlib.suppress(Exception):
                    await bounded_call(loop, close_seconds, connections.close)
            # Always: leaving the loop with a query in flight would hang forever.
            connections.terminate()


async def migrate_schema(url: str, *, check: bool) -> MigrationReport:
    """Creates or updates the tables.

    Args:
        url: Of the database, as asyncpg takes it.
        check: Change nothing.

    Raises:
        DatabaseUnusable: The database cannot be used; its message is one line for the user.
    """
    reports: list[MigrationReport] = []

    async def migrate(pool: asyncpg.Pool) -> None:
        reports.append(await migrate_database(pool, check=check))

    async with open_loop() as loop:
        pool = await _connect_patiently(loop, url, 0.0, migrate)
        pool.terminate()
    return reports[0]


async def _connect_patiently(
    loop: trio_asyncio.BaseTrioEventLoop, url: str, patience: float, prepare: Prepare
) -> asyncpg.Pool:
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(DatabaseNotReady),
        wait=wait_random_exponential(multiplier=RETRY_WAIT_SECONDS_MIN, max=RETRY_WAIT_SECONDS_MAX),
        stop=stop_after_delay(patience),
        before_sleep=_log_first_attempt,
        sleep=trio.sleep,
        reraise=True,
    )
    return await attempts(trio_asyncio.aio_as_trio(_connect, loop=loop), url, prepare)


def _log_first_attempt(attempt: RetryCallState) -> None:
    failure = attempt.outcome.exception() if attempt.outcome is not None else None
    if attempt.attempt_number == 1 and failure is not None:
        _log.warning("waiting_for_database", reason=str(failure.__cause__))


async def _connect(url: str, prepare: Prepare) -> asyncpg.Pool:
    names = {"application_name": "lastcall"}
    settings = {
        "statement_timeout": f"{STATEMENT_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s",
        "tcp_user_timeout": "10s",
        "jit": "off",
    }

    async def connect_again() -> Any:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)

    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,  # others when they are needed: a command asks one question and exits
            max_size=CONNECTIONS,
            max_inactive_connection_lifetime=0.0,  # no limit: after a quiet hour the first sessions would have to wait
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=names,
            init=SessionSetup(settings, connect_again),
            reset=_skip_reset,
        )
        try:
            await prepare(pool)
        except BaseException:
            pool.terminate()
            raise
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # An unknown host is more likely a typing error than a database that is about to start.
        not_ready = isinstance(error, NOT_READY) and not isinstance(error, socket.gaierror)
        kind = DatabaseNotReady if not_ready else DatabaseUnusable
        raise kind(f"cannot use the database: {reason} (check --database-url)") from error
    return pool


async def _skip_reset(connection: Any) -> None:
    """The state of a connection is never changed, so the pool's reset query would be a wasted round trip."""
