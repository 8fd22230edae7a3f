"""Somebody's table, read page by page from one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from ...address import DatabaseAddress
from ...errors import DatabaseUnusable, StoreError, reason_of
from ...imports.source import PAGE_ROWS, Row, SourceColumn
from ..calls import bounded_call
from ..loop import AsyncioLoop, open_loop
from ..network import Connector
from ..preparation.settings import set_session

READ_SECONDS = 600.0  # for one page: the first may sort, or read a table of messages to its end

BEGIN = f"""
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL statement_timeout = '{READ_SECONDS:g}s';
SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL extra_float_digits = 1
"""
FIND = """
SELECT n.nspname::text AS schema, c.relname::text AS name, greatest(c.reltuples, 0)::bigint AS rows_about,
       c.oid::regclass::text AS quoted, has_table_privilege(c.oid, 'SELECT') AS may_read,
       to_regclass(quote_ident(n.nspname) || '.lastcall_schema') IS NOT NULL AS is_ours
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
COLUMNS = """
SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type,
       CASE atttypid WHEN 'timestamptz'::regtype THEN true WHEN 'timestamp'::regtype THEN false
                     WHEN 'date'::regtype THEN false END AS has_zone
  FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
MESSAGE_SESSIONS = ("session_id", "chat_id", "conversation_id", "chat_session_id", "session")
MESSAGE_TIMES = ("created_at", "sent_at", "timestamp", "created", "time", "at", "date")


@dataclass(frozen=True, slots=True)
class Messages:
    """A table of messages, whose newest tells when a session was last seen. All quoted for SQL."""

    table: str
    session: str
    time: str
    column: SourceColumn


class TableSource:
    """A table, in the connection that reads it. Implements `Source`."""

    def __init__(
        self, connection: Any, loop: AsyncioLoop, found: Any, columns: Sequence[SourceColumn], messages: Messages | None
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._quoted: str = found["quoted"]
        self._messages = messages
        self.name: str = found["name"]
        self.described = f"{found['schema']}.{found['name']}"
        self.rows_total: int | None = found["rows_about"] or None
        self.columns = [*columns, *([messages.column] if messages else [])]
        self.evidence = [messages.column.name] if messages else []

    async def pages(self, names: Sequence[str]) -> AsyncIterator[Sequence[Row]]:
        """The columns as text, up to `PAGE_ROWS` rows at a time. Raises `DatabaseUnusable`."""
        await self._ask(self._connection.execute, f"DECLARE import_rows NO SCROLL CURSOR FOR {self._select(names)}")
        while rows := await self._ask(self._connection.fetch, f"FETCH {PAGE_ROWS} FROM import_rows"):
            yield [tuple(row) for row in rows]

    def _select(self, names: Sequence[str]) -> str:
        if self._messages is None:
            return f"SELECT {', '.join(f't.{_quoted(name)}::text' for name in names)} FROM {self._quoted} t"  # noqa: S608 - quoted
        of = self._messages
        last = "newest.at::text"
        wanted = ", ".join(last if name == of.column.name else f"t.{_quoted(name)}::text" for name in names)
        newest = f"SELECT {of.session}::text AS id, max({of.time}) AS at FROM {of.table} GROUP BY 1"  # noqa: S608 - quoted
        joined = f"LEFT JOIN ({newest}) newest ON newest.id = t.{_quoted(names[0])}::text"
        return f"SELECT {wanted} FROM {self._quoted} t {joined}"  # noqa: S608 - quoted

    async def _ask(self, method: Any, sql: str) -> Any:
        try:
            return await bounded_call(self._loop, READ_SECONDS, method, sql)
        except StoreError as error:
            again = "mend that and run the same command again, which goes on where this one stopped"
            raise DatabaseUnusable(f"cannot read {self.described}: {error}", again) from error


@asynccontextmanager
async def open_table(
    address: DatabaseAddress, table: str, messages: str | None = None, chosen: dict[str, str] | None = None
) -> AsyncIterator[TableSource]:
    """Opens a table for reading, in a snapshot of its own.

    Args:
        address: Of its database; a standby will do.
        table: Its name as in SQL, with its schema where that is not on the search path.
        messages: Likewise, of a table of messages of these sessions.
        chosen: The columns of `messages`: its `session_id` and `created_at`, where they are called otherwise.

    Raises:
        DatabaseUnusable: There is no such table, or it may not be read.
    """
    async with open_loop() as loop:
        connector = Connector(replace(address, target="any"))
        try:
            connection = await bounded_call(loop, READ_SECONDS, connector.open, command_seconds=READ_SECONDS)
        except StoreError as error:
            raise DatabaseUnusable(f"cannot use the source: {error}", "check --from-url") from error
        try:
            opened = await bounded_call(
                loop, READ_SECONDS, _open, connection, loop, connector.settings, table, messages, chosen or {}
            )
            yield opened
        except StoreError as error:
            raise DatabaseUnusable(f"cannot read {table}: {error}", "check its name and who may read it") from error
        finally:
            connection.terminate()


async def _open(
    connection: Any,
    loop: AsyncioLoop,
    settings: Mapping[str, str],
    table: str,
    messages: str | None,
    chosen: dict[str, str],
) -> TableSource:
    await set_session(connection, settings)
    await connection.execute(BEGIN)
    found, columns = await _find(connection, table)
    if found["is_ours"]:
        raise _Refused(f"{found['schema']}.{found['name']} is lastcall's own", "name the table to import")
    of = None if messages is None else await _find_messages(connection, messages, chosen)
    return TableSource(connection, loop, found, columns, of)


async def _find(connection: Any, table: str) -> tuple[Any, list[SourceColumn]]:
    try:
        found = await connection.fetchrow(FIND, table)
    except asyncpg.PostgresError as error:  # the name itself: a quote is missing, or it has too many dots
        raise _Refused(f"{table} is no name of a table: {reason_of(error)}", "write it as in SQL") from error
    if found is None:
        raise _Refused(f"there is no table {table}", "name its schema too, such as public.conversation_sessions")
    if not found["may_read"]:
        raise _Refused(f"this role may not read {table}", "GRANT SELECT on it")
    rows = await connection.fetch(COLUMNS, table)
    return found, [SourceColumn(row["name"], row["type"], row["has_zone"]) for row in rows]


async def _find_messages(connection: Any, table: str, chosen: dict[str, str]) -> Messages:
    found, columns = await _find(connection, table)
    session = _column(table, columns, chosen, "session_id", MESSAGE_SESSIONS)
    time = _column(table, columns, chosen, "created_at", MESSAGE_TIMES)
    column = SourceColumn(f"{found['name']}.{time.name}", time.type, time.has_zone)
    return Messages(found["quoted"], _quoted(session.name), _quoted(time.name), column)


def _column(
    table: str, columns: Sequence[SourceColumn], chosen: dict[str, str], role: str, guesses: Sequence[str]
) -> SourceColumn:
    named = {column.name: column for column in columns}
    wanted = [chosen[role]] if role in chosen else guesses
    for name in wanted:
        if name in named:
            return named[name]
    fix = f"add --column messages.{role}=…; it has {', '.join(named)}"
    raise _Refused(f"no column of {table} looks like {role}", fix)


class _Refused(DatabaseUnusable, StoreError):
    """A `StoreError` too, so that it passes through a bounded call as it is."""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
