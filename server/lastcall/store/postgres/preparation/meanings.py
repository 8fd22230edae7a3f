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
UNENCODED_COUNTED_MAX = 10_000  # passages that are counted of those without meanings
LOCK = "SELECT pg_advisory_xact_lock(hashtext('lastcall schema'))"

STATE = """
SELECT quote_ident(current_user) AS role, quote_ident(home.nspname) AS schema,
       e.extversion AS version, quote_ident(of_extension.nspname) AS extension_schema,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available,
       (SELECT obj_description(attrelid, 'pg_class') FROM pg_attribute WHERE attrelid = to_regclass('recall_meanings')
           AND attname = 'meaning' AND NOT attisdropped) AS digest
  FROM pg_class c JOIN pg_namespace home ON home.oid = c.relnamespace
  LEFT JOIN pg_extension e ON e.extname = 'vector'
  LEFT JOIN pg_namespace of_extension ON of_extension.oid = e.extnamespace
 WHERE c.oid = to_regclass('recall_passages')
"""
MISSING = """
SELECT (SELECT string_agg(privilege, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS privilege
         WHERE NOT has_table_privilege('recall_meanings', privilege)) AS on_table,
       (SELECT string_agg(privilege, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
         WHERE NOT has_table_privilege('meaning_claims', privilege)) AS on_claims,
       (SELECT string_agg(to_regproc(name)::oid::regprocedure::text, ', ') FROM unnest($1::text[]) AS name
         WHERE NOT has_function_privilege(to_regproc(name), 'EXECUTE')) AS on_functions
"""
CALLED = (
    "finish_memories_with_meanings",
    "search_meanings",
    "claim_unencoded",
    "store_encoded",
    "count_unencoded",
)  # the functions that servers call


async def check_meanings(connection: Any) -> Check:
    """What a server with the extra would find. Changes nothing."""
    state = await connection.fetchrow(STATE)
    if state is None:
        return ok(MEANING, "there are no tables yet; the next lastcall serve makes them")
    wrong = extension_check(state["version"], state["available"])
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
    wrong = extension_check(state["version"], state["available"])
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


def extension_check(installed: str | None, available: str | None) -> Check | None:
    """What is wrong with pgvector in these versions, if anything is."""
    version = installed or available
    if version is None:
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
    on_table, on_claims, on_functions = await connection.fetchrow(MISSING, CALLED)
    if on_table is on_claims is on_functions is None:
        left = await connection.fetchval("SELECT count_unencoded($1)", UNENCODED_COUNTED_MAX)
        return ok(MEANING, f"turns are found by meaning, too{_left(left)}")
    role, mends = state["role"], []
    if on_table is not None:
        mends.append(f"GRANT {on_table} ON {state['schema']}.recall_meanings TO {role}")
    if on_claims is not None:
        mends.append(f"GRANT {on_claims} ON {state['schema']}.meaning_claims TO {role}")
    if on_functions is not None:
        mends.append(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {state['schema']} TO {role}")
    found = f"the role {role} may not use what meanings are stored in: {WORDS_ONLY}"
    return warn(MEANING, found, f"as the owner: {'; '.join(mends)}")


def _left(passages: int) -> str:
    """What servers have yet to encode, where there is anything."""
    if not passages:
        return ""
    count = f"{passages} or more" if passages >= UNENCODED_COUNTED_MAX else str(passages)
    return f"; passages of earlier turns that servers are yet to encode: {count}"
