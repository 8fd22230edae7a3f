"""A conversation that is resumed: how much of it is replayed, older items over HTTP, two sessions at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
import trio
from lastcall.agents.agent import Turn
from lastcall.store.postgres import PostgresStore

from ..support.clients import Client, Event, answer_text, connect, texts, user_item
from ..support.scripted_agents import ScriptedAgent
from ..support.servers import TestServer, open_server


class Listening(ScriptedAgent):
    """Says which items it was shown."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield " ".join(message.text for message in turn.messages)


async def stored(store: PostgresStore) -> list[tuple[str, str, str]]:
    rows = await store.select("SELECT role, content, status FROM messages ORDER BY position, message_id")
    return [(row["role"], row["content"], row["status"]) for row in rows]


# --- how much is replayed


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["one", "two", "three"]),
        ({"replay": "0"}, []),
        ({"replay": "2"}, ["two", "three"]),
        ({"replay": "9"}, ["one", "two", "three"]),
    ],
)
async def test_replay_limits_what_the_client_gets_and_not_what_the_agent_sees(
    query: dict[str, str], expected: list[str], postgres_store: PostgresStore
) -> None:
    async with open_server(postgres_store, Listening()) as server:
        async with connect(server.url, user="ada") as client:
            ids = [(await client.say(text))["item"]["id"] for text in ("one", "two", "three")]
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation, **query) as again:
            seen = await again.replayed()
            assert texts(seen) == expected
            before = [None, *ids][3 - len(expected)]
            assert [event["previous_item_id"] for event in seen[:1]] == [before][: len(expected)]
            fourth = await again.say("four")
            assert fourth["previous_item_id"] == ids[-1]
            await again.send({"type": "response.create"})
            assert answer_text(await again.until("response.done")) == "one two three four"


async def test_the_first_item_of_the_largest_replay_names_the_one_before_it(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening(), history_items_max=3) as server:
        async with connect(server.url, user="ada") as client:
            ids = [(await client.say(text))["item"]["id"] for text in ("one", "two", "three", "four")]
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation) as again:
            seen = await again.replayed()
            assert texts(seen) == ["three", "four"]
            assert seen[0]["previous_item_id"] == ids[1]
            await again.send({"type": "response.create"})
            assert answer_text(await again.until("response.done")) == "two three four"


async def test_a_replay_that_is_no_number_is_refused_with_a_json_error(server: TestServer) -> None:
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with httpx2.AsyncClient() as http:
        answer = await http.get(f"{server.url}/v1/realtime?replay=many", headers=upgrade)
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("invalid_value", "replay")


# --- older items over HTTP


async def test_items_that_were_not_replayed_are_paged_over_http(server: TestServer) -> None:
    """Paging continues where the replay began."""
    async with connect(server.url, user="ada") as client:
        for number in range(7):
            await client.say(str(number))
        conversation = client.conversation_id
    async with (
        connect(server.url, user="ada", conversation=conversation, replay="2") as again,
        httpx2.AsyncClient() as http,
    ):
        (first, second) = await again.replayed()
        older: list[Event] = []
        after, more = first["item"]["id"], True
        while more:
            query = {"user": "ada", "limit": "2", "after": after}
            page = (await http.get(f"{server.url}/v1/conversations/{conversation}/items", params=query)).json()
            older += page["data"]
            after, more = page["last_id"], page["has_more"]
        assert older[0]["id"] == first["previous_item_id"]
        assert [item["content"][0]["text"] for item in older] == ["4", "3", "2", "1", "0"]
        everything = (
            await http.get(f"{server.url}/v1/conversations/{conversation}/items?user=ada&order=asc&limit=100")
        ).json()
        assert everything["data"] == [*older[::-1], first["item"], second["item"]]


# --- two places at once


async def test_two_sessions_in_one_conversation_lose_nothing(
    server: TestServer,
) -> None:
    """Their items are replayed in the order of the clock."""
    async with connect(server.url, user="ada") as client:
        await client.say("before")
        conversation = client.conversation_id
    query = {"user": "ada", "conversation": conversation, "replay": "0"}
    async with connect(server.url, **query) as one, connect(server.url, **query) as two:
        said = [f"{number} {turn}" for turn, number in enumerate((1, 1, 1, 2, 2, 1))]
        for text in said:
            await (one if text.startswith("1") else two).say(text)
    async with connect(server.url, user="ada", conversation=conversation) as again:
        seen = await again.replayed()
        assert texts(seen) == ["before", *said]
        ids = [event["item"]["id"] for event in seen]
        assert [event["previous_item_id"] for event in seen] == [None, *ids[:-1]]


async def test_of_one_item_id_sent_by_two_sessions_at_once_one_is_stored(
    server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url, user="ada") as one:
        await one.say("before")
        async with connect(server.url, user="ada", conversation=one.conversation_id, replay="0") as two:
            outcomes: list[Any] = []

            async def send(client: Client) -> None:
                await client.send(user_item("the same", "item_same"))
                while (event := await client.receive())["type"] not in ("error", "conversation.item.done"):
                    pass
                outcomes.append(event["error"]["code"] if event["type"] == "error" else "done")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, one)
                nursery.start_soon(send, two)
            assert sorted(outcomes) == ["done", "item_create_duplicate_item_id"]
            for client in (one, two):
                assert (await client.ask("Still there?"))["response"]["status"] == "completed"
    assert [content for _, content, _ in await stored(postgres_store)].count("the same") == 1
