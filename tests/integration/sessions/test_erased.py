"""Rows that are deleted: their sockets close within a second, and nothing of theirs is written again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from lastcall.agents.agent import Memory, Transcript
from lastcall.store.postgres import PostgresStore

from tests.support.clients import Client, connect
from tests.support.scripted_agents import ScriptedAgent, Slow
from tests.support.servers import TestServer, open_server
from tests.support.waiting import eventually

BOTH_FORMS = True

SOCKET_GONE_SECONDS_MAX = 1.0
WAIT_SECONDS = 10.0
COUNTS = """
    SELECT (SELECT count(*) FROM conversation_sessions WHERE user_id = 'ada')
         + (SELECT count(*) FROM conversations WHERE user_id = 'ada')
         + (SELECT count(*) FROM user_memories WHERE user_id = 'ada')
         + (SELECT count(*) FROM messages WHERE user_id = 'ada') AS rows
"""
MESSAGES = (
    "DELETE FROM messages USING conversations c"
    " WHERE messages.conversation_id = c.conversation_id AND c.user_id = 'ada'"
)
MEMORIES = "DELETE FROM user_memories WHERE user_id = 'ada'"
SESSIONS = "DELETE FROM conversation_sessions WHERE user_id = 'ada'"
CONVERSATIONS = "DELETE FROM conversations WHERE user_id = 'ada'"
ORDERS = {
    "memories first": (MEMORIES, MESSAGES, SESSIONS, CONVERSATIONS),
    "memories last": (MESSAGES, SESSIONS, CONVERSATIONS, MEMORIES),
}


async def run(store: PostgresStore, *statements: str) -> None:
    """Runs statements in one transaction."""
    await store.select(f"DO $$ BEGIN {'; '.join(statements)}; END $$")


async def closed_in_time(client: Client) -> int:
    with trio.fail_after(SOCKET_GONE_SECONDS_MAX):
        return await client.closed()


async def rows_left(store: PostgresStore) -> int:
    return int((await store.select(COUNTS))[0]["rows"])


@pytest.mark.parametrize("order", ORDERS)
async def test_an_erased_user_is_disconnected_and_stays_erased(
    order: str, server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url, user="eve") as other, connect(server.url, user="ada") as client:
        await client.ask("My name is Ada.")
        await run(postgres_store, *ORDERS[order])
        assert await closed_in_time(client) == 4001
        await other.ask("Still here?")
    await server.stop()
    assert await rows_left(postgres_store) == 0


@pytest.mark.parametrize(
    "delete",
    [
        "DELETE FROM conversation_sessions",
        "TRUNCATE conversation_sessions CASCADE",
        "TRUNCATE conversations CASCADE",
    ],
)
async def test_a_deleted_row_ends_the_session_of_a_silent_client(
    delete: str, server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url, user="ada") as client:
        await postgres_store.select(delete)
        assert await closed_in_time(client) == 4001


async def test_a_row_deleted_by_somebodys_cascade_ends_its_session(
    server: TestServer, postgres_store: PostgresStore
) -> None:
    constraint = "ALTER TABLE conversation_sessions {} CONSTRAINT users"
    await postgres_store.select("CREATE TABLE users (user_id text PRIMARY KEY)")
    try:
        await postgres_store.select("INSERT INTO users VALUES ('ada')")
        await postgres_store.select(
            constraint.format("ADD") + " FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE"
        )
        async with connect(server.url, user="ada") as client:
            await postgres_store.select("DELETE FROM users")
            assert await closed_in_time(client) == 4001
    finally:
        await postgres_store.select("DROP TABLE users CASCADE")


async def test_deleting_ended_sessions_disturbs_nobody(server: TestServer, postgres_store: PostgresStore) -> None:
    async with connect(server.url, user="ada"):
        pass
    async with connect(server.url, user="ada") as client:
        ended = "SELECT session_id FROM conversation_sessions WHERE NOT is_active"
        await eventually(lambda: postgres_store.select(ended), bool)
        await postgres_store.select("DELETE FROM conversation_sessions WHERE NOT is_active")
        await client.ask("Still here?")


async def test_an_answer_that_is_streaming_leaves_no_trace_of_an_erased_user(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Slow()) as server, connect(server.url, user="ada") as client:
        await client.say("My name is Ada.")
        await client.send({"type": "response.create"})
        await client.until("response.output_text.delta")
        await run(postgres_store, *ORDERS["memories first"])
        assert await closed_in_time(client) == 4001
        await server.stop()
    assert await rows_left(postgres_store) == 0


async def test_memory_that_is_being_made_is_not_stored_for_an_erased_user(postgres_store: PostgresStore) -> None:
    agent = Remembering()
    async with open_server(postgres_store, agent) as server:
        async with connect(server.url, user="ada") as client:
            await client.say("My name is Ada.")
        with trio.fail_after(WAIT_SECONDS):
            await agent.asked.wait()
        await run(postgres_store, *ORDERS["memories first"])
        agent.go_on.set()
        await server.stop()
    assert await rows_left(postgres_store) == 0


class Remembering(ScriptedAgent):
    """Remembers one thing, when it is told to."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.go_on = trio.Event()

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        self.asked.set()
        await self.go_on.wait()
        return [Memory("name", "Ada", transcript.messages[0].item_id, "My name is Ada.")]
