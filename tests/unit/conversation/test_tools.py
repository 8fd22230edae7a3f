"""Tools, deletions, insertion and out-of-band responses as a client sees them, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import trio
from lastcall.agents.agent import (
    AgentFailed,
    CutOff,
    FunctionCall,
    FunctionOutput,
    Piece,
    ToolArguments,
    ToolCall,
    Turn,
    Usage,
)
from lastcall.conversation.responses.responder import OUT_OF_BAND_MAX
from lastcall.conversation.timeline import timeline
from lastcall.store.records import StoredResponse
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_wire import STRICT, Client, Event, World, connect, in_a_world
from tests.support.scripted_agents import ScriptedAgent

TOOLS = [
    {"type": "function", "name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}},
    {"type": "function", "name": "greet"},
]
CALL = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


def talk(scenario: Callable[[World, Client], Awaitable[None]], agent: ScriptedAgent | None = None) -> None:
    """Runs a scenario with one client, then checks every event against the official client's strict types."""

    async def run(world: World) -> None:
        async with trio.open_nursery() as nursery:
            client = await connect(world, nursery, "user=ada")
            await client.until("conversation.created")
            client.heard.clear()
            await scenario(world, client)
            for event in client.heard:
                STRICT.validate_python(event)
            await client.ws.aclose()
            await world.emptied()
            nursery.cancel_scope.cancel()

    in_a_world(run, agent)


def kinds(events: list[Event]) -> list[str]:
    """Event types in order; consecutive events of one type count once."""
    found = [str(event["type"]) for event in events]
    return [kind for index, kind in enumerate(found) if index == 0 or kind != found[index - 1]]


async def say(client: Client, text: str, **fields: Any) -> Event:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **fields}
    await client.send({"type": "conversation.item.create", "item": item})
    return await client.until("conversation.item.done")


async def respond(client: Client, **response: Any) -> Event:
    await client.send({"type": "response.create", "response": response})
    done: Event = (await client.until("response.done"))["response"]
    return done


async def refusal(client: Client, event: Event) -> Event:
    await client.send({**event, "event_id": "mine"})
    error: Event = (await client.until("error"))["error"]
    assert error["event_id"] == "mine"
    return error


async def offer(client: Client, **session: Any) -> None:
    await client.send({"type": "session.update", "session": {"type": "realtime", "tools": TOOLS, **session}})
    await client.until("session.updated")
    client.heard.clear()


class Scripted(ScriptedAgent):
    """Yields the given pieces; echoes the bystander's messages. turns: the turns it was given."""

    def __init__(self, *pieces: Piece) -> None:
        self._pieces = pieces
        self.turns: list[Turn] = []

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        if turn.user_id == "bystander":
            yield f"You said: {turn.messages[-1].text}"
            return
        self.turns.append(turn)
        for piece in self._pieces:
            yield piece
            await trio.lowlevel.checkpoint()


