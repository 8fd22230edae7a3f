"""An item that its client edits: it is deleted, and created again under its id, as several frameworks do."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx2
from lastcall.agents.agent import Turn
from lastcall.store.postgres import PostgresStore, open_store

from ..support.clients import Client, Event, answer_text, connect, user_item
from ..support.scripted_agents import ScriptedAgent
from ..support.servers import open_server
from ..support.waiting import eventually


class Listening(ScriptedAgent):
    """Says which items it was shown."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield " ".join(message.text for message in turn.messages)


def deletion(item_id: str) -> Event:
    return {"type": "conversation.item.delete", "item_id": item_id}


async def answers(client: Client, *events: Event) -> list[str]:
    """Sends events without waiting, then a last one; the types of all answers, or the codes of errors."""
    for event in events:
        await client.send(event)
    await client.send({"type": "session.update", "session": {"type": "realtime"}})
    before = len(client.events)
    await client.until("session.updated")
    beside = ("conversation.created", "conversation.item.added")
    heard = [event for event in client.events[before:-1] if event["type"] not in beside]
    return [event["error"]["code"] if event["type"] == "error" else event["type"] for event in heard]


async def told(client: Client) -> str:
    await client.send({"type": "response.create", "response": {"conversation": "none"}})
    return answer_text(await client.until("response.done"))


async def transcript(store: PostgresStore) -> list[tuple[str, bool]]:
    rows = await store.select("SELECT content, deleted_at IS NOT NULL AS gone FROM messages ORDER BY created_at")
    return [(row["content"], row["gone"]) for row in rows]


async def test_events_that_edit_an_item_need_not_wait_for_each_other(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening()) as server, connect(server.url, user="ada") as client:
        events: list[Event] = []
        for text in ("one", "two", "three"):
            events += [user_item(text, "a"), user_item("taken", "a"), deletion("a")]
        heard = await answers(client, *events[:-1], user_item("behind it", "b") | {"previous_item_id": "a"})
        assert [kind for kind in heard if kind.startswith("conversation")] == [
            *["conversation.item.done", "conversation.item.deleted"] * 2,
            *["conversation.item.done"] * 2,
        ]
        assert len(heard) == 9
        assert await told(client) == "three behind it"
        assert await transcript(postgres_store) == [
            ("one", True),
            ("two", True),
            ("three", False),
            ("behind it", False),
        ]


async def test_an_edited_item_is_resumed_and_paged_as_it_is_now(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening()) as server:
        async with connect(server.url, user="ada") as client:
            conversation = client.conversation_id
            first = [user_item("old", "a"), user_item("last", "b"), deletion("a")]
            await answers(client, *first, user_item("new", "a") | {"previous_item_id": "root"})
        async with connect(server.url, user="ada", conversation=conversation) as again, httpx2.AsyncClient() as http:
            shown = [event["item"]["content"][0]["text"] for event in await again.replayed()]
            assert shown == ["new", "last"]
            assert await told(again) == "new last"
            page = (await http.get(f"{server.url}/v1/conversations/{conversation}/items?user=ada&after=b")).json()
            assert [item["content"][0]["text"] for item in page["data"]] == ["new"]


async def test_an_item_edited_in_one_session_is_edited_in_the_other(postgres_store: PostgresStore) -> None:
    """What either deletes is deleted, and the id is taken once in both."""
    async with open_server(postgres_store, Listening()) as server:
        async with connect(server.url, user="ada") as one:
            conversation = one.conversation_id
            await one.say("old", "a")
            async with connect(server.url, user="ada", conversation=conversation, replay="0") as two:
                assert await told(two) == "old"
                await answers(one, deletion("a"), user_item("new", "a"))
                await two.until("conversation.item.deleted")
                await two.until("conversation.item.done")
                assert (await told(one), await told(two)) == ("new", "new")
                assert await answers(two, user_item("mine", "a")) == ["item_create_duplicate_item_id"]
                assert await answers(two, deletion("a")) == ["conversation.item.deleted"]
                assert await answers(two, user_item("mine", "a")) == ["conversation.item.done"]
                await one.until("conversation.item.done")
                assert (await told(one), await told(two)) == ("mine", "mine")
        async with connect(server.url, user="ada", conversation=conversation, replay="0") as again:
            assert await told(again) == "mine"
    assert await transcript(postgres_store) == [("old", True), ("new", True), ("mine", False)]


async def test_only_the_last_wording_is_remembered(database_url: str, postgres_store: PostgresStore) -> None:
    async with open_store(database_url) as store, open_server(store) as server:
        async with connect(server.url, user="ada") as client:
            await answers(
                client,
                user_item("My name is Grace.", "a"),
                deletion("a"),
                user_item("My name is Ada.", "a"),
            )

        async def remembered() -> list[tuple[str, str]]:
            rows = await store.select("SELECT content, source_item_id FROM user_memories")
            return [(row["content"], row["source_item_id"]) for row in rows]

        ((content, item_id),) = await eventually(remembered, len)
        assert ("Ada" in content, "Grace" in content, item_id) == (True, False, "a")
