"""Whatever a server does for one user stays in that user's partition, and says so in its SQL."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from lastcall.store.errors import DatabaseUnusable
from lastcall.store.postgres import PostgresStore, migrate_schema, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.queries import MEANINGS, QUERIES, SCHEMA

from tests.support.command_line import unwrapped
from tests.support.databases import new_database, psql
from tests.support.servers import empty

from .world import PostgresWorld, batch, end, item, registered, start_row

PARTITIONED = ("messages", "recall_passages", "recall_lexemes")
# For one user, with its arguments: $1 and so on are what `Ada` has.
HOT = {
    "load_history": ("conversation", "user", 200, 200, 1_000_000),
    "find_item": ("conversation", "user", "item"),
    "items_after": ("conversation", "user", 0, "none", 20, 1_000_000),
    "items_before": ("conversation", "user", 9, "none", 20, 1_000_000),
    "changed_items": ("conversation", "user", "messages", 1_000_000),
    "item_keys": ("conversation", "user", 0, "none", 20),
    "deleted_among": ("user", "messages"),
    "list_conversations": ("user", None, 20, "boat", 500, 200),
    "export_messages": ("conversation", "user", 0, "none", 20),
    "recall": ("user", 50, 10.0),
    "search_turns": ("user", ["boats", ""], ["", "~boats"], "english_stem", 40),
    "read_turns": ("user", "passages", [0], 100),
    "session_items": ("session", 0, "none", 50),
    "session_details": ("session",),
}
# Read on behalf of nobody: what is kept too long, and what was forgotten with all of a table's rows.
OF_ALL_USERS = {"count_droppable", "forget_all_sessions", "recall_memories"}
PART_OF = "SELECT DISTINCT tableoid::regclass::text AS part FROM messages WHERE user_id = $1"
PLANS = ("force_generic_plan", "force_custom_plan")
TOUCHED = """
SELECT relname, seq_scan + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables
 WHERE relname ~ '^(messages|recall_passages|recall_lexemes)_[0-9]+$'
