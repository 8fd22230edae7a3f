"""The proof of a commit on PostgreSQL: it fails where a session would, with the database's own reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from lastcall.store.errors import CommitRefused, StoreUnavailable
from lastcall.store.postgres import migrate_schema, open_store

from tests.support.databases import as_role, new_database, new_role, person, psql
from tests.support.instances import instance

from .world import WITHIN, PostgresWorld, item

PROOFS = 100
WRITTEN = ("conversations", "conversation_sessions", "messages")
BYTES_PER_PROOF_MAX = 2000  # left to autovacuum
FULL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF length(NEW.content) > 100 THEN RAISE 'no space left' USING ERRCODE = 'disk_full'; END IF;
    RETURN NEW;
END $$
"""
RUN = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO"


@pytest.fixture
async def url(database_url: str) -> AsyncIterator[str]:
    with new_database(database_url) as url:
        await migrate_schema(url, check=False)
        yield url


async def reason(world: PostgresWorld) -> str:
    """Why there is no commit."""
    with pytest.raises(CommitRefused) as refused:
        await world.store.prove_commit(world.instance_id)
    return str(refused.value)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("REVOKE INSERT ON messages FROM {role}", "permission denied for table messages"),
        ("REVOKE UPDATE ON conversation_sessions FROM {role}", "permission denied for table conversation_sessions"),
        ("REVOKE EXECUTE ON FUNCTION append_items FROM public", "permission denied for function append_items"),
        ("ALTER TABLE messages ADD CONSTRAINT nothing CHECK (false) NOT VALID", 'violates check constraint "nothing"'),
        ("DROP TABLE user_memories, messages CASCADE", 'relation "messages" does not exist'),
    ],
)
async def test_a_database_that_would_store_no_session_says_why(url: str, trouble: str, said: str) -> None:
    with new_role(url) as role:
        psql(url, f"{RUN} {role}")
        async with open_store(as_role(url, role)) as store:
            world = PostgresWorld(store)
            await store.register_instance(instance(world.instance_id))
            await store.prove_commit(world.instance_id)
            psql(url, trouble.format(role=role))
            assert said in await reason(world)
        psql(url, f"DROP OWNED BY {role}")


@pytest.mark.parametrize(
    "table", ["conversations", "conversation_sessions", "messages", "server_instances", "api_keys"]
)
async def test_a_locked_table_is_the_reason(url: str, table: str) -> None:
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        with person(url, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            assert "lock timeout" in await reason(world)
        await store.prove_commit(world.instance_id)


async def test_a_read_only_database_proves_nothing(url: str) -> None:
    """The connection is replaced once; another one is refused for the same reason."""
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        psql(url, f"ALTER DATABASE {psql(url, 'SELECT current_database()')} SET default_transaction_read_only = on")
        await world.sql("SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable) as refused:
            await store.prove_commit(world.instance_id)
        assert "read" in str(refused.value)


async def test_a_commit_that_failed_just_now_is_the_reason(url: str) -> None:
    """The short item of the proof may fit on a disk that is too full for a long one."""
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        start = await world.begin()
        await world.sql(FULL)
        await world.sql("CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()")
        with pytest.raises(StoreUnavailable):
            await store.append_items([item(start, "long " * 100)], within=0.5)
        assert await reason(world) == "no space left"
        await store.append_items([item(start)], within=WITHIN)
        await store.prove_commit(world.instance_id)


async def test_a_busy_server_needs_no_other_proof(url: str) -> None:
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        await world.append(item(await world.begin()))
        with person(url, "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE"):
            await store.prove_commit(world.instance_id)


async def test_a_proof_leaves_no_rows_and_little_space(url: str) -> None:
    async with open_store(url) as store:
        me = uuid4()
        await store.register_instance(instance(me))
        size = "SELECT " + " + ".join(f"pg_total_relation_size('{name}')" for name in WRITTEN)
        before = int(psql(url, size))
        for _ in range(PROOFS):
            await store.prove_commit(me)
        assert int(psql(url, size)) - before < PROOFS * BYTES_PER_PROOF_MAX
        psql(url, "VACUUM")
        counted = [psql(url, f"SELECT count(*) FROM {name}") for name in ("conversations", "messages")]
        assert counted == ["0", "0"]
