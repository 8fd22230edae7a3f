"""What must be true of a database server and of the settings that we do not set ourselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from ...errors import DatabaseNotReady, DatabaseUnusable

VERSION_MIN = 140_000  # PostgreSQL 14, as server_version_num counts

FACTS = """
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_encoding') AS encoding,
       current_setting('session_replication_role') AS replication_role, pg_is_in_recovery() AS is_standby,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
       current_database()::text AS database, current_user::text AS role
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Of the server and this session. synchronous_commit: before we set it."""

    version: int
    encoding: str
    replication_role: str
    is_standby: bool
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    database: str
    role: str


async def read_facts(connection: Any) -> ServerFacts:
    return ServerFacts(**dict(await connection.fetchrow(FACTS)))


def require_usable(facts: ServerFacts, *, writes: bool) -> None:
    """Raises `DatabaseUnusable` where the database cannot keep our promises. writes: a standby will not do."""
    if facts.version < VERSION_MIN:
        raise DatabaseUnusable(f"PostgreSQL {facts.version // 10_000} is too old: lastcall needs 14 or newer")
    if facts.encoding != "UTF8":
        raise DatabaseUnusable(
            f"the database {facts.database} has the encoding {facts.encoding}, which cannot hold every message:"
            " lastcall needs UTF8 (createdb --encoding=UTF8 --template=template0)"
        )
    if not writes:
        return
    if facts.is_standby:
        raise DatabaseNotReady("this PostgreSQL is a standby, which takes no writes: use its primary")
    if facts.replication_role != "origin":
        raise DatabaseUnusable(
            f"session_replication_role is {facts.replication_role}, so that triggers do not run: it must be origin"
            f" (ALTER ROLE {facts.role} RESET session_replication_role, or the same for the database)"
        )


def warn_of(facts: ServerFacts) -> None:
    """Logs what may lose committed rows, or would have."""
    for warning in _warnings(facts):
        _log.warning("database_setting", warning=warning)


def _warnings(facts: ServerFacts) -> Iterator[str]:
    if facts.synchronous_commit == "off":
        yield "synchronous_commit is off: set to on for our own connections, as a crash would lose acknowledged items"
    if facts.fsync == "off":
        yield "fsync is off: a crash of the machine can lose acknowledged items, or the whole database"
    if facts.full_page_writes == "off":
        yield "full_page_writes is off: a crash of the machine can destroy the database"
