"""An outage of the model's endpoint, with a real database: what was said meanwhile is remembered afterwards."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from lastcall.agents.openai import OpenAIAgent
from lastcall.config import Settings
from lastcall.memory.finalizer import open_finalizer
from lastcall.store.postgres import PostgresStore

from tests.integration.store.world import PostgresWorld
from tests.support.fake_rows import SessionRecord
from tests.support.instances import instance
from tests.support.sloppy_endpoint import Response, sloppy_endpoint
from tests.support.waiting import eventually

SETTINGS = replace(Settings(), memory_sweep_seconds=0.05, memory_attempts_max=2)
LISTED = msgspec.json.encode(
    {"choices": [{"message": {"content": '[{"content": "Likes tea.", "quote": "like tea"}]'}}]}
)
LIST = Response(LISTED, kind="application/json")
USERS = ("ada", "bob", "eve")


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_what_was_said_in_an_outage_is_remembered_after_it_and_after_a_restart(
    postgres_store: PostgresStore, status: int
) -> None:
    world = PostgresWorld(postgres_store)
    await postgres_store.register_instance(instance(world.instance_id))
    starts = [await world.spoken(user, "I like tea.") for user in USERS]
    down = True

    def respond(_request: dict[str, Any]) -> Response:
        return Response(b"{}", status, "application/json") if down else LIST

    async def look() -> list[SessionRecord]:
        return [await world.session(start.session_id) for start in starts]

    async def asked() -> int:
        return len(endpoint.asked)

    async with sloppy_endpoint(respond) as endpoint:
        async with (
            aclosing(OpenAIAgent(base_url=endpoint.url, api_key="k", model="m")) as agent,
            open_finalizer(postgres_store, agent, SETTINGS),
        ):
            await eventually(asked, lambda count: count > SETTINGS.memory_workers)
        rows = await look()
        assert [(row.memory_status, row.memory_attempts) for row in rows] == [("pending", 0)] * len(USERS)
        down = False
        async with (
            aclosing(OpenAIAgent(base_url=endpoint.url, api_key="k", model="m")) as agent,
            open_finalizer(postgres_store, agent, SETTINGS),
        ):
            rows = await eventually(look, lambda rows: all(row.memory_status == "done" for row in rows))
    assert [row.memory_attempts for row in rows] == [1] * len(USERS)
    for user in USERS:
        recollection = await postgres_store.recall(user, 10)
        assert [fact.content for fact in recollection.facts] == ["Likes tea."]