"""
FUNCTIONS = dict(
    re.findall(
        r"^CREATE OR REPLACE FUNCTION (\w+)(.*?)(?:^(?=CREATE|--|SELECT|DO|INSERT)|\Z)",
        SCHEMA + MEANINGS,
        re.DOTALL | re.MULTILINE,
    )
)


class Ada:
    """A user with a session that is over and indexed, and one that goes on; others have as much."""

    def __init__(self, world: PostgresWorld, user: str = "ada") -> None:
        self.world, self.user = world, user
        self.known: dict[str, Any] = {"user": user, "none": UUID(int=0)}

    async def talk(self) -> None:
        past = await self.world.begin(user_id=self.user)
        await self.world.append(item(past, "The gannet is our blue boat."))
        await self.world.store.end_session(end(past))
        await self.world.finalize(past.session_id)
        self.now = await self.world.begin(user_id=self.user)
        said = [item(self.now, f"boat {number}", position=number) for number in range(4)]
        await self.world.append(*said)
        self.known |= {"conversation": self.now.conversation_id, "session": self.now.session_id,
                       "messages": [each.message_id for each in said], "item": said[0].item_id}  # fmt: skip
        rows = await self.world.sql("SELECT passage_id FROM recall_passages WHERE user_id = $1", self.user)
        self.known["passages"] = [row["passage_id"] for row in rows]
        [row] = await self.world.sql(PART_OF, self.user)
        self.part = row["part"].removeprefix("messages_")

    def arguments(self, name: str) -> list[Any]:
        return [self.known.get(each, each) if isinstance(each, str) else each for each in HOT[name]]


@pytest.fixture
async def store(partitioned_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(partitioned_url) as store:
        await empty(store)
        yield store


@pytest.fixture
async def ada(store: PostgresStore) -> Ada:
    world = await registered(store)
    for user in (f"user-{number}" for number in range(8)):
        await Ada(world, user).talk()
    ada = Ada(world)
    await ada.talk()
    return ada


async def touched(ada: Ada, plan: str, *statements: tuple[Any, ...]) -> set[str]:
    """The partitions that statements read or write."""

    async def run() -> set[str]:
        async with ada.world.store._connections.one() as connection:
            await connection.execute("ANALYZE messages, recall_passages, recall_lexemes, conversation_sessions")
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(f"SET LOCAL plan_cache_mode = {plan}")
                before = dict(map(tuple, await connection.fetch(TOUCHED)))  # what was before may still be in it
                for text, *arguments in statements:
                    await connection.fetch(text, *arguments)
                return {name for name, count in await connection.fetch(TOUCHED) if count > before.get(name, 0)}
            finally:
                await transaction.rollback()

    return await bounded_call(ada.world.store._loop, CALL_SECONDS, run)


def elsewhere(ada: Ada, parts: set[str]) -> set[str]:
    return {part for part in parts if not part.endswith(f"_{ada.part}")}


@pytest.mark.parametrize("plan", PLANS)
async def test_what_is_read_of_a_user_is_read_in_one_partition(ada: Ada, plan: str) -> None:
    found = {}
    for name in HOT:
        parts = await touched(ada, plan, (QUERIES[name], *ada.arguments(name)))
        assert parts, f"{name} reads nothing"
        found[name] = elsewhere(ada, parts)
    assert {name: parts for name, parts in found.items() if parts} == {}


@pytest.mark.parametrize("plan", PLANS)
async def test_what_a_user_says_ends_and_has_remembered_is_written_in_one_partition(ada: Ada, plan: str) -> None:
    commit = "SELECT commit_batch(now(), '1h', $1)"
    ids = {name: str(getattr(ada.now, name)) for name in ("session_id", "conversation_id", "instance_id")}
    said = {"position": 9, "role": "user", "content": "hi", "status": "completed", "kind": "message"}
    recall = {**ids, "user_id": ada.user, "memories_max": 2, "recent_seconds": 10}
    passage = {"items": ["new"], "lengths": [300], "flags": [1], "stemmers": ["english_stem"],
               "words": [{"text": "hi", "key": "~hi", "stemmer": "english_stem", "mentions": [1]}]}  # fmt: skip
    kept = {"kind": "note", "content": "hi", "item_id": "new", "quote": "hi", "slot": "", "words": ["hi"], "op": "add",
            "closes": []}  # fmt: skip
    finished = [{"session_id": ids["session_id"], "passages": [passage], "memories": [kept]}]
    parts = await touched(
        ada,
        plan,
        (commit, batch(starts=[start_row(ada.world)], recalls=[recall])),
        (commit, batch(items=[{**ids, **said, "message_id": str(uuid4()), "item_id": "new"}])),
        (commit, batch(deletions=[{**ids, "item_id": ada.known["item"]}])),
        (commit, batch(ends=[{**ids, "age_seconds": 0, "end_reason": "client_closed"}])),
        (QUERIES["claim_memory"], 1, 60.0, [ada.now.session_id], 330.0, 65_536),
        (QUERIES["finish_memory"], json.dumps(finished), None),
        ("SELECT delete_conversation($1, $2)", ada.now.conversation_id, ada.user),
        ("SELECT erase_user($1)", ada.user),
    )
    assert {f"{name}_{ada.part}" for name in PARTITIONED} <= parts
    assert elsewhere(ada, parts) == set()


async def test_rows_of_many_users_in_one_batch_go_where_they_belong(ada: Ada) -> None:
    starts = [await ada.world.begin(user_id=f"user-{number}") for number in range(8)]
    await ada.world.append(*[item(each, "together") for each in starts])
    rows = await ada.world.sql(
        "SELECT count(*) AS rows, count(DISTINCT m.tableoid) AS parts, bool_and(m.user_id = s.user_id) AS right"
        "  FROM messages m JOIN conversation_sessions s USING (session_id) WHERE content = 'together'"
    )
    assert (rows[0]["rows"], rows[0]["right"]) == (8, True)
    assert rows[0]["parts"] > 1


async def test_a_statement_that_leaves_its_users_partition_is_noticed(ada: Ada) -> None:
    planted = "SELECT * FROM messages WHERE conversation_id = $1"
    for plan in PLANS:
        assert elsewhere(ada, await touched(ada, plan, (planted, ada.now.conversation_id)))
    assert list(nameless(planted)) == ["messages"]
    assert list(nameless("SELECT 1 FROM messages m JOIN recall_passages p ON p.user_id = m.user_id")) == []
    assert list(nameless("SELECT (SELECT 1 FROM messages WHERE session_id = s) WHERE user_id = $1")) == ["messages"]


# --- what is written in SQL


def nameless(text: str) -> Iterator[str]:
    """The partitioned tables that a text uses without naming a user before the statement or subquery is over."""
    plain = re.sub(r"--[^\n]*", "", text)
    for used in re.finditer(rf"\b(?:FROM|JOIN|UPDATE|INTO|USING|LOCK TABLE)\s+({'|'.join(PARTITIONED)})\b", plain):
        if "user_id" not in _rest(plain[used.end() :]):
            yield used[1]


def _rest(text: str) -> str:
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0 or (character == ";" and depth == 0):
            return text[:place]
    return text


def test_whatever_uses_a_partitioned_table_names_the_user() -> None:
    assert len(FUNCTIONS) > 30
    found = {name: list(nameless(text)) for name, text in {**QUERIES, **FUNCTIONS}.items() if name not in OF_ALL_USERS}
    assert {name: tables for name, tables in found.items() if tables} == {}


# --- the tables


KEYS = """
SELECT c.relname::text AS name, (SELECT attname::text FROM pg_index i JOIN pg_attribute a
       ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND indisprimary) AS first
  FROM pg_class c JOIN pg_attribute u ON u.attrelid = c.oid AND u.attname = 'user_id'
 WHERE c.relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace ORDER BY 1
