"""Everything that is checked of a database, for people: a start stops at the first failure, this goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg

from ....runtime.check import Check, CheckStatus, fail, ok
from ...errors import DatabaseUnusable, reason_of
from ...queries import QUERIES
from .checks import check_clock, connection_checks, read_facts, server_checks
from .grants import check_grants
from .migration import check_schema
from .settings import Connect, require_own_session, set_session


async def examine(
    connection: Any, connect: Connect, *, needed: int, settings: Mapping[str, str]
) -> AsyncIterator[Check]:
    """The checks of a database, in the order in which a start makes them. To be used from asyncio.

    Args:
        connection: Without any settings of ours.
        connect: Opens another one in the same way.
        needed: Connections that each server needs.
        settings: Of our sessions: those that the address asks for, and a time for each statement.
    """
    pooler = await check_pooler(connection, connect)
    yield pooler
    if pooler.status is CheckStatus.FAIL:
        return  # what a shared session answers says nothing
    await set_session(connection, settings)
    facts = await read_facts(connection)
    for check in server_checks(facts):
        yield check
    # Not among our own: a running server has those that it needs.
    for check in connection_checks(await connection.fetch(QUERIES["connection_limits"]), own=1, needed=needed):
        yield check
    yield await check_grants(connection, facts.role)
    yield await check_schema(connection, facts.role)
    yield await check_clock(connection)


async def check_pooler(connection: Any, connect: Connect) -> Check:
    try:
        await require_own_session(connection, connect)
    except DatabaseUnusable as error:
        return fail("pooler", error.found, error.mend)
    return ok("pooler", "each connection is a session of its own")


def unreachable(error: Exception) -> Check:
    """What a failure to connect means."""
    return fail("reachable", f"cannot use the database: {reason_of(error)}", _mend(error))


_MENDS: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidPasswordError, "correct user and password in --database-url, or the line in ~/.pgpass"),
    (asyncpg.InvalidAuthorizationSpecificationError, "correct the user in --database-url, or add it to pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "create the database: createdb --encoding=UTF8 --template=template0 NAME"),
    (asyncpg.TooManyConnectionsError, "end other programs, or raise max_connections or the limit of the role"),
    (asyncpg.CannotConnectNowError, "wait until PostgreSQL has started, and see its log"),
    (ConnectionRefusedError, "start PostgreSQL, or correct host and port in --database-url"),
    (TimeoutError, "check the network and firewalls between here and the host of --database-url"),
)


def _mend(error: Exception) -> str:
    return next((mend for kind, mend in _MENDS if isinstance(error, kind)), "check --database-url")
