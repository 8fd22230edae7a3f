"""The official `openai` client, unmodified, against a real server process."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from openai import AsyncOpenAI, OpenAI

from server import local_model
from server.postgres import PostgresStore

from .processes import ServerProcess, run_server
from .waiting import eventually

README = Path(__file__).parent.parent / "README.md"
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


async def test_the_synchronous_client_holds_a_streamed_turn_and_is_remembered(
    database_url: str, postgres_store: PostgresStore
) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:

        async def talk(text: str) -> tuple[str, list[str], Any]:
            return await trio.to_thread.run_sync(turn, server, "ada", text)

        _, deltas, response = await talk("My name is Ada and I live in Oslo.")
        assert response.status == "completed"
        assert len(deltas) > 1
        assert "".join(deltas) == response.output[0].content[0].text
        await eventually(lambda: postgres_store.recall("ada", 10), bool)
        instructions, _, _ = await talk("What is my name?")
        assert "My name is Ada and I live in Oslo." in instructions


# The realtime client drops an SSL context and a task on the floor when its loop ends; that is not ours to mend.
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_asynchronous_client_cancels_and_goes_on(database_url: str) -> None:
    async def talk(url: str) -> list[str]:
        statuses = []
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused")
        async with client.realtime.connect(model="lastcall") as connection:
            for cancel in (True, True):
                await connection.conversation.item.create(item=item("Tell me a story."))
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.output_text.delta" and cancel:
                        cancel = False
                        await connection.response.cancel()
                    elif event.type == "response.done":
                        statuses.append(str(event.response.status))
                        break
        await client.close()
        return statuses

    with run_server("--database-url", database_url, "--agent", "tests.scripted_agents:Slow") as server:
        assert asyncio.run(talk(server.url)) == ["cancelled", "cancelled"]


@pytest.mark.skipif(not local_model.available(), reason="the bundled model is not installed")
def test_the_bundled_model_answers_and_a_restarted_server_remembers_the_user(database_url: str) -> None:
    flags = ("--database-url", database_url, "--agent", "local")
    with run_server(*flags) as server:
        _, deltas, response = turn(server, "grace", "My name is Grace and I live in Rome. Say hello in one sentence.")
        assert response.status == "completed"
        assert len(deltas) > 1
        assert server.stop() == 0
    with run_server(*flags) as server:
        instructions, _, _ = turn(server, "grace", "What is my name?")
        assert "My name is Grace and I live in Rome." in instructions


def test_the_readmes_client_runs_as_it_stands(
    running_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "http://127.0.0.1:8000" in code
    exec(compile(code.replace("http://127.0.0.1:8000", running_server.url), "README.md", "exec"), {})
    assert "You said" in capsys.readouterr().out