"""
# Found by their own ids, by people, by leases, and by whoever closes them; or before the user is known.
FOUND_BY_ID = {"conversations", "conversation_sessions", "client_secrets", "webhook_deliveries"}


async def test_keys_of_what_is_stored_of_a_user_begin_with_the_user(store: PostgresStore) -> None:
    firsts = {row["name"]: row["first"] for row in await store.select(KEYS)}
    assert set(firsts) >= {*PARTITIONED, *FOUND_BY_ID, "agent_responses", "user_memories", "forgotten_turns"}
    assert {name for name, first in firsts.items() if first != "user_id"} == FOUND_BY_ID


async def test_partitions_are_chosen_once_and_before_there_are_tables(database_url: str) -> None:
    with new_database(database_url) as url:
        await migrate_schema(url, check=False, partitions=2)
        await migrate_schema(url, check=False, partitions=2)
        psql(url, "UPDATE lastcall_schema SET digest = NULL")
        assert (await migrate_schema(url, check=False)).changed
        for name in PARTITIONED:
            assert psql(url, f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{name}'::regclass") == "2"
        with pytest.raises(BaseExceptionGroup) as refused:
            await migrate_schema(url, check=False, partitions=0)
        assert "have 2 partitions, and keep them" in str(unwrapped(refused.value, DatabaseUnusable))


# --- what docs/scaling.md says of Citus

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"
UNIQUE_ELSEWHERE = """
SELECT indexrelid::regclass::text AS name FROM pg_index i
 WHERE indrelid = ANY ($1::text[]::regclass[]) AND indisunique AND NOT EXISTS (
       SELECT FROM pg_attribute WHERE attrelid = indrelid AND attname = 'user_id' AND attnum = ANY (indkey::smallint[]))
"""
REFERENCES_ELSEWHERE = """
SELECT conrelid::regclass || '.' || conname AS name FROM pg_constraint
 WHERE contype = 'f' AND conrelid = ANY ($1::text[]::regclass[]) AND confrelid <> ALL ($1::text[]::regclass[])
   AND conparentid = 0
"""
TRIGGERS = """
SELECT DISTINCT tgrelid::regclass || '.' || tgname AS name FROM pg_trigger
 WHERE tgrelid = ANY ($1::text[]::regclass[]) AND NOT tgisinternal
"""


async def names(store: PostgresStore, text: str, tables: set[str]) -> set[str]:
    return {row["name"] for row in await store.select(text, sorted(tables))}


async def test_the_page_on_citus_names_all_that_its_rules_ask_for(store: PostgresStore) -> None:
    said = PAGE.read_text()
    keyed = {row["name"] for row in await store.select(KEYS) if row["first"] == "user_id"}
    distributed = set(re.findall(r"create_distributed_table\('(\w+)', 'user_id'", said))
    assert distributed == keyed - {"recall_meanings"}
    assert await names(store, UNIQUE_ELSEWHERE, distributed) == set()
    dropped = re.findall(r"ALTER TABLE (\w+) DROP CONSTRAINT (\w+)", said)
    assert await names(store, REFERENCES_ELSEWHERE, distributed) == {f"{table}.{name}" for table, name in dropped}
    triggers = await names(store, TRIGGERS, distributed)
    assert {name for name in triggers if f"`{name}`" not in said} == set()