class Patient(Scripted):
    """Yields its pieces, then waits to be cancelled."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        async for piece in super().reply(turn):
            yield piece
        if turn.user_id != "bystander":
            await trio.sleep_forever()


# --- tools


def test_a_tool_turn_has_the_canonical_order_of_events() -> None:
    async def scenario(world: World, client: Client) -> None:
        await offer(client)
        await say(client, 'call look_up {"city": "Oslo"}')
        client.heard.clear()
        done = await respond(client)
        assert kinds(client.heard) == CALL
        (call,) = done["output"]
        assert (call["name"], call["arguments"], call["status"]) == ("look_up", '{"city": "Oslo"}', "completed")
        deltas = [event["delta"] for event in client.heard if event["type"].endswith("arguments.delta")]
        assert ("".join(deltas), len(deltas) > 1) == (call["arguments"], True)
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        await client.send({"type": "conversation.item.create", "item": output})
        assert (await client.until("conversation.item.done"))["previous_item_id"] == call["id"]
        said = (await respond(client))["output"][0]["content"][0]["text"]
        assert said == "The tool said: rain"
        (row,) = world.rows_of("ada")
        assert [(item.kind, item.role) for item in world.store.items(row.conversation_id)] == [
            ("message", "user"),
            ("function_call", "assistant"),
            ("function_call_output", "tool"),
            ("message", "assistant"),
        ]

    talk(scenario)


def test_text_before_a_call_is_an_item_of_its_own() -> None:
    async def scenario(world: World, client: Client) -> None:
        await offer(client)
        await say(client, "Please call greet")
        client.heard.clear()
        message, call = (await respond(client))["output"]
        assert (message["type"], call["type"], call["arguments"]) == ("message", "function_call", "{}")
        added = [event for event in client.heard if event["type"] == "response.output_item.added"]
        assert [event["output_index"] for event in added] == [0, 1]
        previous = [event["previous_item_id"] for event in client.heard if event["type"] == "conversation.item.done"]
        assert previous[1] == message["id"]
        (row,) = world.rows_of("ada")
        assert [item.item_id for item in world.store.items(row.conversation_id)][1:] == [message["id"], call["id"]]

    talk(scenario)


def test_an_agent_may_call_several_tools_and_gets_each_output() -> None:
    agent = Scripted(ToolCall("look_up", '{"a"', "call_1"), ToolArguments(":1}"), ToolCall("greet"))

    async def scenario(world: World, client: Client) -> None:
        await offer(client, tool_choice="required")
        await say(client, "Hi")
        first, second = (await respond(client, parallel_tool_calls=True))["output"]
        assert (first["call_id"], first["arguments"], second["arguments"]) == ("call_1", '{"a":1}', "{}")
        output = {"type": "function_call_output", "call_id": "call_1", "output": "one"}
        await client.send({"type": "conversation.item.create", "item": output})
        await client.until("conversation.item.done")
        await respond(client, tools=[TOOLS[0]], tool_choice={"type": "function", "name": "look_up"})
        before, after = agent.turns
        assert ([tool.name for tool in before.tools], before.tool_choice) == (["look_up", "greet"], "required")
        assert (after.tools, after.tool_choice) == ((before.tools[0],), before.tools[0])
        assert [type(item) for item in after.items[1:]] == [FunctionCall, FunctionCall, FunctionOutput]
        assert [message.text for message in after.messages] == ["Hi"]

    talk(scenario, agent)


def test_a_tool_that_was_not_offered_or_was_forbidden_fails_the_response() -> None:
    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi")
        for parameters in ({}, {"tools": TOOLS[:1]}, {"tools": TOOLS, "tool_choice": "none"}):
            done = await respond(client, **parameters)
            assert done["status_details"]["error"]["code"] == "unknown_tool"
            assert all(item["type"] != "function_call" for item in done["output"])

    talk(scenario, Scripted(ToolCall("greet")))


def test_an_interrupted_call_is_incomplete_and_not_in_the_context() -> None:
    agent = Patient(ToolCall("look_up", '{"ci'))

    async def scenario(world: World, client: Client) -> None:
        await offer(client)
        await client.send({"type": "response.create"})
        await client.until("response.function_call_arguments.delta")
        await client.send({"type": "response.cancel"})
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["output"][0]["status"], done["output"][0]["arguments"]) == (
            "cancelled", "incomplete", '{"ci',
        )  # fmt: skip
        await client.send({"type": "response.create"})
        await client.until("response.function_call_arguments.delta")
        assert agent.turns[1].items == []

    talk(scenario, agent)


# --- usage and cut-offs


def test_the_agents_usage_and_cut_off_are_reported() -> None:
    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi")
        done = await respond(client, max_output_tokens=5)
        assert done["status"] == "incomplete"
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert done["output"][0]["status"] == "incomplete"
        usage = done["usage"]
        assert (usage["total_tokens"], usage["input_tokens"], usage["output_tokens"]) == (34, 30, 4)
        assert usage["input_token_details"]["cached_tokens"] == 16

    talk(scenario, Scripted("Well", Usage(30, 4, 16), CutOff("max_output_tokens")))


def test_usage_is_null_where_the_agent_reports_none() -> None:
    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi")
        assert (await respond(client))["usage"] is None

    talk(scenario)


# --- delete


def test_an_item_in_progress_may_be_deleted_and_its_response_goes_on() -> None:
    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi")
        await client.send({"type": "response.create"})
        item_id = (await client.until("response.output_item.added"))["item"]["id"]
        await client.send({"type": "conversation.item.delete", "item_id": item_id})
        await client.until("conversation.item.deleted")
        await client.send({"type": "response.cancel"})
        client.heard.clear()
        await client.until("response.done")
        assert "response.output_item.done" in kinds(client.heard)
        assert "conversation.item.done" not in kinds(client.heard)
        assert (await say(client, "Again"))["previous_item_id"] != item_id
        (row,) = world.rows_of("ada")
        assert [item.item_id for item in world.store.items(row.conversation_id) if item.deleted] == [item_id]

    talk(scenario, Patient("Well"))


def test_a_deletion_is_acknowledged_after_its_commit() -> None:
    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi", id="a")
        world.store.delay = lambda name: 0.5 if name == "delete_item" else 0.0
        await client.send({"type": "conversation.item.delete", "item_id": "a", "event_id": "e"})
        with trio.move_on_after(0.25) as early:
            await client.ws.get_message()
        assert early.cancelled_caught
        await client.until("conversation.item.deleted")
        (row,) = world.rows_of("ada")
        assert [item.deleted for item in world.store.items(row.conversation_id)] == [True]
        code = (await refusal(client, {"type": "conversation.item.retrieve", "item_id": "a"}))["code"]
        assert code == "item_retrieve_invalid_item_id"

    talk(scenario)


def test_an_id_is_taken_until_its_item_is_deleted() -> None:
    async def scenario(world: World, client: Client) -> None:
        again = {"type": "conversation.item.create", "item": {"id": "a", "role": "user", "content": []}}
        await say(client, "Hi", id="a")
        for text in ("Hello", "Good morning"):
            assert (await refusal(client, again))["code"] == "item_create_duplicate_item_id"
            await client.send({"type": "conversation.item.delete", "item_id": "a"})
            await client.until("conversation.item.deleted")
            await say(client, text, id="a")
        assert (await refusal(client, again))["code"] == "item_create_duplicate_item_id"
        (row,) = world.rows_of("ada")
        stored = [(item.content, item.deleted) for item in world.store.items(row.conversation_id)]
        assert stored == [("Hi", True), ("Hello", True), ("Good morning", False)]

    talk(scenario)


def test_an_answer_is_shortened_while_it_is_said_by_the_client_that_interrupts_it() -> None:
    """As frameworks truncate text: deleted, and created again under its id with what was shown of it."""

    async def scenario(world: World, client: Client) -> None:
        hi = (await say(client, "Hi"))["item"]["id"]
        await client.send({"type": "response.create"})
        item_id = (await client.until("response.output_item.added"))["item"]["id"]
        shown = {"type": "message", "id": item_id, "role": "assistant"}
        shown["content"] = [{"type": "output_text", "text": "We"}]
        create = {"type": "conversation.item.create", "item": shown, "previous_item_id": hi}
        await client.send({"type": "response.cancel"})
        await client.send({"type": "conversation.item.delete", "item_id": item_id})
        await client.send(create)
        await client.until("conversation.item.deleted")
        assert (await client.until("conversation.item.done"))["previous_item_id"] == hi
        if "response.done" not in kinds(client.heard):
            await client.until("response.done")
        await client.send({"type": "conversation.item.retrieve", "item_id": item_id})
        assert (await client.until("conversation.item.retrieved"))["item"]["content"][0]["text"] == "We"
        (row,) = world.rows_of("ada")
        stored = {(item.content, item.deleted) for item in world.store.items(row.conversation_id)}
        assert {("Hi", False), ("We", False)} < stored
        assert [deleted for content, deleted in stored - {("Hi", False), ("We", False)}] == [True]

    talk(scenario, Patient("Well"))


def test_an_item_that_is_said_but_not_stored_yet_may_be_deleted_and_created_again() -> None:
    """Of an answer of several items, each is complete before all are stored together."""

    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi")
        await client.send({"type": "response.create", "response": {"tools": TOOLS}})
        item_id = (await client.until("response.output_text.done"))["item_id"]
        await client.send({"type": "conversation.item.delete", "item_id": item_id})
        await client.until("conversation.item.deleted")
        await say(client, "Shorter", id=item_id)
        await client.send({"type": "response.cancel"})
        await client.until("response.done")
        (row,) = world.rows_of("ada")
        stored = [(item.content, item.deleted) for item in world.store.items(row.conversation_id)]
        assert sorted(stored) == [("", False), ("Hi", False), ("Shorter", False), ("Well", True)]

    talk(scenario, Patient("Well", ToolCall("look_up")))


def test_items_are_inserted_where_the_client_asks_until_no_position_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "wall_clock_ms", lambda: 0)  # else free positions grow with time

    async def scenario(world: World, client: Client) -> None:
        await say(client, "a", id="a")
        await say(client, "z", id="z")
        item = {"role": "user", "content": []}
        for previous, expected in (("a", "a"), ("root", None), (None, "z")):
            await client.send({"type": "conversation.item.create", "item": item, "previous_item_id": previous})
            assert (await client.until("conversation.item.done"))["previous_item_id"] == expected
        event = {"type": "conversation.item.create", "item": item, "previous_item_id": "a"}
        for _ in range(19):
            await client.send(event)
            await client.until("conversation.item.done")
        error = await refusal(client, event)
        assert (error["code"], error["param"]) == ("no_room", "previous_item_id")

    talk(scenario)


# --- out of band


def test_out_of_band_responses_run_concurrently_and_leave_no_trace() -> None:
    agent = Patient("Well")

    async def scenario(world: World, client: Client) -> None:
        await say(client, "Hi", id="a")
        await client.send({"type": "response.create"})
        await client.until("response.output_text.delta")
        given = [{"type": "item_reference", "id": "a"}, {"role": "user", "content": []},
                 {"role": "user", "content": [{"type": "input_text", "text": "Aside"}]}]  # fmt: skip
        ids = []
        for _ in range(OUT_OF_BAND_MAX):
            await client.send({"type": "response.create", "response": {"conversation": "none", "input": given}})
            response = (await client.until("response.created"))["response"]
            assert response["conversation_id"] is None
            ids.append(response["id"])
            await client.until("response.output_text.delta")
        event = {"type": "response.create", "response": {"conversation": "none"}}
        assert (await refusal(client, event))["code"] == "too_many_responses"
        assert [message.text for message in agent.turns[-1].messages] == ["Hi", "Aside"]
        for response_id in ids:
            await client.send({"type": "response.cancel", "response_id": response_id})
            assert (await client.until("response.done"))["response"]["id"] == response_id
        await client.send({"type": "response.cancel"})
        await client.until("response.done")
        (row,) = world.rows_of("ada")
        assert len(world.store.items(row.conversation_id)) == 2
        assert (await say(client, "On"))["previous_item_id"] is not None

    talk(scenario, agent)


def test_an_out_of_band_response_ends_with_its_session() -> None:
    async def scenario(world: World, client: Client) -> None:
        (session,) = [each for each in world.registry if each.user_id == "ada"]
        answering = [session.answering]
        await client.send({"type": "response.create", "response": {"conversation": "none", "input": []}})
        await client.until("response.output_text.delta")
        answering.append(session.answering)
        (figures,) = session.take_unfinished()
        assert isinstance(figures, StoredResponse), "it leaves no item"
        await wait_all_tasks_blocked()
        answering.append(session.answering)
        assert answering == [False, True, False]

    talk(scenario, Patient("Well"))


def test_a_failure_between_two_items_keeps_the_first_complete() -> None:
    class Failing(Scripted):
        async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
            async for piece in super().reply(turn):
                yield piece
            if turn.user_id != "bystander":
                raise AgentFailed("told_to", "The agent was told to fail.")

    async def scenario(world: World, client: Client) -> None:
        await offer(client)
        done = await respond(client)
        assert done["status"] == "failed"
        assert [item["status"] for item in done["output"]] == ["completed", "incomplete"]

    talk(scenario, Failing("Well", ToolCall("greet", "{")))


@pytest.mark.parametrize("pieces", [["\ud83d", "\ude00 hi \0", "\ud83d"], ["\ud83d", "\ude00", " hi ", "\ud83d"]])
def test_a_character_that_an_agent_cuts_is_put_together_again(pieces: list[str]) -> None:
    async def scenario(world: World, client: Client) -> None:
        await offer(client)
        done = await respond(client)
        expected = "\U0001f600 hi \ufffd"
        message, call = done["output"]
        assert (message["content"][0]["text"], call["arguments"]) == (expected, expected)
        for kind in ("response.output_text.delta", "response.function_call_arguments.delta"):
            assert "".join(event["delta"] for event in client.heard if event["type"] == kind) == expected

    talk(scenario, Scripted(*pieces, ToolCall("greet", pieces[0], "c"), *map(ToolArguments, pieces[1:])))
