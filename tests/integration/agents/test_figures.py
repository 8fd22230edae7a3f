"""What an endpoint's answers took stands in a real database, as the endpoint counted it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
import trio
from lastcall.agents.openai import OpenAIAgent
from lastcall.store.operators.usage import ResponseReport, responses_of
from lastcall.store.postgres import PostgresStore

from tests.support.clients import connect
from tests.support.servers import open_server
from tests.support.sloppy_endpoint import Response, chunk_of, event, sloppy_endpoint
from tests.support.waiting import eventually

# The SDK leaves its own generators unfinished at the end of every stream; its connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
COUNTS = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
CACHED = {**COUNTS, "prompt_tokens_details": {"cached_tokens": 16}}


def words(usage: dict[str, Any] | None) -> Response:
    ended = chunk_of({}, finish="stop") | ({} if usage is None else {"usage": usage})
    return Response(event(chunk_of({"content": "Hello."})) + event(ended) + b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("usage", "counted"),
    [(CACHED, (30, 4, 16)), (COUNTS, (30, 4, None)), (None, (None, None, None))],
    ids=["with cached tokens", "without", "none"],
)
async def test_tokens_are_those_that_the_endpoint_reports(
    postgres_store: PostgresStore, usage: dict[str, Any] | None, counted: tuple[int | None, ...]
) -> None:
    async with (
        sloppy_endpoint(lambda _: words(usage)) as endpoint,
        aclosing(OpenAIAgent(base_url=endpoint.url, api_key="k", model="gray-2")) as agent,
        open_server(postgres_store, agent) as server,
        connect(server.ws_url, user="ada") as client,
    ):
        done = (await client.ask("Hi"))["response"]
        (found,) = await responses_of(postgres_store, UUID(client.session_id), 10)
        told = usage and {"total_tokens": 34, "input_tokens": 30, "output_tokens": 4}
        assert (done["usage"] and {name: done["usage"][name] for name in told or ()}) == told
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == counted
    assert (found.model, found.agent) == ("gray-2", "openai gray-2 at 127.0.0.1")
    assert (found.outcome, found.response_id.hex) == ("completed", done["id"].removeprefix("resp_"))
    assert found.first_at is not None
    assert found.started_at < found.first_at <= found.ended_at


async def test_an_answer_that_its_client_cancels_and_one_that_is_refused_are_there(
    postgres_store: PostgresStore,
) -> None:
    asked = trio.Event()
    refuses = False

    class Stalled(OpenAIAgent):
        """Says that it was asked, and waits if it is not refused."""

        async def reply(self, turn: Any) -> Any:
            async with aclosing(super().reply(turn)) as pieces:
                async for piece in pieces:
                    yield piece
                    asked.set()
                    await trio.sleep_forever()

    def respond(_request: dict[str, Any]) -> Response:
        return Response(b"{}", 401, "application/json") if refuses else words(CACHED)

    async with (
        sloppy_endpoint(respond) as endpoint,
        aclosing(Stalled(base_url=endpoint.url, api_key="k", model="gray-2")) as agent,
        open_server(postgres_store, agent) as server,
        connect(server.ws_url, user="ada") as client,
    ):
        await client.send({"type": "response.create"})
        await asked.wait()
        await client.send({"type": "response.cancel"})
        assert (await client.until("response.done"))["response"]["status"] == "cancelled"
        refuses = True
        tool = {"type": "function", "name": "look_up"}  # so that it leaves no item
        await client.send({"type": "response.create", "response": {"tools": [tool]}})
        failed = (await client.until("response.done"))["response"]

        async def stored() -> list[ResponseReport]:
            return await responses_of(postgres_store, UUID(client.session_id), 10)

        cancelled, refused = await eventually(stored, lambda rows: len(rows) == 2)
    assert (cancelled.outcome, cancelled.reason, cancelled.input_tokens) == ("cancelled", "client_cancelled", None)
    assert failed["output"] == []
    assert (refused.outcome, refused.reason) == ("failed", failed["status_details"]["error"]["code"])
    assert refused.first_at is None
