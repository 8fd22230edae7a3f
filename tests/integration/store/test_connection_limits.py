"""The connections that a server needs are counted before it claims anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog.testing
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.instances import CONNECTIONS_NEEDED, ConnectionLimitTooLow

from tests.support.servers import TABLES


@pytest.fixture
async def narrow(postgres_store: PostgresStore) -> AsyncIterator[PostgresStore]:
    """A store whose only connection so far is that of a role without privileges, `narrow`."""
    await postgres_store.select("CREATE ROLE narrow")
    await postgres_store.select(f"GRANT ALL ON {TABLES} TO narrow")
    await postgres_store.select("SET SESSION AUTHORIZATION narrow")
    yield postgres_store
    await postgres_store.select("RESET SESSION AUTHORIZATION")
    await postgres_store.select(f"REVOKE ALL ON {TABLES} FROM narrow")
    await postgres_store.select("DROP ROLE narrow")


async def as_superuser(store: PostgresStore, statement: str) -> None:
    await store.select("RESET SESSION AUTHORIZATION")
    await store.select(statement)
    await store.select("SET SESSION AUTHORIZATION narrow")


async def warnings_of(store: PostgresStore) -> list[Any]:
    with structlog.testing.capture_logs() as logged:
        await store.check_connection_limits()
    return [(each["event"], each["check"], each["found"].partition(", but")[0]) for each in logged]


async def test_a_role_that_may_not_have_enough_connections_is_refused_with_the_fix(narrow: PostgresStore) -> None:
    await as_superuser(narrow, f"ALTER ROLE narrow CONNECTION LIMIT {CONNECTIONS_NEEDED - 1}")
    with pytest.raises(
        ConnectionLimitTooLow, match=r"role narrow .* 6 .* needs 7 \(ALTER ROLE narrow CONNECTION LIMIT 7"
    ):
        await narrow.check_connection_limits()
    await as_superuser(narrow, f"ALTER ROLE narrow CONNECTION LIMIT {CONNECTIONS_NEEDED}")
    await narrow.check_connection_limits()


async def test_a_database_that_allows_too_few_connections_is_refused(narrow: PostgresStore) -> None:
    [row] = await narrow.select("SELECT quote_ident(current_database()) AS name")
    await as_superuser(narrow, f"ALTER DATABASE {row['name']} CONNECTION LIMIT 6")
    try:
        with pytest.raises(ConnectionLimitTooLow, match=f"the database {row['name']} may have 6 connections"):
            await narrow.check_connection_limits()
    finally:
        await as_superuser(narrow, f"ALTER DATABASE {row['name']} CONNECTION LIMIT -1")


async def test_connections_that_others_use_are_a_warning(narrow: PostgresStore) -> None:
    """As during a rolling restart: the ones of the server that leaves will be free soon."""
    [row] = await narrow.select("SELECT quote_ident(current_database()) AS name")
    [used] = await narrow.select("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()")
    others = int(used["n"]) - 1
    limit = CONNECTIONS_NEEDED + others - 1 if others else CONNECTIONS_NEEDED
    await as_superuser(narrow, f"ALTER DATABASE {row['name']} CONNECTION LIMIT {max(limit, CONNECTIONS_NEEDED)}")
    try:
        expected = (
            [("check_not_passed", "connections", f"the database {row['name']} has {limit - others} connections left")]
            if others
            else []
        )
        assert await warnings_of(narrow) == expected
    finally:
        await as_superuser(narrow, f"ALTER DATABASE {row['name']} CONNECTION LIMIT -1")


async def test_the_limits_of_roles_do_not_hold_for_superusers(postgres_store: PostgresStore) -> None:
    await postgres_store.select("ALTER ROLE CURRENT_USER CONNECTION LIMIT 1")
    try:
        await postgres_store.check_connection_limits()
    finally:
        await postgres_store.select("ALTER ROLE CURRENT_USER CONNECTION LIMIT -1")
