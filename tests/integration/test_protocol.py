"""The text turn as official clients expect it, over a real socket and a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import trio
from lastcall.agents.agent import ToolArguments, ToolCall, Turn, Usage
from lastcall.store.postgres import PostgresStore
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from trio_websocket import ConnectionClosed

from ..support.clients import Client, Event, connect, user_item
from ..support.scripted_agents import Crashing, ScriptedAgent, Slow
from ..support.servers import TestServer, open_server
from ..support.waiting import eventually

UNKNOWN = f"conv_{0:032x}"
NOTHING: Any = None  # where an agent that nobody type-checked has no value
STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TURN = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


def kinds(events: list[Event]) -> list[str]:
    """Types in order; several deltas in a row count once."""
    found = [str(event["type"]) for event in events]
    return [kind for index, kind in enumerate(found) if index == 0 or kind != found[index - 1]]


async def items(store: PostgresStore) -> list[tuple[str, str, str]]:
    rows = await store.select("SELECT role, content, status FROM messages ORDER BY position")
    return [(row["role"], row["content"], row["status"]) for row in rows]


async def refused(client: Client, event: Event | str) -> Event:
    """Sends what is refused and returns the error's detail."""
    await client.send(event)
    detail: Event = (await client.until("error"))["error"]
    return detail


async def test_a_text_turn_has_the_canonical_order_of_events(server: TestServer) -> None:
    async with connect(server.url) as client:
        await client.receive()
        client.events.clear()
        await client.ask("Hello there, how are you?")
        assert kinds(client.events) == ["conversation.item.added", "conversation.item.done", *TURN]


async def test_every_frame_of_a_session_passes_the_sdks_strict_validation(server: TestServer) -> None:
    async with connect(server.url) as client:
        await client.send({"type": "session.update", "session": {"type": "realtime", "instructions": "Be terse."}})
        await client.until("session.updated")
        await client.ask("Hello")
        await refused(client, {"type": "response.cancel"})
        for event in client.events:
            STRICT.validate_json(json.dumps(event))
        assert len({event["event_id"] for event in client.events}) == len(client.events)


async def test_an_answer_is_streamed_in_several_deltas(server: TestServer) -> None:
    async with connect(server.url) as client:
        done = await client.ask("What a lovely day it is today")
        deltas = [event["delta"] for event in client.events if event["type"] == "response.output_text.delta"]
        (item,) = done["response"]["output"]
        assert len(deltas) > 1
        assert item["content"] == [{"type": "output_text", "text": "".join(deltas)}]
        assert "What a lovely day it is today" in "".join(deltas)


async def test_items_are_committed_before_they_are_acknowledged(
    server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url) as client:
        await client.say("Hello")
        assert await items(postgres_store) == [("user", "Hello", "completed")]
        await client.send({"type": "response.create"})
        done = await client.until("response.done")
        text = done["response"]["output"][0]["content"][0]["text"]
        assert await items(postgres_store) == [("user", "Hello", "completed"), ("assistant", text, "completed")]


async def test_a_cancelled_response_closes_in_order_and_is_kept_as_incomplete(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Slow()) as server, connect(server.url) as client:
        await client.say("Hello")
        client.events.clear()
        await client.send({"type": "response.create"})
        await client.until("response.output_text.delta")
        await client.send({"type": "response.cancel"})
        done = await client.until("response.done")
        assert kinds(client.events) == TURN
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert done["response"]["output"][0]["status"] == "incomplete"
        assert (await items(postgres_store))[1] == ("assistant", "word0 ", "incomplete")


async def test_an_agent_that_raises_fails_its_response_and_nothing_else(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Crashing()) as server, connect(server.url) as client:
        for _ in range(2):
            done = await client.ask("Hello")
            assert done["response"]["status"] == "failed"
            assert done["response"]["status_details"]["error"]["code"] == "agent_error"
            assert "broken" not in json.dumps(done), "what an agent raises is not for clients"


