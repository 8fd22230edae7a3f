"""What a dump of the database, and so every table, has of what was told, deleted, erased, or never to be kept."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from lastcall.embedded.programs import programs
from lastcall.store.people.reports import erase_user
from lastcall.store.postgres import PostgresStore
from lastcall.store.webhooks.endpoints import list_deliveries
from lastcall.webhooks.adding import add_webhook

from tests.support import spoken_facts, spoken_secrets
from tests.support.clients import connect
from tests.support.meanings import encode_subjects, open_meaning_store
from tests.support.operators import OPERATOR
from tests.support.servers import open_server
from tests.support.waiting import eventually

GONE_SECONDS_MAX = 1.0
USER = "qvortrup"  # as are the words below, in no other word that a dump has
TOLD = ("I live in Zwolleby.", "My boat is called Krakelund.", "I am allergic to vexnuts.")
WORDS = ("zwolleby", "krakelund", "vexnut")
TABLE = re.compile(r"^COPY \w+\.(\w+) .*?^\\\.$", re.MULTILINE | re.DOTALL)
CLOSED = "SELECT FROM conversation_sessions WHERE memory_status <> 'done'"


@pytest.fixture
async def store(meaning_url: str) -> AsyncIterator[PostgresStore]:
    async with open_meaning_store(meaning_url) as store:
        yield store


async def dump(url: str) -> dict[str, str]:
    """The rows of each table, in lower case."""
    pg_dump = [str(programs() / "pg_dump"), "--data-only", "--no-owner", url]
    done = await trio.run_process(pg_dump, capture_stdout=True)
    return {found[1]: found[0].lower() for found in TABLE.finditer(done.stdout.decode())}


async def hits(url: str, *words: str) -> dict[str, list[str]]:
    """The tables whose rows have any of these, with what they have."""
    found = {
        name: [line for line in rows.splitlines()[1:] if any(word in line for word in words)]
        for name, rows in (await dump(url)).items()
    }
    return {name: lines for name, lines in found.items() if lines}


async def talk(store: PostgresStore, url: str, *texts: str, user: str = USER) -> str:
    """A session in which this is said and answered, finalized; its conversation."""
    async with connect(url, user=user) as client:
        for number, text in enumerate(texts):
            await client.say(text, item_id=f"item_{user}_{number}")
            await client.send({"type": "response.create"})
            await client.until("response.done")
        conversation = client.conversation_id
    await eventually(lambda: store.select(CLOSED), lambda rows: not rows)
    return conversation


async def server_with_all(store: PostgresStore, url: str) -> Any:
    """A server that leaves rows wherever it can: meanings, figures of answers, deliveries to webhooks."""
    await add_webhook(store, "http://127.0.0.1:9/", OPERATOR)
    return open_server(store, encode=encode_subjects)


async def test_a_deleted_item_is_gone_from_everything_but_the_transcript_that_marks_it(
    store: PostgresStore, meaning_url: str
) -> None:
    async with await server_with_all(store, meaning_url) as server:
        conversation = await talk(store, server.url, *TOLD)
        everywhere = await hits(meaning_url, WORDS[0])
        assert {"messages", "user_memories", "recall_passages"} <= everywhere.keys()
        turns = len((await dump(meaning_url))["recall_meanings"].splitlines())
        async with connect(server.url, user=USER, conversation=conversation) as client:
            with trio.fail_after(GONE_SECONDS_MAX):
                for item in (f"item_{USER}_0", await answer_to(store, TOLD[0])):
                    await client.send({"type": "conversation.item.delete", "item_id": item})
                    await client.until("conversation.item.deleted")
            left = await hits(meaning_url, WORDS[0])
            assert left.keys() <= {"messages"}
            assert await store.select("SELECT FROM messages WHERE deleted_at IS NULL AND content ~* $1", WORDS[0]) == []
            assert len((await dump(meaning_url))["recall_meanings"].splitlines()) == turns - 2
            assert (await hits(meaning_url, WORDS[1])).keys() >= {"messages", "recall_passages"}


async def answer_to(store: PostgresStore, text: str) -> str:
    """The item of the echo of a text."""
    rows = await store.select("SELECT item_id FROM messages WHERE content = $1", f"You said: {text}")
    return str(rows[0]["item_id"])


async def test_an_erased_user_is_gone_from_everything(store: PostgresStore, meaning_url: str) -> None:
    async with await server_with_all(store, meaning_url) as server:
        await talk(store, server.url, *TOLD)
        await talk(store, server.url, "I no longer live in Zwolleby.", "Forget that I am allergic to vexnuts.")
        await talk(store, server.url, "My boat is blue.", user="eve")
        assert await list_deliveries(store, 10)
        before = await hits(meaning_url, USER)
        assert {
            "conversations",
            "conversation_sessions",
            "agent_responses",
            "recall_passages",
            "recall_meanings",
            "webhook_deliveries",
        } <= before.keys()
        with trio.fail_after(GONE_SECONDS_MAX):
            await erase_user(store, USER, OPERATOR)
        assert await hits(meaning_url, USER, *WORDS) == {}
        assert "eve" in (await dump(meaning_url))["recall_passages"]


async def test_no_secret_is_anywhere_but_in_its_message(store: PostgresStore, meaning_url: str) -> None:
    """A transcript is what was said, word for word; nothing that is made of it has the secret."""
    told = [*spoken_facts.secrets(50), *spoken_secrets.told_secrets(spoken_facts.SEED)]
    secrets = {secret.lower() for _, secret in told if len(secret) > 4}
    secrets |= {secret.lower().replace(" ", "").replace("-", "") for secret in secrets}
    async with await server_with_all(store, meaning_url) as server:
        for start in range(0, len(told), 20):
            await talk(store, server.url, *(text for text, _ in told[start : start + 20]), user=f"user-{start}")
    found = await hits(meaning_url, *secrets)
    assert found.pop("messages")
    assert found == {}
