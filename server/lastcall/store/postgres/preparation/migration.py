"""Brings the schema of a database up to date, where that is asked for, and otherwise says what has to be done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any

import asyncpg

from .... import __version__
from ....runtime.check import Check, fail, log_checks, ok, warn
from ...errors import DatabaseUnusable
from ...queries import SCHEMA, SCHEMA_DIGEST
from .checks import check_clock, read_facts, require_usable, server_checks
from .grants import check_grants
from .partitions import choose_partitions
from .settings import LOCK_SECONDS
from .state import SCHEMA_VERSION, VERSIONS, Kind, SchemaState, read_state

APPLY_ATTEMPTS_MAX = 5
APPLY_RETRY_SECONDS = 0.5
APPLY_SECONDS = 600.0  # for one statement: an index on a large table
OTHERS_SECONDS = 60.0  # that another server may take to apply it
# As in schema.sql; for the session, so that nobody migrates between our look at the version and our change.
LOCK = "SELECT pg_advisory_lock(hashtext('lastcall schema'))"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('lastcall schema'))"
# Whether this role may create tables in the schema $1 and, where $2 is there, is an owner of it.
MAY_CHANGE = """
SELECT has_schema_privilege(n.oid, 'CREATE') AND coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class
       WHERE relnamespace = n.oid AND relname = $2), true) FROM pg_namespace n WHERE nspname = $1
