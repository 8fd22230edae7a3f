"""Databases as others have made them and set them up: what is refused, what is set right, and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from uuid import uuid4

import pytest
import structlog.testing
from lastcall import logs
from lastcall.store import reports
from lastcall.store.errors import DatabaseUnusable, ItemExists
from lastcall.store.postgres import Access, migrate_schema, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.preparation.parts import FUNCTIONS, INDEXES, TRIGGERS
from lastcall.store.postgres.preparation.settings import SETTINGS
from lastcall.store.postgres.preparation.state import RELATIONS
from lastcall.store.records import SessionStart

from tests.support.command_line import unwrapped
from tests.support.databases import as_role, new_database, new_role, person, psql
from tests.support.instances import instance

from .world import PostgresWorld, end, item

NOT_OURS = "CREATE TABLE conversation_sessions (session_id uuid PRIMARY KEY, user_id text, is_active boolean)"
QUESTIONS = (Access.READ, Access.WRITE)
MARK = """
CREATE OR REPLACE FUNCTION instance_lock_key(instance_id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT /* newer */ hashtextextended('lastcall instance ' || instance_id::text, 0)
$$
"""
MARKED = "SELECT prosrc LIKE '%newer%' FROM pg_proc WHERE proname = 'instance_lock_key'"
TAKES_IDS_FOR_GOOD = "ALTER TABLE messages ADD CONSTRAINT item_once_per_conversation UNIQUE (conversation_id, item_id)"
OLDER = "UPDATE lastcall_schema SET digest = 'older', release = '0.0.9'"
TABLES = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
HOSTILE_SETTINGS = (
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "synchronous_commit = off",
    "statement_timeout = '20ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "idle_session_timeout = '200ms'",
    "TimeZone = 'Asia/Kathmandu'",
    "DateStyle = 'German'",
    "IntervalStyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "extra_float_digits = -15",
    "client_min_messages = debug5",
    "enable_indexscan = off",
    "plan_cache_mode = force_custom_plan",
)


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    with new_database(database_url) as url:
        yield url


@pytest.fixture
async def url(empty_url: str) -> str:
    await migrate_schema(empty_url, check=False)
    return empty_url


async def refusal(url: str, access: Access = Access.SERVE) -> str:
    """What is said where the database is refused: one line."""
    try:
        async with open_store(url, access=access):
            raise AssertionError("it was not refused")
    except BaseExceptionGroup as errors:
        refused = unwrapped(errors, DatabaseUnusable)
        if refused is None or "\n" in str(refused):
            raise
        return str(refused)


async def lives_a_session(url: str) -> None:
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        start = await world.begin()
        await world.append(item(start, "hello"))
        assert await store.end_session(end(start))
        assert (await world.session(start.session_id)).memory_status == "pending"


# --- settings


async def test_settings_of_a_role_or_database_do_not_matter(database_url: str) -> None:
    with new_database(database_url, *HOSTILE_SETTINGS) as url:
        await migrate_schema(url, check=False)
        await lives_a_session(url)
        async with open_store(url) as store:
            names = [*SETTINGS, "synchronous_commit"]
            shown = {name: (await store.select(f"SHOW {name}"))[0][0] for name in names}
            assert shown == {**SETTINGS, "idle_session_timeout": "0", "synchronous_commit": "on"}


async def test_the_lease_connection_has_the_same_settings(database_url: str) -> None:
    with new_database(database_url, *HOSTILE_SETTINGS) as url:
        async with open_store(url) as store:
            world = PostgresWorld(store)
            await store.register_instance(instance(world.instance_id))
            async with store.open_lease_connection(world.instance_id) as lease:
                assert await lease.renew()
                show = partial(lease._connection.fetchval, "SHOW transaction_isolation")
                assert await bounded_call(store._loop, CALL_SECONDS, show) == "read committed"


@pytest.mark.parametrize(("found", "kept"), [("off", "on"), ("local", "local"), ("remote_write", "remote_write")])
async def test_a_commit_that_survives_no_crash_is_set_right_and_said(database_url: str, found: str, kept: str) -> None:
    logs.configure(json_logs=False, level="warning")
    with new_database(database_url, f"synchronous_commit = {found}") as url:
        with structlog.testing.capture_logs() as logged:
            async with open_store(url) as store:
                [row] = await store.select("SHOW synchronous_commit")
        assert row[0] == kept
        assert any("synchronous_commit is off" in each.get("found", "") for each in logged) is (found == "off")


async def test_a_batch_is_durable_although_the_setting_was_changed_since(url: str) -> None:
    """Within its transaction, whatever the session's setting has become."""
    async with open_store(url) as store:
        [row] = await store.select(
            "SELECT set_config('synchronous_commit', 'off', false), commit_batch(now(), '1 s', '{}'),"
            " current_setting('synchronous_commit') AS at_commit"
        )
        assert row["at_commit"] == "on"


# --- servers and databases that will not do


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_another_encoding_is_refused(database_url: str, encoding: str) -> None:
    options = f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    with new_database(database_url, options=options) as url:
        for access in Access:
            assert f"has the encoding {encoding}" in await refusal(url, access)
        assert psql(url, TABLES) == "0"


async def test_a_role_for_which_triggers_do_not_run_is_refused(database_url: str) -> None:
    with new_database(database_url, "session_replication_role = replica") as url:
        assert "RESET session_replication_role" in await refusal(url)


async def test_a_search_path_without_a_schema_is_refused(empty_url: str) -> None:
    assert "CREATE SCHEMA" in await refusal(f"{empty_url}&options=-csearch_path%3Dnowhere")


# --- tables that are not ours


@pytest.mark.parametrize("access", Access)
async def test_a_table_of_somebody_else_is_named_and_left_alone(empty_url: str, access: Access) -> None:
    psql(empty_url, NOT_OURS)
    said = await refusal(empty_url, access)
    assert "public.conversation_sessions is there already and is not lastcall's" in said
    assert "CREATE SCHEMA lastcall" in said
    assert psql(empty_url, TABLES) == "1"


async def test_a_schema_of_its_own_lives_beside_tables_of_somebody_else(empty_url: str) -> None:
    psql(empty_url, NOT_OURS, "CREATE TABLE messages ()", "CREATE SCHEMA lastcall")
    assert "public.messages are there already" in await refusal(empty_url)
    await lives_a_session(f"{empty_url}&options=-csearch_path%3Dlastcall")


async def test_a_function_of_somebody_else_is_not_replaced(empty_url: str) -> None:
    psql(empty_url, "CREATE FUNCTION append_items(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
    assert "public.append_items() is there already" in await refusal(empty_url)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("sessions_by_user", "CREATE TABLE theirs (a integer); CREATE INDEX sessions_by_user ON theirs (a)"),
        ("conversation_of_one_user", "CREATE SEQUENCE conversation_of_one_user"),
        ("messages", "CREATE TYPE messages AS ENUM ('sms')"),
        ("conversations", "CREATE DOMAIN conversations AS text"),
    ],
)
async def test_an_index_or_type_of_somebody_else_is_named(empty_url: str, name: str, statement: str) -> None:
    psql(empty_url, statement)
    assert f"public.{name} is there already" in await refusal(empty_url)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE lastcall_schema (name text)",
        "CREATE TABLE lastcall_schema (version integer)",
        "CREATE TABLE lastcall_schema (version text, applied_at timestamptz)",
        "CREATE VIEW lastcall_schema AS SELECT 1 AS version, now() AS applied_at",
    ],
)
async def test_a_versions_table_of_somebody_else_is_named(empty_url: str, statement: str) -> None:
    psql(empty_url, statement)
    assert "public.lastcall_schema is there already" in await refusal(empty_url)


