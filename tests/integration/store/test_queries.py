"""`queries.sql`: every statement is valid, used, and fast where it is hot."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import lastcall
import pytest
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.queries import QUERIES, load_queries

from .world import batch, registered, start_row

SOURCES = sorted(Path(lastcall.__file__).parent.rglob("*.py"))


def used_names() -> set[str]:
    """Names of statements in the server's code: `fetch("name", …)`, and `QUERIES["name"]`."""
    names = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="fetch" | "_fetch"), args=[ast.Constant(value=str(name)), *_]):
                    names.add(name)
                case ast.Subscript(value=ast.Name(id="QUERIES"), slice=ast.Constant(value=str(name))):
                    names.add(name)
    return names


def test_every_statement_that_the_code_names_exists() -> None:
    assert used_names() - set(QUERIES) == set()


def test_every_statement_is_used() -> None:
    assert set(QUERIES) - used_names() == set()


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        load_queries("-- name: one\nSELECT 1;\n-- name: two\nSELECT 2;\n-- name: one\nSELECT 3;\n")


def test_statements_are_split_at_their_names_and_keep_their_comments() -> None:
    text = "-- about the file\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT '-- name: no' ;\n"
    assert load_queries(text) == {"one": "-- why\nSELECT 1", "two": "SELECT '-- name: no' "}


async def test_every_statement_is_valid_on_the_schema(postgres_store: PostgresStore) -> None:
    async def prepare_all() -> None:
        async with postgres_store._connections.one() as connection:
            for name, text in QUERIES.items():
                try:
                    await connection.prepare(text)
                except Exception as error:
                    raise AssertionError(f"{name}: {error}") from error

    await bounded_call(postgres_store._loop, CALL_SECONDS, prepare_all)


