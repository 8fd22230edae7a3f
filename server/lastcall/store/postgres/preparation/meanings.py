"""What meanings of turns need in the database: pgvector, and the tables and functions of `meanings.sql`."""

from __future__ import annotations

import re
from typing import Any

import asyncpg

from ....runtime.check import Check, ok, warn
from ...errors import reason_of
from ...queries import MEANINGS, MEANINGS_DIGEST
from .settings import LOCK_SECONDS

MEANING = "meaning"
WORDS_ONLY = "turns are found by their words only"
EXTENSION_VERSION_MIN = (0, 7)  # of pgvector: the first with half-precision vectors
LOCK = "SELECT pg_advisory_xact_lock(hashtext('lastcall schema'))"

STATE = """
SELECT quote_ident(current_user) AS role, quote_ident(home.nspname) AS schema,
       e.extversion AS version, quote_ident(of_extension.nspname) AS extension_schema,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
       obj_description(to_regclass('recall_meanings'), 'pg_class') AS digest
  FROM pg_class c JOIN pg_namespace home ON home.oid = c.relnamespace
  LEFT JOIN pg_extension e ON e.extname = 'vector'
  LEFT JOIN pg_namespace of_extension ON of_extension.oid = e.extnamespace
 WHERE c.oid = to_regclass('recall_passages')
"""
MISSING = """
SELECT string_agg(privilege, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS privilege
 WHERE NOT has_table_privilege('recall_meanings', privilege)
"""


async def check_meanings(connection: Any) -> Check:
    """What a server with the extra would find. Changes nothing."""
    state = await connection.fetchrow(STATE)
    if state is None:
        return ok(MEANING, "there are no tables yet; the next lastcall serve makes them")
    wrong = _extension(state)
    if wrong is not None:
        return wrong
    if state["version"] is None or state["digest"] != MEANINGS_DIGEST:
        return ok(MEANING, "pgvector is there; the next lastcall serve, or lastcall migrate as the owner, prepares it")
    return await _usable(connection, state)


async def prepare_meanings(connection: Any) -> Check:
    """Applies `meanings.sql` where it is not current: ok, or why that cannot be. To be used from asyncio."""
    state = await connection.fetchrow(STATE)
    if state is None:
        return warn(MEANING, f"there are no tables: {WORDS_ONLY}", "run lastcall migrate")
    wrong = _extension(state)
    if wrong is not None:
        return wrong
    if state["version"] is None or state["digest"] != MEANINGS_DIGEST:
        try:
            await _apply(connection, state["schema"])
        except asyncpg.InsufficientPrivilegeError as error:
            return _not_allowed(state, error)
        except asyncpg.PostgresError as error:
            return warn(MEANING, f"{reason_of(error)}: {WORDS_ONLY}", "start again; see the log of PostgreSQL")
    return await _usable(connection, state)


def _extension(state: Any) -> Check | None:
    """What is wrong with pgvector, if anything is."""
    if (version := state["version"] or state["available"]) is None:
        return warn(
            MEANING,
            f"this PostgreSQL has no pgvector: {WORDS_ONLY}",
            "install pgvector 0.7 or newer there, or pass --no-meaning",
        )
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < EXTENSION_VERSION_MIN:
        return warn(
            MEANING,
            f"pgvector {version} is too old: {WORDS_ONLY}",
            "install 0.7 or newer, then ALTER EXTENSION vector UPDATE; or pass --no-meaning",
        )
    return None


async def _apply(connection: Any, schema: str) -> None:
    async with connection.transaction():
        await connection.execute(f"{LOCK}; SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s'")
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        where = (await connection.fetchrow(STATE))["extension_schema"]
        # The functions keep this: the extension may be in a schema that our sessions do not search.
        await connection.execute("SELECT set_config('search_path', $1, true)", f"{schema}, {where}")
        await connection.execute(MEANINGS)
        await connection.execute(f"COMMENT ON TABLE recall_meanings IS '{MEANINGS_DIGEST}'")


def _not_allowed(state: Any, error: asyncpg.PostgresError) -> Check:
    if state["version"] is None:
        found = f"the role {state['role']} may not create the extension vector: {WORDS_ONLY}"
        return warn(MEANING, found, "CREATE EXTENSION vector as a superuser, and start again")
    found = f"the role {state['role']} may not make what meanings are stored in ({reason_of(error)}): {WORDS_ONLY}"
    return warn(MEANING, found, "run lastcall migrate as the owner, where lastcall[meaning] is installed")


async def _usable(connection: Any, state: Any) -> Check:
    missing = await connection.fetchval(MISSING)
    if missing is None:
        return ok(MEANING, "turns are found by meaning, too")
    role, schema = state["role"], state["schema"]
    found = f"the role {role} lacks {missing} on recall_meanings: {WORDS_ONLY}"
    return warn(MEANING, found, f"as the owner: GRANT {missing} ON {schema}.recall_meanings TO {role}")