async def test_a_table_that_hides_ours_is_named(url: str) -> None:
    psql(url, "CREATE SCHEMA app", "CREATE TABLE app.messages ()")
    said = await refusal(f"{url}&options=-csearch_path%3Dapp%2Cpublic")
    assert "app.messages hides lastcall's own, which is in the schema public" in said


async def test_ours_are_used_whatever_comes_before_them_later(url: str) -> None:
    async with open_store(url) as store:
        psql(url, "CREATE SCHEMA app", "CREATE TABLE app.server_instances ()", "CREATE TABLE app.messages ()")
        name = psql(url, "SELECT quote_ident(current_database())")
        psql(url, f"ALTER DATABASE {name} SET search_path = app, public")
        await store.warm_up()
        instance_id = uuid4()
        await store.register_instance(instance(instance_id))
        async with store.open_lease_connection(instance_id) as lease:
            assert await lease.renew()
        await store.load_history(uuid4(), "ada", 1, bytes_max=0)


async def test_ours_are_found_and_updated_behind_another_schema(url: str) -> None:
    psql(url, "CREATE SCHEMA app", "UPDATE lastcall_schema SET digest = NULL")
    await lives_a_session(f"{url}&options=-csearch_path%3Dapp%2Cpublic")
    assert psql(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace") == "0"


# --- questions, and who may migrate


@pytest.mark.parametrize("access", QUESTIONS)
async def test_a_question_to_an_empty_database_names_migrate_and_creates_nothing(
    empty_url: str, access: Access
) -> None:
    assert "run lastcall migrate" in await refusal(empty_url, access)
    assert psql(empty_url, TABLES) == "0"


@pytest.mark.parametrize("access", [*QUESTIONS, Access.CREATE])
@pytest.mark.parametrize("change", [OLDER, "DROP TABLE user_memories"])
async def test_a_question_to_an_older_or_partial_schema_names_migrate(url: str, access: Access, change: str) -> None:
    psql(url, change)
    assert "run lastcall migrate" in await refusal(url, access)
    await lives_a_session(url)
    assert (await migrate_schema(url, check=True)).state == "current"


PARTS = {
    "the function event_body": "DROP FUNCTION event_body(text, jsonb) CASCADE",
    "the index deliveries_due": "DROP INDEX deliveries_due",
    "the trigger report_ended_session of conversation_sessions": "DROP TRIGGER report_ended_session"
    " ON conversation_sessions",
    "the trigger guard_session of conversation_sessions": "ALTER TABLE conversation_sessions DISABLE TRIGGER"
    " guard_session",
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_schema_that_lacks_a_part_is_found_and_made_whole(url: str, part: str) -> None:
    psql(url, PARTS[part])
    assert part in await refusal(url, Access.WRITE)
    assert (await migrate_schema(url, check=True)).state == "outdated"
    assert (await migrate_schema(url, check=False)).changed
    assert (await migrate_schema(url, check=True)).state == "current"
    await lives_a_session(url)


@pytest.mark.parametrize("access", Access)
async def test_a_table_without_its_key_has_to_be_restored_again(url: str, access: Access) -> None:
    psql(url, "ALTER TABLE server_census DROP CONSTRAINT server_census_pkey")
    assert "the primary key of server_census is missing" in await refusal(url, access)


async def test_every_part_of_the_schema_is_looked_for(url: str) -> None:
    ours = "= 'public'::regnamespace"
    functions = psql(url, f"SELECT DISTINCT proname FROM pg_proc WHERE pronamespace {ours}").splitlines()
    triggers = psql(
        url,
        "SELECT tgname, relname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        f" WHERE NOT tgisinternal AND relnamespace {ours}",
    ).splitlines()
    indexes = psql(
        url,
        "SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
        f" WHERE NOT indisprimary AND relnamespace {ours}",
    ).splitlines()
    assert sorted(functions) == sorted(FUNCTIONS)
    assert sorted(triggers) == sorted("|".join(each) for each in TRIGGERS)
    assert set(INDEXES) <= set(indexes)
    assert {each for each in indexes if not each.endswith("_key")} <= set(INDEXES), "but for those of a UNIQUE column"


async def test_an_older_schema_that_takes_ids_for_good_is_upgraded_in_place(url: str) -> None:
    """Applied twice: a server that comes later finds nothing to do."""
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id))
        start = await world.begin()
        await world.append(item(start, "live", item_id="a"), item(start, "gone", item_id="b", deleted=True))
    psql(url, "DROP INDEX item_once_per_conversation, deleted_items, system_items", TAKES_IDS_FOR_GOOD, OLDER)
    for _ in range(2):
        assert (await migrate_schema(url, check=False)).state in ("outdated", "current")
        assert psql(url, "SELECT count(*) FROM pg_constraint WHERE conname = 'item_once_per_conversation'") == "0"
        psql(url, OLDER)
    async with open_store(url) as store:
        await world_goes_on(PostgresWorld(store), start)


