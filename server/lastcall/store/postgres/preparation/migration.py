"""Applies `schema.sql` where the database has another version of it."""

from __future__ import annotations

import asyncpg

from ...errors import DatabaseUnusable
from ...queries import SCHEMA, SCHEMA_DIGEST

VERSION_MIN = 140_000  # PostgreSQL 14, as server_version_num counts
APPLY_ATTEMPTS_MAX = 5


async def prepare_database(pool: asyncpg.Pool) -> None:
    version = int(await pool.fetchval("SHOW server_version_num"))
    if version < VERSION_MIN:
        raise DatabaseUnusable(f"PostgreSQL {version // 10_000} is too old: lastcall needs 14 or newer")
    if await _has_current_schema(pool):
        return
    try:
        await _apply_schema(pool)
        await pool.execute(
            "UPDATE lastcall_schema SET digest = $1 WHERE version = (SELECT max(version) FROM lastcall_schema)",
            SCHEMA_DIGEST,
        )
    except asyncpg.PostgresError as error:
        raise DatabaseUnusable(f"cannot apply schema.sql: {str(error).splitlines()[0]}") from error


async def _apply_schema(pool: asyncpg.Pool) -> None:
    """Applies `schema.sql`; retried after a deadlock with other writers, who may take its locks in another order."""
    for attempt in range(1, APPLY_ATTEMPTS_MAX + 1):
        try:
            await pool.execute(SCHEMA)
        except asyncpg.DeadlockDetectedError:
            if attempt == APPLY_ATTEMPTS_MAX:
                raise
        else:
            return


async def _has_current_schema(pool: asyncpg.Pool) -> bool:
    """Whether a server has applied this very file; applying it again would block writers for a moment."""
    if not await pool.fetchval("SELECT to_regclass('lastcall_schema') IS NOT NULL"):
        return False
    digest = await pool.fetchval("SELECT digest FROM lastcall_schema ORDER BY version DESC LIMIT 1")
    return bool(digest == SCHEMA_DIGEST)
