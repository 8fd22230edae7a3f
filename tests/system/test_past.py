"""A server that is killed while it indexes what was said: the next one does it, exactly once."""

from __future__ import annotations

import signal

import pytest
from lastcall.memory.attempts import CLAIM_SECONDS
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.processes import run_server
from ..support.waiting import eventually

pytestmark = pytest.mark.slow

SESSIONS = 8
WAIT_SECONDS = 3 * CLAIM_SECONDS  # the claims of the server that was killed run out
# How many indexes each session has, and how often one turn's word is in them.
INDEXES = (
    "SELECT memory_status, (SELECT count(*) FROM recall_passages p WHERE p.session_id = s.session_id),"
    " (SELECT count(*) FROM recall_passages p, jsonb_to_recordset(together) word (text text)"
    "   WHERE p.session_id = s.session_id AND text = 'boat')"
    " FROM conversation_sessions s"
)
ORPHANS = "SELECT FROM recall_lexemes LEFT JOIN recall_passages USING (user_id, passage_id) WHERE session_id IS NULL"


async def test_each_session_is_indexed_once_although_its_server_is_killed(
    postgres_store: PostgresStore, database_url: str
) -> None:
    arguments = ("--database-url", database_url, "--agent", "echo")
    with run_server(*arguments) as server:
        for number in range(SESSIONS):
            async with connect(server.url, user=f"user-{number}") as client:
                await client.say("My boat is blue.")
        server.stop(signal.SIGKILL)  # while some of them are being finalized
    with run_server(*arguments):
        done = [("done", 1, 1)] * SESSIONS
        await eventually(
            lambda: postgres_store.select(INDEXES),
            lambda rows: [tuple(row) for row in rows] == done,
            within=WAIT_SECONDS,
        )
        assert await postgres_store.select(ORPHANS) == []
