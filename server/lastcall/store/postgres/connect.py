"""Opening the store: the asyncio loop, the pool, the schema, and error messages for users."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import structlog
import trio
import trio_asyncio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ...metrics import Metrics
from ...runtime.check import Check, CheckStatus, log_checks, ok
from ..address import BadAddress, DatabaseAddress, read_address
from ..errors import DatabaseNotReady, DatabaseUnusable, reason_of
from .calls import bounded_call
from .connections import COMMAND_SECONDS, CONNECTIONS, Connections
from .instances import CONNECTIONS_NEEDED
from .lease import IDLE_SECONDS
from .loop import AsyncioLoop, open_loop
from .network import FAILURES, Connector
from .preparation.diagnosis import examine, unreachable
from .preparation.meanings import check_meanings, prepare_meanings
from .preparation.migration import Access, MigrationReport, migrate_database, prepare_database
from .preparation.settings import SETTINGS, SessionSetup
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

Prepare = Callable[[asyncpg.Pool], Awaitable[str | None]]

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_store(
    database: str | DatabaseAddress,
    *,
    close_seconds: float = CLOSE_SECONDS,
    patience: float = 0.0,
    access: Access = Access.SERVE,
    metrics: Metrics | None = None,
) -> AsyncIterator[PostgresStore]:
    """Connects, makes sure that the database is fit for the access, and runs the writer until the block is left.

    On leaving, queued writes are committed and then the pool is closed or, failing that, cut off.

    Args:
        database: A URL or `key=value` pairs, as psql takes them, or the address itself.
        close_seconds: For committing the queue, and again for closing the pool.
        patience: Seconds to keep trying while the database is not ready yet.
        access: What for; `Access.SERVE` applies the schema where it is not this release's.
        metrics: Where the calls are counted; None: nowhere that anybody reads.

    Raises:
        DatabaseUnusable: The database cannot be used; its message is one line for the user.
    """
    prepare = partial(prepare_database, access=access)
    connector = Connector(_address(database))
    async with open_loop() as loop:
        pool = await _connect_patiently(loop, connector, patience, prepare)
        connections = Connections(pool, writes=connector.writes)
        store = PostgresStore(connector, connections, loop, metrics or Metrics())
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


async def migrate_schema(
    database: str | DatabaseAddress, *, check: bool, meaning: bool = False, partitions: int | None = None
) -> MigrationReport:
    """Creates or updates the tables.

    Args:
        database: A URL or `key=value` pairs, as psql takes them, or the address itself.
        check: Change nothing.
        meaning: Also makes what search by meaning needs, where that can be done, and logs why it cannot.
        partitions: Of each large table, where there are none yet; 0: it is not partitioned; None: as they are.

    Raises:
        DatabaseUnusable: The database cannot be used; its message is one line for the user.
    """
    reports: list[MigrationReport] = []

    async def migrate(pool: asyncpg.Pool) -> None:
        reports.append(await migrate_database(pool, check=check, partitions=partitions))
        if meaning and not check:
            async with pool.acquire() as connection:
                log_checks([await prepare_meanings(connection)])

    connector = Connector(_address(database))
    async with open_loop() as loop:
        pool = await _connect_patiently(loop, connector, 0.0, migrate)
        pool.terminate()
    return reports[0]


async def diagnose(address: DatabaseAddress, *, meaning: bool) -> list[Check]:
    """Checks the database as a server would meet it, and changes nothing. Never raises for what it finds.

    meaning: also what search by meaning needs.
    """
    checks: list[Check] = []
    async with open_loop() as loop:
        try:
            await trio_asyncio.aio_as_trio(_diagnose, loop=loop.asyncio)(address, checks, meaning)
        except (OSError, ValueError, *FAILURES) as error:
            checks.append(unreachable(error))
    return checks


async def _diagnose(address: DatabaseAddress, checks: list[Check], meaning: bool) -> None:
    """The checks so far stay in the list if a later one fails."""
    connector = Connector(address)
    connect = partial(connector.open, command_seconds=COMMAND_SECONDS, purpose="doctor")
    try:
        connection = await connect()
    except ConnectionError:
        if address.target != "read-write":
            raise
        # One that accepts no writes says why. Not at first: with several hosts, another one may accept them.
        connector = Connector(replace(address, target="any"))
        connect = partial(connector.open, command_seconds=COMMAND_SECONDS, purpose="doctor")
        connection = await connect()
    try:
        checks.append(ok("reachable", f"PostgreSQL at {address} answers"))
        settings = {**connector.settings, "statement_timeout": f"{STATEMENT_SECONDS:g}s"}
        async for check in examine(connection, connect, needed=CONNECTIONS_NEEDED, settings=settings):
            checks.append(check)  # noqa: PERF401 - a comprehension would lose them if a later one fails
        if meaning and not any(check.status is CheckStatus.FAIL for check in checks):
            checks.append(await check_meanings(connection))
    finally:
        connection.terminate()


def _address(database: str | DatabaseAddress) -> DatabaseAddress:
    try:
        address = read_address(database, os.environ) if isinstance(database, str) else database
    except BadAddress as error:
        raise DatabaseUnusable(str(error), "check --database-url") from error
    for warning in address.warnings:
        _log.warning("database_address", warning=warning)
    return address


async def _connect_patiently(
    loop: AsyncioLoop, connector: Connector, patience: float, prepare: Prepare
) -> asyncpg.Pool:
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(DatabaseNotReady),
        wait=wait_random_exponential(multiplier=RETRY_WAIT_SECONDS_MIN, max=RETRY_WAIT_SECONDS_MAX),
        stop=stop_after_delay(patience),
        before_sleep=_log_first_attempt,
        sleep=trio.sleep,
        reraise=True,
    )
    return await attempts(trio_asyncio.aio_as_trio(_connect, loop=loop.asyncio), connector, prepare)


def _log_first_attempt(attempt: RetryCallState) -> None:
    failure = attempt.outcome.exception() if attempt.outcome is not None else None
    if attempt.attempt_number == 1 and failure is not None:
        _log.warning("waiting_for_database", reason=str(failure.__cause__))


async def _connect(connector: Connector, prepare: Prepare) -> asyncpg.Pool:
    settings = {
        "statement_timeout": f"{STATEMENT_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s",
        "tcp_user_timeout": "10s",
        "jit": "off",
    }
    connect_again = partial(connector.open, command_seconds=COMMAND_SECONDS)
    set_up = SessionSetup(lambda: {**connector.settings, **SETTINGS, **settings}, connect_again)

    async def open_connection(*_: object, **__: object) -> Any:
        return await connector.open(set_up, command_seconds=COMMAND_SECONDS)

    try:
        pool = await asyncpg.create_pool(
            connect=open_connection,
            init_size=1,  # others when they are needed: a command asks one question and exits
            min_size=0,
            max_size=CONNECTIONS,
            max_inactive_connection_lifetime=0.0,  # no limit: after a quiet hour the first sessions would have to wait
            reset=_skip_reset,
        )
        try:
            connector.schema = await prepare(pool)
            if connector.schema is not None:
                async with pool.acquire() as connection:  # the one that found it by its search path
                    await set_up(connection)
        except BaseException:
            pool.terminate()
            raise
    except (OSError, ValueError, *FAILURES) as error:
        # An unknown host is more likely a typing error than a database that is about to start.
        not_ready = isinstance(error, NOT_READY) and not isinstance(error, socket.gaierror)
        kind = DatabaseNotReady if not_ready else DatabaseUnusable
        raise kind(f"cannot use the database: {reason_of(error)}", "check --database-url") from error
    return pool


async def _skip_reset(connection: Any) -> None:
    """The state of a connection is never changed, so the pool's reset query would be a wasted round trip."""