@pytest.mark.parametrize(
    "piece", [b"bytes", None, 5, ToolCall(NOTHING), ToolArguments(NOTHING), Usage(NOTHING, NOTHING)]
)
async def test_an_agent_that_yields_what_is_no_piece_fails_its_response_and_nothing_else(
    postgres_store: PostgresStore, piece: Any
) -> None:
    class Odd(ScriptedAgent):
        async def reply(self, turn: Turn, /) -> AsyncGenerator[Any, None]:
            yield "Well, "
            yield piece

    async with open_server(postgres_store, Odd()) as server, connect(server.url) as client:
        for _ in range(2):
            done = await client.ask("Hello")
            assert done["response"]["status"] == "failed"
            assert done["response"]["status_details"]["error"]["code"] == "agent_error"
            assert done["response"]["output"][0]["content"][0]["text"] == "Well, ", "the words survive"


async def test_a_second_response_is_rejected_while_one_is_active(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Slow()) as server, connect(server.url) as client:
        await client.say("Hello")
        await client.send({"type": "response.create"})
        detail = await refused(client, {"type": "response.create", "event_id": "second"})
        assert detail["code"] == "conversation_already_has_active_response"
        assert detail["event_id"] == "second"


async def test_an_item_sent_during_an_answer_comes_after_it(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Slow()) as server, connect(server.url) as client:
        await client.say("first")
        await client.send({"type": "response.create"})
        second = await client.say("second")
        answer = next(event for event in client.events if event["type"] == "response.output_item.added")
        assert second["previous_item_id"] == answer["item"]["id"]
        await client.send({"type": "response.cancel"})
        await client.until("response.done")
        assert [role for role, _, _ in await items(postgres_store)] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "foo.bar"}, "invalid_value", "type"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "unsupported_event", "type"),
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
        ({"type": "session.update", "session": {"type": "transcription"}}, "invalid_value", "session.type"),
        ({"type": "response.create", "response": {"conversation": "other"}}, "invalid_value", "response.conversation"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "conversation.item.retrieve", "item_id": "nowhere"}, "item_retrieve_invalid_item_id", "item_id"),
        ({"type": "conversation.item.delete", "item_id": "nowhere"}, "item_delete_invalid_item_id", "item_id"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1},
            "item_truncate_invalid_item_id",
            "item_id",
        ),
        (
            {
                "type": "conversation.item.create",
                "previous_item_id": "nowhere",
                "item": {"type": "message", "role": "user", "content": []},
            },
            "item_create_invalid_previous_item_id",
            "previous_item_id",
        ),
        (
            {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "nowhere"}]}},
            "item_not_found",
            "response.input[0].id",
        ),
        ({"type": "session.update", "session": {"voice": "ash"}}, "unknown_parameter", "session.voice"),
        ({"type": "session.update", "session": {"prompt": {"id": "pmpt_1"}}}, "invalid_value", "session.prompt"),
        ({"type": "response.create", "response": {"modalities": ["text"]}}, "unknown_parameter", "response.modalities"),
        ({"type": "response.create", "response": {"prompt": {"id": "pmpt_1"}}}, "invalid_value", "response.prompt"),
        ({"type": "session.update", "session": {"tool_choice": "sometimes"}}, "invalid_value", "session.tool_choice"),
        ({"type": "response.create", "response": {"metadata": {"k": "v" * 513}}}, "invalid_value", "response.metadata"),
    ],
)
async def test_an_error_names_the_rejected_event_and_the_session_goes_on(
    event: Event, code: str, param: str | None, server: TestServer
) -> None:
    async with connect(server.url) as client:
        detail = await refused(client, {**event, "event_id": "mine"})
        assert (detail["code"], detail["param"], detail["event_id"]) == (code, param, "mine")
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"


