"""The official `openai` client, and what the server remembers about its user."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from lastcall.embedded import model as local_model
from lastcall.store.postgres import PostgresStore
from openai import OpenAI

from tests.support.processes import ServerProcess, run_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

MODEL_REPLY_SECONDS = 60.0


def item(text: str) -> Any:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def turn(server: ServerProcess, user: str, text: str) -> tuple[str, list[str], Any]:
    """One streamed turn with the synchronous client: the session's instructions, the deltas, and the response."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="unused", timeout=MODEL_REPLY_SECONDS)
    deltas: list[str] = []
    with client.realtime.connect(model="lastcall", extra_query={"user": user}) as connection:
        created: Any = connection.recv()
        connection.conversation.item.create(item=item(text))
        connection.response.create()
        for event in connection:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            elif event.type == "response.done":
                return created.session.instructions, deltas, event.response
    raise AssertionError("the connection ended before the response did")


async def test_the_synchronous_client_streams_a_turn_and_is_remembered(
    database_url: str, postgres_store: PostgresStore
) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:

        async def talk(text: str) -> tuple[str, list[str], Any]:
            return await trio.to_thread.run_sync(turn, server, "ada", text)

        _, deltas, response = await talk("My name is Ada and I live in Oslo.")
        assert response.status == "completed"
        assert len(deltas) > 1
        assert "".join(deltas) == response.output[0].content[0].text
        await eventually(lambda: postgres_store.recall("ada", 10), lambda found: bool(found.facts))
        instructions, _, _ = await talk("What is my name?")
        assert "My name is Ada" in instructions
        assert "live in Oslo" in instructions


@pytest.mark.skipif(not local_model.available(), reason="the bundled model is not installed")
def test_the_bundled_model_answers_and_the_user_is_remembered(database_url: str) -> None:
    """The memory survives a restart of the server."""
    flags = ("--database-url", database_url, "--agent", "local")
    with run_server(*flags) as server:
        _, deltas, response = turn(server, "grace", "My name is Grace and I live in Rome. Say hello in one sentence.")
        assert response.status == "completed"
        assert len(deltas) > 1
        assert server.stop() == 0
    with run_server(*flags) as server:
        instructions, _, _ = turn(server, "grace", "What is my name?")
        assert "My name is Grace" in instructions
        assert "live in Rome" in instructions
