"""What each answer took is kept, whatever becomes of it: in virtual time, as a client brings it about."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import pytest
import trio
from lastcall.agents.agent import AgentFailed, CutOff, Piece, ToolCall, Turn, Usage
from lastcall.conversation.figures import TOKENS_MAX
from lastcall.store.errors import StoreUnavailable
from lastcall.store.records import StoredResponse
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_wire import Client, World, connect, in_a_world
from tests.support.scripted_agents import ScriptedAgent

PIECE_SECONDS = 0.125
TOOL = {"type": "function", "name": "look_up"}


class Timed(ScriptedAgent):
    """Yields its pieces, a moment before each; a number is a further wait, an exception is raised."""

    def __init__(self, *script: Piece | float | Exception, model: object = None) -> None:
        self._script = script
        self.model = model

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        if turn.user_id == "bystander":
            yield f"You said: {turn.messages[-1].text}"
            return
        for piece in self._script:
            if isinstance(piece, float):
                await trio.sleep(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                await trio.sleep(PIECE_SECONDS)
                yield piece


def figures_of(scenario: Callable[[World, Client], Awaitable[object]], agent: ScriptedAgent) -> list[StoredResponse]:
    """Runs a scenario with one client, and returns what is stored of ada's answers once her session is over."""

    async def run(world: World) -> list[StoredResponse]:
        async with trio.open_nursery() as nursery:
            client = await connect(world, nursery, "user=ada")
            await scenario(world, client)
            await client.ws.aclose()
            await world.emptied()
            nursery.cancel_scope.cancel()
        found = [each for each in world.store.responses.values() if each.user_id == "ada"]
        assert {each.session_id for each in found} <= {row.session_id for row in world.rows_of("ada")}
        return sorted(found, key=lambda each: each.created)

    return in_a_world(run, agent)


async def ask(client: Client, **response: Any) -> None:
    await client.send({"type": "response.create", "response": response})


def test_an_answer_is_stored_with_its_times_and_the_models_own_counts() -> None:
    done: list[Any] = []

    async def scenario(world: World, client: Client) -> None:
        done.append((await client.ask("Hi"))["response"])

    (found,) = figures_of(scenario, Timed("Well", ", hello.", Usage(30, 4, 16), model="gray-2"))
    assert (found.agent, found.model, found.outcome, found.reason) == ("Timed", "gray-2", "completed", None)
    assert found.response_id == done[0]["id"].removeprefix("resp_")
    assert found.first is not None
    assert (found.first - found.created, found.ended - found.created) == pytest.approx(
        (PIECE_SECONDS, 3 * PIECE_SECONDS), abs=0.01
    )
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (30, 4, 16)
    assert (done[0]["usage"]["input_tokens"], done[0]["usage"]["output_tokens"]) == (30, 4)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ((), (None, None, None)),
        ((Usage(30, 4),), (30, 4, None)),
        ((Usage(-1, TOKENS_MAX + 1, cast("int", True)),), (None, None, None)),
    ],
    ids=["none", "not cached", "impossible"],
)
def test_what_the_model_does_not_report_is_not_made_up(
    usage: tuple[Usage, ...], counts: tuple[int | None, ...]
) -> None:
    (found,) = figures_of(lambda _, client: client.ask("Hi"), Timed("Well", *usage))
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == counts


@pytest.mark.parametrize("model", [None, 5, "nul \0", "lone \ud800", "m" * 300])
def test_any_agents_model_can_be_stored(model: object) -> None:
    (found,) = figures_of(lambda _, client: client.ask("Hi"), Timed("Well", model=model))
    wanted = model.replace("\0", "").replace("\ud800", "\ufffd")[:256] if isinstance(model, str) else None
    assert found.model == wanted