async def world_goes_on(world: PostgresWorld, start: SessionStart) -> None:
    with pytest.raises(ItemExists):
        await world.append(item(start, item_id="a"))
    await world.append(item(start, "again", item_id="b"))
    assert sorted(await world.contents(start.conversation_id)) == ["again", "gone", "live"]


@pytest.mark.parametrize("access", [Access.WRITE, Access.CREATE, Access.SERVE])
async def test_a_newer_schema_is_refused_and_left_alone(url: str, access: Access) -> None:
    psql(url, "INSERT INTO lastcall_schema (version, digest) VALUES (99, 'newer')", MARK)
    said = await refusal(url, access)
    assert "has version 99, of a newer release" in said
    assert psql(url, MARKED) == "t"


async def test_a_question_to_a_newer_schema_is_answered(url: str) -> None:
    psql(url, "INSERT INTO lastcall_schema (version, digest) VALUES (99, 'newer')")
    async with open_store(url, access=Access.READ) as store:
        assert await reports.list_sessions(store, limit=1) == []


async def test_functions_of_a_newer_release_are_not_replaced(url: str) -> None:
    """Of the same version: an older server may serve beside newer ones."""
    psql(url, "UPDATE lastcall_schema SET digest = 'newer', release = '99.1'", MARK)
    await lives_a_session(url)
    assert (await migrate_schema(url, check=False)).state == "newer release"
    assert psql(url, MARKED) == "t"


