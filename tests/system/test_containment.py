"""What agents raise and what clients hold open costs nobody but themselves, and no shutdown more than its budget."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest
import trio
from lastcall.agents.agent import Agent, Turn
from lastcall.agents.select import EchoAgent
from lastcall.cli.serve import COLLECTION_THRESHOLDS
from lastcall.store.errors import StoreUnavailable
from trio.testing import MockClock

from ..support.clients import connect
from ..support.fake_store import FakeStore
from ..support.processes import ServerProcess, run_server
from ..unit.realtime.test_connection import World

REPLY_CHARS_MAX = 30
DRAIN_SECONDS = 20.0
HURRY_WITHIN_SECONDS = 4.0
EXIT_WITHIN_SECONDS = 5.0

Serve = Callable[..., AbstractContextManager[ServerProcess]]


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


# --- processes


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(agent: str = "echo") -> AbstractContextManager[ServerProcess]:
        settings = ("--agent", agent, "--drain-seconds", str(DRAIN_SECONDS))
        return run_server("--database-url", database_url, *settings)

    return start


async def terminate(server: ServerProcess) -> tuple[int, float]:
    """The exit code, and how long the exit took in seconds."""
    began = trio.current_time()
    code = await trio.to_thread.run_sync(server.stop)
    return code, trio.current_time() - began


async def test_a_second_signal_does_not_wait_for_memory_that_hangs(serve: Serve) -> None:
    with serve("tests.support.scripted_agents:HangingMemory") as server:
        async with connect(server.url) as client:
            await client.say("My name is Ada.")
            server.process.send_signal(signal.SIGTERM)
            assert await client.closed() == 1012
        code, took = await terminate(server)
    assert code == 0
    assert took < HURRY_WITHIN_SECONDS


async def test_a_connection_that_never_says_a_word_does_not_hold_up_the_exit(serve: Serve) -> None:
    with serve() as server:
        parts = urlsplit(server.url)
        assert parts.hostname is not None
        assert parts.port is not None
        async with await trio.open_tcp_stream(parts.hostname, parts.port):
            async with connect(server.url) as client:  # accepted after the silent one
                await client.say("Hello")
            code, took = await terminate(server)
    assert code == 0
    assert took < EXIT_WITHIN_SECONDS


async def test_garbage_collections_are_rare_and_skip_what_start_up_created(serve: Serve) -> None:
    with serve("tests.support.scripted_agents:Introspective") as server:
        async with connect(server.url) as client:
            answer = (await client.ask("Hello"))["response"]["output"][0]["content"][0]["text"]
    frozen, scanned, threshold = map(int, answer.split())
    assert frozen > 10 * scanned
    assert threshold == COLLECTION_THRESHOLDS[0]
