"""An agent's exceptions, of any kind, fail its own response; in virtual time over in-memory streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest
import trio
from lastcall.agents.agent import Agent, Turn
from lastcall.agents.echo import EchoAgent
from lastcall.store.errors import StoreUnavailable
from trio.testing import MockClock

from tests.support.fake_store import FakeStore
from tests.support.virtual_server import World

REPLY_CHARS_MAX = 30


class Nested(EchoAgent):
    """Yields inside a nursery of its own, more than a response may hold: closing it raises a group."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            while True:
                yield "x" * REPLY_CHARS_MAX


class Exiting(EchoAgent):
    """Would end the program."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "x"
        raise SystemExit(3)


class Interrupting(EchoAgent):
    """As if somebody had pressed Ctrl-C inside it."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "x"
        raise KeyboardInterrupt


class Grouping(EchoAgent):
    """A task of its own would end the program."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "x"
        raise BaseExceptionGroup("both", [SystemExit(3), ValueError("and this")])


@pytest.mark.parametrize(
    "agent", [Nested(), Exiting(), Interrupting(), Grouping()], ids=lambda agent: type(agent).__name__
)
async def test_whatever_an_agent_raises_costs_its_response_only(agent: Agent, autojump_clock: MockClock) -> None:
    world = World(FakeStore(), agent, reply_chars_max=REPLY_CHARS_MAX)
    async with world.connected() as bystander, world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        assert (await peer.receive("response.done"))["response"]["status"] == "failed"
        await peer.say("Are you there?")
        await bystander.say("And you?")


@pytest.mark.parametrize("agent", [Nested(), Grouping()], ids=lambda agent: type(agent).__name__)
async def test_a_client_that_leaves_such_an_agent_ends_its_own_session_only(
    agent: Agent, autojump_clock: MockClock
) -> None:
    world = World(FakeStore(), agent)
    async with world.connected() as bystander:
        await bystander.receive("session.created")
        async with world.connected() as peer:
            await peer.say("Hello")
            await peer.send(type="response.create")
            await peer.receive("response.output_text.delta")
            await peer.ws.aclose()
            await world.over.wait()
        await bystander.say("Still here")


async def test_an_answer_that_could_not_be_stored_is_not_acknowledged(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())

    def unavailable(operation: str) -> None:
        if operation == "append_items":
            raise StoreUnavailable("no database")

    async with world.connected() as peer:
        await peer.say("Hello")
        world.store.fail_before = unavailable
        await peer.send(type="response.create")
        events = [json.loads(await peer.ws.get_message())]
        while events[-1]["type"] != "response.done":
            events.append(json.loads(await peer.ws.get_message()))
    assert events[-1]["response"]["status"] == "failed"
    assert events[-1]["response"]["status_details"]["error"]["type"] == "server_error"
    assert "conversation.item.done" not in [event["type"] for event in events]
