"""What the agent is told in a resumed conversation: what it would be told in one that was never interrupted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from lastcall.agents.agent import Turn
from lastcall.store.postgres import PostgresStore

from ..support.clients import Client, answer_text, connect
from ..support.scripted_agents import ScriptedAgent
from ..support.servers import open_server

HISTORY_ITEMS = 4


class Listening(ScriptedAgent):
    """Says which items it was shown."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield " ".join(message.text for message in turn.messages)


async def create(client: Client, text: str, role: str = "user", previous: str | None = None) -> None:
    """Creates an item whose id is its text."""
    item = {"type": "message", "id": text, "role": role, "content": [{"type": "input_text", "text": text}]}
    await client.send({"type": "conversation.item.create", "item": item, "previous_item_id": previous})
    await client.until("conversation.item.done")


async def delete(client: Client, item_id: str) -> None:
    await client.send({"type": "conversation.item.delete", "item_id": item_id})
    await client.until("conversation.item.deleted")


async def told(client: Client) -> list[str]:
    """What the agent is told now. The answer stays out of the conversation."""
    await client.send({"type": "response.create", "response": {"conversation": "none"}})
    return answer_text(await client.until("response.done")).split()


async def talk(client: Client, lines: str) -> None:
    """A line for each character: a rule (role system) for a capital letter, a user's message for another one."""
    for line in lines:
        await create(client, line, "system" if line.isupper() else "user")


@pytest.mark.parametrize(
    ("lines", "deleted", "expected"),
    [
        ("Rabcdef", "", "Rcdef"),
        ("RabSTcdef", "", "RSTcdef"),
        ("aRbcdSefgh", "", "RSefgh"),
        ("RabSTcdef", "S", "RTcdef"),
        ("RSTabcdef", "RST", "cdef"),
        ("abcRdSe", "", "RdSe"),
        ("Rab", "", "Rab"),
        ("VWXRSTUabcd", "", "RSTUabcd"),
    ],
)
async def test_a_resumed_conversation_has_its_system_items_however_old_they_are(
    lines: str, deleted: str, expected: str, postgres_store: PostgresStore
) -> None:
    """The newest rules, at most as many as other items. A test's rule is a capital letter."""
    async with open_server(postgres_store, Listening(), history_items_max=HISTORY_ITEMS) as server:
        async with connect(server.url, user="ada") as client:
            await talk(client, lines)
            for line in deleted:
                await delete(client, line)
            conversation = client.conversation_id
            rules = [line for line in await told(client) if line.isupper()]
        async with connect(server.url, user="ada", conversation=conversation, replay="0") as again:
            assert await told(again) == list(expected)
            assert [line for line in expected if line.isupper()] == rules[-HISTORY_ITEMS:]


async def test_rules_that_were_left_out_are_counted(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening(), history_items_max=2) as server:
        async with connect(server.url, user="ada") as client:
            await talk(client, "RSTab")
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation) as again, httpx2.AsyncClient() as http:
            assert await told(again) == list("STab")
            metrics = (await http.get(f"{server.url}/metrics")).text
            assert 'lastcall_limits_refused_total{limit="context"} 1.0' in metrics


@pytest.mark.parametrize("chars", range(1, 9))
async def test_a_context_is_shortened_as_if_the_conversation_had_not_been_interrupted(
    chars: int, postgres_store: PostgresStore
) -> None:
    changes: dict[str, Any] = {"history_items_max": HISTORY_ITEMS, "context_chars_max": chars}
    async with open_server(postgres_store, Listening(), **changes) as server:
        async with connect(server.url, user="ada") as client:
            await talk(client, "RaSbcTdefg")
            conversation, before = client.conversation_id, await told(client)
        async with connect(server.url, user="ada", conversation=conversation) as again:
            assert await told(again) == [line for line in before if line in "RSTdefg"]
            assert len(before) == chars


async def test_what_is_put_behind_an_old_rule_stays_there(postgres_store: PostgresStore) -> None:
    """Though the items that really follow it are not loaded."""
    async with open_server(postgres_store, Listening(), history_items_max=2) as server:
        async with connect(server.url, user="ada") as client:
            await talk(client, "Rabcd")
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation) as again:
            await create(again, "S", "system", "R")
            await create(again, "T", "system", "S")
            await create(again, "Q", "system", "root")
            await create(again, "P", "system", "Q")
            assert await told(again) == list("QPRSTcd")
            await delete(again, "S")
            await create(again, "S", "system", "R")
        rows = await postgres_store.select("SELECT item_id FROM messages WHERE deleted_at IS NULL ORDER BY position")
        assert [row["item_id"] for row in rows] == list("QPRSTabcd")


async def test_an_old_rule_is_edited_and_deleted_like_a_new_one(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening(), history_items_max=2) as server:
        async with connect(server.url, user="ada") as client:
            await talk(client, "RSabcd")
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation) as again:
            await delete(again, "R")
            await create(again, "R", "system", "S")
            await delete(again, "S")
            assert await told(again) == list("Rcd")
        async with connect(server.url, user="ada", conversation=conversation) as again:
            assert [event["item"]["id"] for event in await again.replayed()] == ["d"]
            assert await told(again) == list("Rcd")
