"""Brings the schema of a database up to date, where that is asked for, and otherwise says what has to be done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any

import asyncpg

from .... import __version__
from ...errors import DatabaseUnusable
from ...queries import SCHEMA, SCHEMA_DIGEST
from .checks import read_facts, require_usable, warn_of
from .settings import LOCK_SECONDS
from .state import SCHEMA_VERSION, Kind, SchemaState, read_state

APPLY_ATTEMPTS_MAX = 5
APPLY_RETRY_SECONDS = 0.5
APPLY_SECONDS = 600.0  # for one statement: an index on a large table
OTHERS_SECONDS = 60.0  # that another server may take to apply it
# As in schema.sql; for the session, so that nobody migrates between our look at the version and our change.
LOCK = "SELECT pg_advisory_lock(hashtext('lastcall schema'))"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('lastcall schema'))"
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


async def migrate_database(pool: asyncpg.Pool, *, check: bool) -> MigrationReport:
    """Brings the schema up to date, or only says whether it is. Raises `DatabaseUnusable`."""
    async with pool.acquire() as connection:
        facts = await read_facts(connection)
        require_usable(facts, writes=not check)
        state = await _read_state(connection, facts.role)
        is_due = _to_do(state, Access.SERVE)
        if is_due and not check:
            state = await migrate(connection, facts.role)
        release = __version__ if is_due and not check else state.release
        return MigrationReport(state.kind.value, is_due and not check, state.schema, SCHEMA_VERSION, release)


async def prepare_database(pool: asyncpg.Pool, access: Access) -> str:
    """The schema that our tables are in. Raises `DatabaseUnusable` where the database cannot be used for this."""
    async with pool.acquire() as connection:
        facts = await read_facts(connection)
        require_usable(facts, writes=access is not Access.READ)
        if access is Access.SERVE:
            warn_of(facts)
        state = await _read_state(connection, facts.role)
        if _to_do(state, access):
            await migrate(connection, facts.role)
        return state.schema


def _to_do(state: SchemaState, access: Access) -> bool:
    """Whether the schema has to be applied. Raises `DatabaseUnusable` where it has, and is not for us to do."""
    if state.kind is Kind.NEWER and access is not Access.READ:
        raise DatabaseUnusable(_newer(state))
    if state.kind is Kind.MISSING and access not in (Access.CREATE, Access.SERVE):
        raise DatabaseUnusable(f"there are no tables of lastcall in the schema {state.schema}: run lastcall migrate")
    if state.kind is Kind.OUTDATED and access is not Access.SERVE:
        raise DatabaseUnusable(f"the schema {state.schema} is older than this release: run lastcall migrate")
    return state.kind in (Kind.MISSING, Kind.OUTDATED)


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
                reason = "another transaction holds a lock on its tables; end it (see pg_stat_activity), and try again"
                raise DatabaseUnusable(f"cannot apply schema.sql: {reason}") from error
        except asyncpg.PostgresError as error:
            raise DatabaseUnusable(_not_applied(error, role)) from error
        await asyncio.sleep(APPLY_RETRY_SECONDS)
    raise AssertionError


async def _apply(connection: Any, role: str) -> SchemaState:
    await connection.execute(f"SET lock_timeout = '{OTHERS_SECONDS:g}s'; {LOCK}", timeout=APPLY_SECONDS)
    await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS:g}s'")
    state = await _read_state(connection, role)
    if state.kind is Kind.NEWER:
        raise DatabaseUnusable(_newer(state))
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
        raise DatabaseUnusable(f"the role {role} lacks a privilege: {reason} (GRANT it as the owner)") from error


def _newer(state: SchemaState) -> str:
    return (
        f"the schema {state.schema} has version {state.version}, of a newer release; lastcall {__version__} knows"
        f" version {SCHEMA_VERSION}: install the newer release"
    )


def _not_applied(error: asyncpg.PostgresError, role: str) -> str:
    reason = str(error).splitlines()[0]
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"the role {role} may not create or change the tables ({reason}): run lastcall migrate as their owner"
    return f"cannot apply schema.sql: {reason}"