async def test_an_empty_audio_buffer_is_cleared(server: TestServer) -> None:
    async with connect(server.url) as client:
        await client.send({"type": "input_audio_buffer.clear", "event_id": "mine"})
        STRICT.validate_json(json.dumps(await client.until("input_audio_buffer.cleared")))
        assert [event["type"] for event in client.events if event["type"] == "error"] == []


async def test_an_item_without_audio_is_not_truncated(server: TestServer) -> None:
    async with connect(server.url) as client:
        item = (await client.ask("Hello"))["response"]["output"][0]
        cut = {"type": "conversation.item.truncate", "item_id": item["id"], "content_index": 0, "audio_end_ms": 0}
        detail = await refused(client, cut)
        assert (detail["code"], detail["param"]) == ("unsupported_content_type", "item_id")
        await client.send({"type": "conversation.item.retrieve", "item_id": item["id"]})
        assert (await client.until("conversation.item.retrieved"))["item"] == item


async def test_an_update_with_an_unknown_field_changes_nothing(server: TestServer) -> None:
    async with connect(server.url) as client:
        before = client.created["session"]
        await refused(client, {"type": "session.update", "session": {"instructions": "Sing.", "temperature": 1}})
        await client.send({"type": "session.update", "session": {"type": "realtime", "parallel_tool_calls": False}})
        session = (await client.until("session.updated"))["session"]
        assert session == {**before, "parallel_tool_calls": False}


async def test_bytes_that_are_no_event_are_rejected_and_the_session_goes_on(server: TestServer) -> None:
    async with connect(server.url) as client:
        for message, code in (("{", "invalid_json"), ("[]", "invalid_value"), ("", "invalid_json")):
            assert (await refused(client, message))["code"] == code
        await client.ws.send_message(b"\x00\x01")
        assert (await client.until("error"))["error"]["code"] == "invalid_value"
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"


@pytest.mark.parametrize("text", ["nul \0 inside", ""])
async def test_only_text_that_postgresql_cannot_store_is_refused(text: str, server: TestServer) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    async with connect(server.url) as client:
        await client.send({"type": "conversation.item.create", "item": item})
        expected = "error" if "\0" in text else "conversation.item.done"
        await client.until(expected)


async def test_a_clients_item_id_is_kept_and_its_repetition_rejected(
    server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url, user="ada") as client:
        assert (await client.say("once", "item_mine"))["item"]["id"] == "item_mine"
        conversation = client.conversation_id
    async with connect(server.url, user="ada", conversation=conversation) as again:
        item = {"type": "message", "id": "item_mine", "role": "user", "content": [{"type": "input_text", "text": "2"}]}
        detail = await refused(again, {"type": "conversation.item.create", "event_id": "e", "item": item})
        assert (detail["code"], detail["event_id"]) == ("item_create_duplicate_item_id", "e")
    assert [content for _, content, _ in await items(postgres_store)] == ["once"]


async def test_session_updates_keep_fields_that_they_do_not_name(server: TestServer) -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    async with connect(server.url) as client:
        await client.send({"type": "session.update", "session": {"type": "realtime", "tools": [tool]}})
        await client.until("session.updated")
        await client.send(
            {"type": "session.update", "session": {"tracing": "auto", "audio": {"output": {"voice": "x"}}}}
        )
        session = (await client.until("session.updated"))["session"]
        assert session["tools"] == [tool]
        assert session["tracing"] == "auto"
        assert session["audio"] == {"input": {"turn_detection": None}}


async def test_metadata_is_echoed(server: TestServer) -> None:
    async with connect(server.url) as client:
        await client.say("Hello")
        await client.send({"type": "response.create", "response": {"metadata": {"turn": "1"}}})
        assert (await client.until("response.created"))["response"]["metadata"] == {"turn": "1"}
        assert (await client.until("response.done"))["response"]["metadata"] == {"turn": "1"}