"""
SIGN = "UPDATE lastcall_schema SET digest = $1, release = $2 WHERE version = $3"


class Access(Enum):
    """What a command does with the database, and so what it may do about the schema.

    READ: asks; a newer schema will do. WRITE: changes rows. CREATE: the same, and creates the schema where there is
    none. SERVE: also brings it up to date.
    """

    READ = "read"
    WRITE = "write"
    CREATE = "create"
    SERVE = "serve"


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """state: before, as in `Kind`. changed: whether the schema was applied. version: that this release knows."""

    state: str
    changed: bool
    schema: str
    version: int
    release: str | None


async def migrate_database(pool: asyncpg.Pool, *, check: bool, partitions: int | None = None) -> MigrationReport:
    """Brings the schema up to date, or only says whether it is. Raises `DatabaseUnusable`.

    partitions: of each large table; None: as they are.
    """
    async with pool.acquire() as connection:
        facts = await read_facts(connection)
        require_usable(server_checks(facts), writes=not check)
        state = await _read_state(connection, facts.role)
        is_due = _to_do(state, Access.SERVE)
        if partitions is not None:
            await choose_partitions(connection, state, partitions)
        if is_due and not check:
            state = await migrate(connection, facts.role)
        release = __version__ if is_due and not check else state.release
        return MigrationReport(state.kind.value, is_due and not check, state.schema, SCHEMA_VERSION, release)


async def prepare_database(pool: asyncpg.Pool, access: Access) -> str:
    """The schema that our tables are in. Raises `DatabaseUnusable` where the database cannot be used for this."""
    async with pool.acquire() as connection:
        facts = await read_facts(connection)
        checks = list(server_checks(facts))
        require_usable(checks, writes=access is not Access.READ)
        state = await _read_state(connection, facts.role)
        if _to_do(state, access):
            await migrate(connection, facts.role)
    if access is Access.SERVE:
        async with pool.acquire() as connection:  # a migration has closed the first
            log_checks([*checks, await check_grants(connection, facts.role), await check_clock(connection)])
    return state.schema


def _to_do(state: SchemaState, access: Access) -> bool:
    """Whether the schema has to be applied. Raises `DatabaseUnusable` where it has, and is not for us to do."""
    if access not in _DEALS_WITH[state.kind]:
        raise DatabaseUnusable(_what_is_there(state), _MENDS[state.kind])
    return state.kind in (Kind.MISSING, Kind.OUTDATED)


_MENDS = {
    Kind.MISSING: "run lastcall migrate",
    Kind.OUTDATED: "run lastcall migrate",
    Kind.NEWER: "install that release",
}
_DEALS_WITH = {
    Kind.CURRENT: tuple(Access),
    Kind.NEWER_RELEASE: tuple(Access),
    Kind.MISSING: (Access.CREATE, Access.SERVE),
    Kind.OUTDATED: (Access.SERVE,),
    Kind.NEWER: (Access.READ,),
}


def _what_is_there(state: SchemaState) -> str:
    if state.kind is Kind.MISSING:
        return f"there are no tables of lastcall in the schema {state.schema}"
    if state.lacks:
        more = f" and {len(state.lacks) - 1} more" if len(state.lacks) > 1 else ""
        return f"the schema {state.schema} is incomplete: {state.lacks[0]} is missing{more}"
    if state.kind is Kind.OUTDATED:
        return f"the schema {state.schema} is older than this release"
    if state.kind is Kind.NEWER:
        knows = f"lastcall {__version__} knows version {SCHEMA_VERSION}"
        return f"the schema {state.schema} has version {state.version}, of a newer release; {knows}"
    return f"the tables in the schema {state.schema} are of this version ({SCHEMA_VERSION})"


async def check_schema(connection: Any, role: str) -> Check:
    """What a server would find. role: its name, quoted where SQL needs it."""
    try:
        state = await _read_state(connection, role)
    except DatabaseUnusable as error:
        return fail("schema", error.found, error.mend)
    found = _what_is_there(state)
    if Access.SERVE not in _DEALS_WITH[state.kind]:
        return fail("schema", found, _MENDS[state.kind])
    if state.kind not in (Kind.MISSING, Kind.OUTDATED):
        return ok("schema", found)
    if await connection.fetchval(MAY_CHANGE, state.schema, VERSIONS):
        return warn("schema", found, f"{_MENDS[state.kind]}, or leave it to the next lastcall serve")
    return fail("schema", found, f"{_MENDS[state.kind]} as {'their owner' if state.version else 'a role that may'}")


async def migrate(connection: Any, role: str) -> SchemaState:
    """Applies `schema.sql` unless it is current or newer; the state that it found. To be used from asyncio.

    Raises:
        DatabaseUnusable: The schema is of a newer release, or this role may not change it.
    """
    try:
        await connection.execute(f"SET statement_timeout = '{APPLY_SECONDS:g}s'")
        return await _apply_patiently(connection, role)
    finally:
        # Nothing of this belongs to whoever uses the connection next.
        connection.terminate()


async def _apply_patiently(connection: Any, role: str) -> SchemaState:
    """Tries again after a deadlock with other writers, or where one of them holds its lock for long.

    Waiting longer each time would make all other writers wait behind us.
    """
    for attempt in range(1, APPLY_ATTEMPTS_MAX + 1):
        try:
            return await _apply(connection, role)
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError) as error:
            await connection.execute("ROLLBACK")
            if attempt == APPLY_ATTEMPTS_MAX:
                raise DatabaseUnusable(
                    "cannot apply schema.sql: another transaction holds a lock on its tables",
                    "end it (see pg_stat_activity), and try again",
                ) from error
        except asyncpg.PostgresError as error:
            raise _not_applied(error, role) from error
        await asyncio.sleep(APPLY_RETRY_SECONDS)
    raise AssertionError


async def _apply(connection: Any, role: str) -> SchemaState:
    await connection.execute(f"SET lock_timeout = '{OTHERS_SECONDS:g}s'; {LOCK}", timeout=APPLY_SECONDS)
    await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS:g}s'")
    state = await _read_state(connection, role)
    if state.kind is Kind.NEWER:
        raise DatabaseUnusable(_what_is_there(state), _MENDS[state.kind])
    if state.kind in (Kind.MISSING, Kind.OUTDATED):
        await connection.execute("SELECT set_config('search_path', quote_ident($1), false)", state.schema)
        await connection.execute(SCHEMA, timeout=APPLY_SECONDS)
        await connection.execute(SIGN, SCHEMA_DIGEST, __version__, SCHEMA_VERSION)
    await connection.execute(UNLOCK)
    return state


async def _read_state(connection: Any, role: str) -> SchemaState:
    try:
        return await read_state(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        reason = str(error).splitlines()[0]
        raise DatabaseUnusable(f"the role {role} lacks a privilege: {reason}", "GRANT it as the owner") from error


def _not_applied(error: asyncpg.PostgresError, role: str) -> DatabaseUnusable:
    reason = str(error).splitlines()[0]
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        found = f"the role {role} may not create or change the tables: {reason}"
        return DatabaseUnusable(found, "run lastcall migrate as their owner")
    return DatabaseUnusable(f"cannot apply schema.sql: {reason}", "see the log of PostgreSQL")
