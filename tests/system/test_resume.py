"""A conversation that is resumed on another server, after the one that held it was stopped or killed."""

from __future__ import annotations

import signal

from lastcall.store.postgres import PostgresStore

from ..support.clients import answer_text, connect, texts, user_item
from ..support.processes import run_server
from ..support.waiting import eventually


async def stored(store: PostgresStore) -> list[tuple[str, str, str]]:
    rows = await store.select("SELECT role, content, status FROM messages ORDER BY position, message_id")
    return [(row["role"], row["content"], row["status"]) for row in rows]


async def test_an_answer_cut_off_by_a_restart_is_replayed_as_incomplete(
    database_url: str, postgres_store: PostgresStore
) -> None:
    """Another server replays it, and the client asks for a new answer."""
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
            hello, answer = await again.replayed()
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


async def test_an_unacknowledged_item_may_be_sent_again(database_url: str, postgres_store: PostgresStore) -> None:
    """It was stored once, so the repetition gets item_create_duplicate_item_id."""
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
            assert (detail["code"], detail["event_id"]) == ("item_create_duplicate_item_id", "create_item_hello")
            await again.send({"type": "response.create"})
            assert "Hello" in answer_text(await again.until("response.done"))
    assert [role for role, _, _ in await stored(postgres_store)] == ["user", "assistant"]