async def test_a_migration_is_checked_done_and_done_again(empty_url: str) -> None:
    states = []
    for check in (True, False, True, False):
        report = await migrate_schema(empty_url, check=check)
        states.append((report.state, report.changed))
    assert states == [("missing", False), ("missing", True), ("current", False), ("current", False)]


async def test_a_migration_whose_lock_is_held_ends_with_a_word(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lastcall.store.postgres.preparation.migration.APPLY_ATTEMPTS_MAX", 1)
    psql(url, "UPDATE lastcall_schema SET digest = NULL")
    with person(url, "UPDATE conversations SET title = 'x'", "LOCK TABLE messages IN ROW EXCLUSIVE MODE"):
        assert "pg_stat_activity" in await refusal(url)


async def test_a_role_that_may_not_migrate_says_who_has_to(empty_url: str) -> None:
    with new_role(empty_url) as role:
        psql(empty_url, "REVOKE CREATE ON SCHEMA public FROM public")
        assert "run lastcall migrate as their owner" in await refusal(as_role(empty_url, role))
        await migrate_schema(empty_url, check=False)
        assert "lacks a privilege: permission denied for table lastcall_schema" in await refusal(
            as_role(empty_url, role)
        )


def test_all_names_of_the_schema_are_known() -> None:
    assert {"lastcall_schema", "messages", "session_truth"} < set(RELATIONS)
    assert {"commit_batch", "guard_session"} < set(FUNCTIONS)