async def test_a_resumed_conversation_is_replayed_at_the_clients_first_event(server: TestServer) -> None:
    async with connect(server.url, user="ada") as client:
        done = await client.ask("Hello")
        conversation = client.conversation_id
    async with connect(server.url, user="ada", conversation=conversation) as again:
        assert again.conversation_id == conversation
        await again.send({"type": "session.update", "session": {"type": "realtime"}})
        await again.until("session.updated")
        replayed = [event["item"] for event in again.events if event["type"] == "conversation.item.done"]
        assert [item["role"] for item in replayed] == ["user", "assistant"]
        assert replayed[1] == done["response"]["output"][0]
        assert [event["type"] for event in again.events[:2]] == ["session.created", "conversation.created"]
        previous = [event["previous_item_id"] for event in again.events if event["type"] == "conversation.item.done"]
        assert previous == [None, replayed[0]["id"]]


@pytest.mark.parametrize("conversation", [UNKNOWN, "another user's"])
async def test_nobody_resumes_a_conversation_of_another_user(conversation: str, server: TestServer) -> None:
    async with connect(server.url, user="ada") as ada:
        theirs = ada.conversation_id if conversation == "another user's" else conversation
        async with connect(server.url, user="bob", conversation=theirs) as bob:
            assert bob.created["error"]["code"] == "conversation_not_found"
            assert await bob.closed() == 1008
        assert (await ada.ask("Still there?"))["response"]["status"] == "completed"


# An end that the owner wrote itself sends no notification: the server learns of it by the write that is refused.
UNTOLD = "UPDATE conversation_sessions SET is_active = false, closed_by = instance_id"
TOLD = "UPDATE conversation_sessions SET is_active = false"
ACKNOWLEDGEMENTS = {
    "conversation.item.done",
    "conversation.item.deleted",
    "response.output_item.done",
    "response.done",
}


@pytest.mark.parametrize("close", [UNTOLD, TOLD], ids=["untold", "told"])
@pytest.mark.parametrize(
    "late",
    [
        user_item("after", "item_after"),
        {"type": "conversation.item.delete", "item_id": "item_before"},
        {"type": "response.create"},
    ],
    ids=["item", "deletion", "answer"],
)
async def test_nothing_is_acknowledged_after_the_row_was_closed_elsewhere(
    late: Event, close: str, server: TestServer, postgres_store: PostgresStore
) -> None:
    async with connect(server.url) as client:
        await client.say("before", "item_before")
        client.events.clear()
        await postgres_store.select(close)
        # Where the server is told, its close frame may be here before the event leaves.
        with nullcontext() if close == UNTOLD else suppress(ConnectionClosed):
            await client.send(late)
        assert await client.closed() == 4001
        assert ACKNOWLEDGEMENTS.isdisjoint(kinds(client.events))
    (row,) = await postgres_store.select("SELECT content, deleted_at FROM messages")
    assert tuple(row) == ("before", None)
    (row,) = await postgres_store.select("SELECT end_reason FROM conversation_sessions")
    assert row["end_reason"] == "by_hand"


async def test_an_answer_cut_off_by_a_disconnect_is_kept_as_incomplete(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, Slow()) as server:
        async with connect(server.url) as client:
            await client.say("Hello")
            await client.send({"type": "response.create"})
            await client.until("response.output_text.delta")
            client.reset()
        kept = await eventually(lambda: items(postgres_store), lambda found: len(found) == 2)
        assert kept[1] == ("assistant", "word0 ", "incomplete")


async def test_events_beyond_the_inbox_are_rejected_one_by_one(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, inbox_events_max=4) as server, connect(server.url) as client:
        await client.receive()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(client.send, {"type": "session.update", "event_id": f"e{number}", "session": {}})
        answers = [await client.receive() for _ in range(50)]
        overflow = [event["error"] for event in answers if event["type"] == "error"]
        assert {detail["code"] for detail in overflow} <= {"too_many_events"}
        assert len(answers) == 50
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"
