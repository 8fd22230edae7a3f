"""The settings of our sessions in the database, whatever those of the role, the database and the server are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from ...errors import DatabaseUnusable

# Longer than anything of ours holds a lock: rows that others have locked are skipped, and this is for the rest.
LOCK_SECONDS = 1.0

SETTINGS = {
    # Whoever waits for a lock must see afterwards what was committed meanwhile.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "lock_timeout": f"{LOCK_SECONDS:g}s",
    "idle_session_timeout": "0",
    # Days are counted in UTC, like all times that we print.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
# Weaker settings than on, such as local, are a choice that still survives a crash; off is not.
DURABLE = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
SELECT set_config('transaction_timeout', '0', false) WHERE current_setting('transaction_timeout', true) IS NOT NULL;
"""  # the second from PostgreSQL 17 on

POOLED = "the connections of this pooler are not our own between transactions"
POOL_BY_SESSION = "pool_mode = session in PgBouncer (others: pool by session), or connect to PostgreSQL itself"

Connect = Callable[[], Awaitable[Any]]


class SessionSetup:
    """Prepares a new connection: makes sure that its session is ours alone, and sets what it depends on.

    settings: in addition to `SETTINGS`. connect: opens another connection in the same way.
    """

    def __init__(self, settings: Callable[[], Mapping[str, str]], connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        self._checked = False

    async def __call__(self, connection: Any) -> None:
        """Raises `DatabaseUnusable` behind a pooler that pools by transaction."""
        if not self._checked:
            # First: what is set on a session that others share is set for them.
            await require_own_session(connection, self._connect)
            self._checked = True
        await set_session(connection, self._settings())


async def set_session(connection: Any, settings: Mapping[str, str]) -> None:
    """Prepares a further connection; one of a `SessionSetup` has been checked."""
    await connection.execute(_set({**SETTINGS, **settings}) + DURABLE)


async def require_own_session(connection: Any, connect: Connect) -> None:
    """Raises `DatabaseUnusable` where a pooler gives a connection another session for each transaction.

    Prepared statements and the lock of a lease belong to a session. A pooler shows by naming another process than the
    one that answers; then a second connection must not be given the session of the first, nor take it away.
    """
    try:
        mine = await connection.fetchval("SELECT pg_backend_pid()")
        if mine == connection.get_server_pid():
            return
        another = await connect()
        try:
            async with another.transaction():
                theirs = await another.fetchval("SELECT pg_backend_pid()")
                is_shared = theirs == mine or await connection.fetchval("SELECT pg_backend_pid()") != mine
        finally:
            another.terminate()
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        is_shared = True
    except asyncpg.PostgresError as error:
        # PgBouncer answers so where it pools by statement.
        is_shared = "statement pooling" in str(error)
        if not is_shared:
            raise
    if is_shared:
        raise DatabaseUnusable(POOLED, POOL_BY_SESSION)


def _set(settings: Mapping[str, str]) -> str:
    return "".join(
        f"SELECT set_config({_literal(name)}, {_literal(value)}, false);" for name, value in settings.items()
    )


def _literal(text: str) -> str:
    """As a literal of SQL, whatever the session's settings are: the user's connection string may have values too."""
    doubled = text.replace("\\", r"\\").replace("'", "''")
    return f"E'{doubled}'"