FILL = """
SET statement_timeout = 0;
INSERT INTO server_instances (instance_id, hostname, pid, version)
    SELECT gen_random_uuid(), 'host', n, '0' FROM generate_series(1, 50) n;
INSERT INTO conversations (user_id) SELECT 'user-' || n FROM generate_series(1, 5000) n;
INSERT INTO conversation_sessions (conversation_id, user_id, instance_id)
    SELECT c.conversation_id, c.user_id, i.instance_id
      FROM (SELECT *, row_number() OVER () AS n FROM conversations) c
      JOIN (SELECT *, row_number() OVER () AS n FROM server_instances) i ON i.n = c.n % 50 + 1;
INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status)
    SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item_' || n, n, 'user', 'hello', 'completed'
      FROM conversation_sessions, generate_series(1, 4) n;
INSERT INTO user_memories (user_id, kind, content)
    SELECT user_id, 'note', 'fact ' || n FROM conversations, generate_series(1, 3) n;
UPDATE conversation_sessions SET is_active = false WHERE user_id LIKE '%7';
INSERT INTO recall_passages (user_id, session_id, message_ids, flags, words, stemmers, lexemes)
    SELECT user_id, session_id, ARRAY[gen_random_uuid()], '{1}', 3, '{english_stem}', '{blue,boat,gannet}'
      FROM conversation_sessions;
INSERT INTO recall_lexemes (user_id, lexeme, passage_id, mentions, weight_max)
    SELECT user_id, unnest(lexemes), passage_id, '{100}', 100 FROM recall_passages;
UPDATE conversation_sessions SET memory_status = 'done', memory_finalized_at = now() WHERE user_id LIKE '%17';
INSERT INTO api_keys (subject, scope, prefix, secret_hash)
    SELECT 'user-' || n, 'user', 'sk-', sha256(n::text::bytea) FROM generate_series(1, 5000) n;
INSERT INTO client_secrets (user_id, secret_hash, expires_at)
    SELECT 'user-' || n, sha256(n::text::bytea), now() FROM generate_series(1, 5000) n;
INSERT INTO superseded_memories SELECT m.*, now(), NULL FROM user_memories m;
INSERT INTO audit_log (actor, via, action, target)
    SELECT 'olga', 'api', 'session.close', session_id::text FROM conversation_sessions;
ANALYZE server_instances, conversations, conversation_sessions, messages, user_memories, superseded_memories,
    api_keys, client_secrets, audit_log,
    recall_passages, recall_lexemes;
"""
IDS = [uuid4()]
LONG = f"""
INSERT INTO conversations (conversation_id, user_id) VALUES ('{IDS[0]}', 'ada');
INSERT INTO conversation_sessions (session_id, conversation_id, user_id) VALUES ('{IDS[0]}', '{IDS[0]}', 'ada');
INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status)
    SELECT 'ada', gen_random_uuid(), '{IDS[0]}', '{IDS[0]}', 'item_' || n, n, 'user', 'hello', 'completed'
      FROM generate_series(-1500, 1500) n;
ANALYZE messages;
"""
FILL_SECONDS = 60.0
HOT: dict[str, list[Any]] = {
    "find_credential": [b"h" * 32, 60.0],
    "close_instance_sessions": [IDS[0], 0.0],
    "active_sessions": IDS,
    "claim_memory": [1, 60.0, None, 330.0, 65_536],
    "finish_memory": [f'[{{"session_id": "{IDS[0]}", "memories": [], "passages": []}}]', None],
    "renew_memory": [IDS, [1], 10.0],
    "search_turns": ["user-1", ["boats", ""], ["", "~boats"], "english_stem", 40],
    "read_turns": ["user-1", [1], [0], 100],
    "fail_memory": [IDS[0], "error", 1.0],
    "recall": ["user-1", 50, 10.0],
    "find_conversation": [IDS[0], "user-1"],
    "load_history": [IDS[0], "user-1", 200, 200, 1_000_000],
    "find_item": [IDS[0], "user-1", "item"],
    "items_after": [IDS[0], "user-1", 0, IDS[0], 20, 1_000_000],
    "items_before": [IDS[0], "user-1", 0, IDS[0], 20, 1_000_000],
    "list_conversations": ["user-1", None, 20, None, 500, 200],
    "renew_instance": IDS,
    "report_census": [IDS[0], 1, "[]"],
    "page_of_users_sessions": [None, None, "user-1", None, 50],
    "page_of_failed_memory": [None, None, 50],
    "session_details": IDS,
    "session_items": [IDS[0], 0, IDS[0], 50],
    "session_memories": [IDS[0], 50],
    "closing_of_session": [IDS[0], "user-1"],
    "page_of_users": [None, "user-1", 20, 5000],
    "audit_page": [None, None, None, None, 50],
}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _scanned(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    return {node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"}


async def explain(store: PostgresStore, fill: str = FILL) -> dict[str, dict[str, Any]]:
    """The plan of every hot statement, on filled tables."""

    async def run() -> dict[str, dict[str, Any]]:
        async with store._connections.one() as connection:
            await connection.execute(fill, timeout=FILL_SECONDS)
            await connection.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=json.loads)
            found = {}
            for name, args in HOT.items():
                plans = await connection.fetchval(f"EXPLAIN (FORMAT json) {QUERIES[name]}", *args)
                found[name] = plans[0]["Plan"]
            return found

    return await bounded_call(store._loop, FILL_SECONDS, run)


async def test_no_hot_statement_reads_a_table_from_end_to_end(postgres_store: PostgresStore) -> None:
    plans = await explain(postgres_store)
    scanned = {name: _scanned(plan) - {"server_instances"} for name, plan in plans.items()}  # a handful of rows
    assert {name: tables for name, tables in scanned.items() if tables} == {}


@pytest.mark.parametrize("name", ["items_after", "items_before"])
async def test_a_page_of_a_long_conversation_is_read_at_its_place_in_the_index(
    name: str, postgres_store: PostgresStore
) -> None:
    plan = (await explain(postgres_store, LONG))[name]
    (scan,) = [node for node in _nodes(plan) if "Relation Name" in node]
    assert scan["Index Name"] == "messages_by_position"
    assert "ROW(" in scan["Index Cond"], "the page begins at its place, not at the conversation's beginning"
    assert not any("Sort" in node["Node Type"] for node in _nodes(plan))


# What EXPLAIN does not look into: the tables are counted that each reads from end to end, with either kind of plan.
BATCH = """
SELECT commit_batch(now(), '1h', jsonb_build_object(
    'starts', (SELECT jsonb_agg(jsonb_build_object('session_id', gen_random_uuid(), 'conversation_id', conversation_id,
            'user_id', user_id, 'instance_id', instance_id, 'age_seconds', 0, 'credential_id', key_id)) FROM few),
    'items', (SELECT jsonb_agg(jsonb_build_object('message_id', gen_random_uuid(), 'conversation_id', conversation_id,
            'session_id', session_id, 'item_id', 'new_' || session_id, 'position', 9, 'role', 'user', 'content', 'hi',
            'status', 'completed', 'kind', 'message')) FROM few),
    'deletions', (SELECT jsonb_agg(jsonb_build_object('session_id', session_id, 'item_id', 'item_1')) FROM few),
    'ends', (SELECT jsonb_agg(jsonb_build_object('session_id', session_id, 'instance_id', instance_id,
            'age_seconds', 0, 'end_reason', 'client_closed')) FROM few),
    'recalls', (SELECT jsonb_agg(jsonb_build_object('session_id', session_id, 'user_id', user_id, 'memories_max', 2,
            'recent_seconds', 10)) FROM few)))
"""
FEW = """
CREATE TEMP TABLE few AS SELECT s.*, key_id FROM conversation_sessions s JOIN api_keys ON subject = user_id
    WHERE is_active LIMIT 20;
ANALYZE few
"""
BATCH_OF = "SELECT commit_batch(now(), '1h', $1)"
ACTIVE_READ = "SELECT pg_stat_get_xact_tuples_returned('sessions_active'::regclass)"
SCANS = "SELECT relname, seq_scan FROM pg_stat_xact_user_tables"


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_a_batch_reads_no_table_from_end_to_end(postgres_store: PostgresStore, plan: str) -> None:
    async def count() -> set[str]:
        async with postgres_store._connections.one() as connection:
            await connection.execute(FILL, timeout=FILL_SECONDS)
            await connection.execute(FEW)
            async with connection.transaction():
                await connection.execute(f"SET LOCAL plan_cache_mode = {plan}")
                before = await connection.fetch(SCANS)  # statements before this one may still be in it
                answer = json.loads(await connection.fetchval(BATCH))
                assert sum(answer["ends"].values()) == 20
                assert answer["deletions"] == ["deleted"] * 20
                assert [len(known["facts"]) for known in answer["recalled"].values()] == [2] * 20
                after = await connection.fetch(SCANS)
                return {relname for relname, _ in set(map(tuple, after)) - set(map(tuple, before))}

    assert await bounded_call(postgres_store._loop, FILL_SECONDS, count) - {"few", "server_instances"} == set()


async def test_a_batch_that_was_planned_on_small_tables_reads_none_from_end_to_end(
    postgres_store: PostgresStore,
) -> None:
    """As on a new database, where statistics were taken early: the next ones come a minute later."""
    world = await registered(postgres_store)
    starts = [start_row(world) for _ in range(20)]
    ids = [{name: str(start[name]) for name in ("session_id", "conversation_id", "instance_id")} for start in starts]
    said = {"position": 1, "role": "user", "content": "hi", "status": "completed", "kind": "message"}
    rows = {
        "starts": starts,
        "recalls": [{**each, "user_id": "ada", "memories_max": 2, "recent_seconds": 10} for each in ids],
        "items": [{**each, **said, "message_id": each["session_id"], "item_id": "a"} for each in ids],
        "deletions": [{**each, "item_id": "a"} for each in ids],
        "ends": [{**each, "age_seconds": 0, "end_reason": "client_closed"} for each in ids],
    }

    async def count() -> set[str]:
        async with postgres_store._connections.one() as connection:
            await connection.fetchval(BATCH_OF, batch(**rows))
            await connection.execute("ANALYZE conversations, conversation_sessions, messages, server_instances")
            async with connection.transaction():
                before = await connection.fetch(SCANS)
                await connection.fetchval(BATCH_OF, batch(**rows))  # of resumed conversations and ended sessions, too
                after = await connection.fetch(SCANS)
            return {relname for relname, _ in set(map(tuple, after)) - set(map(tuple, before))}

    assert await bounded_call(postgres_store._loop, FILL_SECONDS, count) == set()


async def test_a_batch_that_was_planned_while_nobody_was_active_reads_no_session_but_its_own(
    postgres_store: PostgresStore,
) -> None:
    """As in the morning, where statistics were taken at night."""
    world = await registered(postgres_store)
    starts = [start_row(world) for _ in range(200)]
    ids = [{name: str(start[name]) for name in ("session_id", "conversation_id", "instance_id")} for start in starts]
    said = {"position": 1, "role": "user", "content": "hi", "status": "completed", "kind": "message"}
    items = [{**each, **said, "message_id": each["session_id"], "item_id": "a"} for each in ids]
    ends = [{**each, "age_seconds": 0, "end_reason": "client_closed"} for each in ids]
    again = [{**each, "message_id": str(uuid4()), "item_id": "b", "position": 2} for each in items[-3:]]

    async def read() -> int:
        async with postgres_store._connections.one() as connection:
            await connection.fetchval(BATCH_OF, batch(starts=starts[:-3], items=items[:-3], ends=ends[:-3]))
            await connection.execute("ANALYZE conversations, conversation_sessions, messages")
            late = [start_row(world) for _ in range(200)]
            await connection.fetchval(BATCH_OF, batch(starts=[*starts[-3:], *late]))
            async with connection.transaction():
                before = await connection.fetchval(ACTIVE_READ)
                deletions = [{**each, "item_id": "a"} for each in ids[-3:]]
                await connection.fetchval(BATCH_OF, batch(items=items[-3:], deletions=deletions))
                await connection.fetchval(BATCH_OF, batch(items=again, ends=ends[-3:]))
                return int(await connection.fetchval(ACTIVE_READ) - before)

    assert await bounded_call(postgres_store._loop, FILL_SECONDS, read) == 0


async def test_a_sweep_that_was_planned_while_one_session_had_all_messages_reads_none_from_end_to_end(
    postgres_store: PostgresStore,
) -> None:
    world = await registered(postgres_store)

    async def count() -> set[str]:
        async with postgres_store._connections.one() as connection:
            await connection.execute(LONG)
            starts = [start_row(world) for _ in range(20)]
            await connection.fetchval(BATCH_OF, batch(starts=starts))
            beat = await connection.fetchval("SELECT heartbeat_at FROM server_instances")
            async with connection.transaction():
                before = await connection.fetch(SCANS)
                closed = await connection.fetch(QUERIES["reap_instance"], world.instance_id, beat, None, 100, 1.0)
                assert len(closed) == 20
                after = await connection.fetch(SCANS)
            return {relname for relname, _ in set(map(tuple, after)) - set(map(tuple, before))}

    assert "messages" not in await bounded_call(postgres_store._loop, FILL_SECONDS, count)


async def test_memory_work_that_was_planned_on_small_tables_reads_none_from_end_to_end(
    postgres_store: PostgresStore,
) -> None:
    world = await registered(postgres_store)

    async def remember(connection: Any, *, known: int) -> None:
        starts = [start_row(world) for _ in range(20)]
        names = ("session_id", "conversation_id", "instance_id")
        ids = [{name: str(start[name]) for name in names} for start in starts]
        said = {"position": 1, "role": "user", "content": "hi", "status": "completed", "kind": "message"}
        rows = {
            "starts": starts,
            "items": [{**each, **said, "message_id": each["session_id"], "item_id": "a"} for each in ids],
            "ends": [{**each, "age_seconds": 0, "end_reason": "client_closed"} for each in ids],
        }
        await connection.fetchval(BATCH_OF, batch(**rows))
        sessions = [each["session_id"] for each in ids]
        for asked in (sessions[:10], None):
            assert len(await connection.fetch(QUERIES["claim_memory"], 10, 60.0, asked, 330.0, 65_536)) == 10
        passage = {"items": ["a"], "lengths": [1], "flags": [1], "stemmers": ["english_stem"], "words": []}
        memory = {"kind": "note", "item_id": "a", "quote": "hi", "slot": "", "words": [], "op": "add", "closes": []}
        finished = [
            {"session_id": each, "passages": [passage], "memories": [{**memory, "content": str(known + number)}]}
            for number, each in enumerate(sessions)
        ]
        assert len(await connection.fetch(QUERIES["finish_memory"], json.dumps(finished), None)) == 20

    async def count() -> set[str]:
        async with postgres_store._connections.one() as connection:
            await remember(connection, known=0)
            await connection.execute("ANALYZE conversation_sessions, messages, user_memories, recall_passages")
            async with connection.transaction():
                before = await connection.fetch(SCANS)
                await remember(connection, known=20)
                after = await connection.fetch(SCANS)
            return {relname for relname, _ in set(map(tuple, after)) - set(map(tuple, before))}

    assert await bounded_call(postgres_store._loop, FILL_SECONDS, count) == set()
