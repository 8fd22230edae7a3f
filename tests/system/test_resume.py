"""A conversation that goes on: replayed in part, on another server, in two places at once."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx2
import pytest
import trio
from lastcall.agents.agent import Turn
from lastcall.store.postgres import PostgresStore

from ..support.clients import Client, Event, connect
from ..support.processes import run_server
from ..support.scripted_agents import ScriptedAgent
from ..support.servers import TestServer, open_server
from ..support.waiting import eventually


class Listening(ScriptedAgent):
    """Says which items it was shown."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield " ".join(message.text for message in turn.messages)


def answer_text(done: Event) -> str:
    return str(done["response"]["output"][0]["content"][0]["text"])


def user_item(text: str, item_id: str) -> Event:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "id": item_id, "role": "user", "content": content}
    return {"type": "conversation.item.create", "event_id": f"create_{item_id}", "item": item}


async def replayed(client: Client) -> list[Event]:
    """Makes the client's first event, and returns what came as `conversation.item.done` before its answer."""
    await client.send({"type": "session.update", "session": {"type": "realtime"}})
    await client.until("session.updated")
    return [event for event in client.events if event["type"] == "conversation.item.done"]


def texts(events: Sequence[Event]) -> list[str]:
    return [event["item"]["content"][0]["text"] for event in events]


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
async def test_as_many_items_are_replayed_as_were_asked_for_and_the_agent_sees_all(
    query: dict[str, str], expected: list[str], postgres_store: PostgresStore
) -> None:
    async with open_server(postgres_store, Listening()) as server:
        async with connect(server.url, user="ada") as client:
            ids = [(await client.say(text))["item"]["id"] for text in ("one", "two", "three")]
            conversation = client.conversation_id
        async with connect(server.url, user="ada", conversation=conversation, **query) as again:
            seen = await replayed(again)
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
            seen = await replayed(again)
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


async def test_what_was_not_replayed_is_paged_from_where_the_replay_began(server: TestServer) -> None:
    async with connect(server.url, user="ada") as client:
        for number in range(7):
            await client.say(str(number))
        conversation = client.conversation_id
    async with (
        connect(server.url, user="ada", conversation=conversation, replay="2") as again,
        httpx2.AsyncClient() as http,
    ):
        (first, second) = await replayed(again)
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


# --- another server


async def test_an_answer_cut_off_by_a_restart_is_replayed_as_incomplete_elsewhere_and_asked_for_again(
    database_url: str, postgres_store: PostgresStore
) -> None:
    slow = ("--database-url", database_url, "--agent", "tests.support.scripted_agents:Slow", "--drain-seconds", "2")
    with run_server(*slow) as going, run_server("--database-url", database_url, "--agent", "echo") as staying:
        async with connect(going.url, user="ada") as client:
            await client.say("Hello", "item_hello")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            going.process.send_signal(signal.SIGTERM)
            assert await client.closed() == 1012
            heard = "".join(event["delta"] for event in client.events if event["type"] == "response.output_text.delta")
            (unfinished,) = [e["item"]["id"] for e in client.events if e["type"] == "response.output_item.added"]
            conversation = client.conversation_id
        async with connect(staying.url, user="ada", conversation=conversation) as again:
            hello, answer = await replayed(again)
            assert (hello["item"]["id"], hello["item"]["status"]) == ("item_hello", "completed")
            assert (answer["item"]["id"], answer["item"]["status"]) == (unfinished, "incomplete")
            assert texts([answer])[0].startswith(heard)
            await again.send({"type": "response.create"})
            done = await again.until("response.done")
            assert done["response"]["status"] == "completed"
            assert done["response"]["output"][0]["id"] != unfinished
    assert [(role, status) for role, _, status in await stored(postgres_store)] == [
        ("user", "completed"),
        ("assistant", "incomplete"),
        ("assistant", "completed"),
    ]


async def test_an_item_that_was_stored_and_not_acknowledged_may_be_sent_again(
    database_url: str, postgres_store: PostgresStore
) -> None:
    serve = ("--database-url", database_url, "--agent", "echo")
    with run_server(*serve) as going, run_server(*serve) as staying:
        async with connect(going.url, user="ada") as client:
            conversation = client.conversation_id
            client.deafen()
            await client.send(user_item("Hello", "item_hello"))
            await eventually(lambda: stored(postgres_store), len)
            going.process.kill()
        async with connect(staying.url, user="ada", conversation=conversation) as again:
            await again.send(user_item("Hello", "item_hello"))
            detail = (await again.until("error"))["error"]
            assert (detail["code"], detail["event_id"]) == ("item_already_exists", "create_item_hello")
            await again.send({"type": "response.create"})
            assert "Hello" in answer_text(await again.until("response.done"))
    assert [role for role, _, _ in await stored(postgres_store)] == ["user", "assistant"]


# --- two places at once


async def test_two_sessions_in_one_conversation_lose_nothing_and_are_replayed_in_the_order_of_the_clock(
    server: TestServer,
) -> None:
    async with connect(server.url, user="ada") as client:
        await client.say("before")
        conversation = client.conversation_id
    query = {"user": "ada", "conversation": conversation, "replay": "0"}
    async with connect(server.url, **query) as one, connect(server.url, **query) as two:
        said = [f"{number} {turn}" for turn, number in enumerate((1, 1, 1, 2, 2, 1))]
        for text in said:
            await (one if text.startswith("1") else two).say(text)
    async with connect(server.url, user="ada", conversation=conversation) as again:
        seen = await replayed(again)
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
            assert sorted(outcomes) == ["done", "item_already_exists"]
            for client in (one, two):
                assert (await client.ask("Still there?"))["response"]["status"] == "completed"
    assert [content for _, content, _ in await stored(postgres_store)].count("the same") == 1


async def test_two_sessions_answer_at_once_each_from_what_it_knows(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Listening()) as server, connect(server.url, user="ada") as one:
        await one.say("before")
        async with connect(server.url, user="ada", conversation=one.conversation_id, replay="0") as two:
            await one.say("one")
            await two.say("two")
            for client, heard in ((one, "before one"), (two, "before two")):
                await client.send({"type": "response.create"})
                assert answer_text(await client.until("response.done")) == heard
    assert len(await stored(postgres_store)) == 5