@pytest.mark.parametrize("offered", [{}, {"tools": [TOOL]}], ids=["with an item", "without an item"])
def test_a_failed_answer_is_kept_with_its_code(offered: dict[str, Any]) -> None:
    async def scenario(world: World, client: Client) -> None:
        await ask(client, **offered)
        assert (await client.until("response.done"))["response"]["status"] == "failed"
        await wait_all_tasks_blocked()
        assert len(world.store.responses) == 1, "it does not wait for the session's end"

    (found,) = figures_of(scenario, Timed(AgentFailed("model_away", "Away.")))
    assert (found.outcome, found.reason, found.first) == ("failed", "model_away", None)


@pytest.mark.parametrize("offered", [{}, {"tools": [TOOL]}], ids=["with an item", "without an item"])
def test_an_answer_that_the_client_cancels_is_kept(offered: dict[str, Any]) -> None:
    async def scenario(world: World, client: Client) -> None:
        await ask(client, **offered)
        await client.until("response.created")
        await trio.sleep(0.5)
        await client.send({"type": "response.cancel"})
        await client.until("response.done")

    (found,) = figures_of(scenario, Timed(60.0))
    assert (found.outcome, found.reason, found.first) == ("cancelled", "client_cancelled", None)
    assert found.ended - found.created == pytest.approx(0.5, abs=0.01)


def test_an_answer_cut_off_by_the_sessions_end_is_kept() -> None:
    async def scenario(world: World, client: Client) -> None:
        await ask(client)
        await client.until("response.output_text.delta")

    (found,) = figures_of(scenario, Timed("Well", 60.0))
    assert (found.outcome, found.reason) == ("cancelled", "session_ended")
    assert found.first is not None


def test_an_answer_cut_off_by_a_limit_is_kept_with_the_reason() -> None:
    script = ("Well", Usage(30, 4), CutOff("max_output_tokens"))
    (found,) = figures_of(lambda _, client: client.ask("Hi"), Timed(*script))
    assert (found.outcome, found.reason, found.output_tokens) == ("incomplete", "max_output_tokens", 4)


def test_an_answer_of_several_items_is_counted_once() -> None:
    async def scenario(world: World, client: Client) -> None:
        await ask(client, tools=[TOOL])
        await client.until("response.done")

    script = ("Let me look.", ToolCall("look_up", "{}"), ToolCall("look_up", "{}"), Usage(30, 4))
    (found,) = figures_of(scenario, Timed(*script))
    assert found.output_tokens == 4


def test_answers_outside_the_conversation_are_kept_too() -> None:
    """They store no item, but their tokens were spent. One is running when the session ends."""

    async def scenario(world: World, client: Client) -> None:
        await ask(client, conversation="none")
        await client.until("response.done")
        await ask(client, conversation="none")
        await client.until("response.created")
        assert world.store.messages == {}

    first, second = figures_of(scenario, Timed("Well", Usage(30, 4)))
    assert (first.outcome, first.output_tokens) == ("completed", 4)
    assert (second.outcome, second.reason) == ("cancelled", "session_ended")


def test_figures_that_could_not_be_stored_come_with_the_sessions_end() -> None:
    """The client is told that the answer failed: so it says there."""

    def away(operation: str) -> None:
        if operation == "append_items":
            raise StoreUnavailable("no database")

    async def scenario(world: World, client: Client) -> None:
        world.store.fail_before = away
        await client.send({"type": "response.create"})
        with trio.fail_after(60.0):
            while "response.done" not in str(await client.ws.get_message()):
                pass
        await trio.sleep(60.0)
        assert world.store.responses == {}
        world.store.fail_before = lambda _: None

    (found,) = figures_of(scenario, Timed("Well", Usage(30, 4)))
    assert (found.outcome, found.reason, found.output_tokens) == ("failed", "store_unavailable", 4)


def test_the_next_answer_does_not_wait_for_figures_without_items() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.store.delay = lambda operation: 0.5 if operation == "append_items" else 0.0
        for _ in range(2):
            await ask(client, tools=[TOOL])
            await client.until("response.done")
        assert [event for event in client.heard if event["type"] == "error"] == []

    assert len(figures_of(scenario, Timed())) == 2
