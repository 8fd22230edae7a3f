"""Clients of Azure OpenAI, and clients that still speak the retired beta of the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import trio
from lastcall.auth.identity import Scope
from lastcall.store.postgres import PostgresStore
from openai import AzureOpenAI, OpenAI
from trio_websocket import ConnectionClosed

from tests.support.authorization import World
from tests.support.servers import TestServer, open_server

SESSIONS = "SELECT user_id FROM conversation_sessions"
GONE = "beta_api_shape_disabled"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> AsyncIterator[World]:
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None, "wrong key": "sk-" + "x" * 43})
        await world.key("user key", "ada", Scope.USER)
        await world.key("service", "backend", Scope.SERVICE)
        yield world


# --- Azure ------------------------------------------------------------------------------------------------------------


def azure(world: World, who: str, path: str = "/openai/v1") -> AzureOpenAI:
    """Its WebSockets go to `wss://` unless their address is given."""
    return AzureOpenAI(
        base_url=f"{world.server.url}{path}",
        websocket_base_url=f"{world.server.url}{path}".replace("http", "ws", 1),
        api_key=str(world.tokens[who]),
        api_version="preview",
    )


async def test_azures_official_client_holds_a_turn(world: World) -> None:
    def turn() -> tuple[Any, str]:
        with azure(world, "user key").realtime.connect(model="mine") as connection:
            created = connection.recv().to_dict()
            content: Any = [{"type": "input_text", "text": "Hello!"}]
            connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            connection.response.create()
            for event in connection:
                if event.type == "response.done":
                    return created, str(event.response.status)
        raise EOFError

    created, status = await trio.to_thread.run_sync(turn)
    assert (created["session"]["model"], status) == ("mine", "completed")
    assert [row["user_id"] for row in await world.store.select(SESSIONS)] == ["ada"]


@pytest.mark.parametrize(
    "make", [azure, lambda world, who: OpenAI(base_url=f"{world.server.url}/openai/v1", api_key=world.tokens[who])]
)
async def test_client_secrets_are_made_at_azures_path(world: World, make: Callable[[World, str], OpenAI]) -> None:
    def create() -> Any:
        return make(world, "service").realtime.client_secrets.create(
            session={"type": "realtime", "instructions": "Be brief."}, extra_body={"user": "ada"}
        )

    made = await trio.to_thread.run_sync(create)
    world.tokens["secret"] = made.value
    assert await world.begin("secret", by_header=False, path="/openai/v1/realtime") == "ada"


async def test_every_route_is_also_found_where_azures_clients_look(world: World) -> None:
    async with httpx2.AsyncClient(
        base_url=world.server.url, headers={"api-key": str(world.tokens["user key"])}
    ) as http:
        for path in ("/v1/conversations", "/v1/memories"):
            assert (await http.get(f"/openai{path}")).json() == (await http.get(path)).json()
            assert (await http.get(f"/openai{path}", headers={"api-key": "sk-wrong"})).status_code == 401
        assert (await http.get("/openai/v1/nothing")).status_code == 404
        assert (await http.get("/openai/healthz")).status_code == 404


@pytest.mark.parametrize(
    ("path", "outcome"), [("/openai/v1/realtime", "ada"), ("/v1/realtime", 401)], ids=["azure", "elsewhere"]
)
async def test_a_browser_may_put_its_key_into_azures_address(world: World, path: str, outcome: Any) -> None:
    assert await world.begin("nobody", f"?api-key={world.tokens['user key']}", path=path) == outcome


async def test_a_wrong_key_in_the_address_is_told_on_the_open_socket(world: World) -> None:
    """As to every browser, which hides the reply to a handshake from its page."""
    wrong = f"?api-key={world.tokens['wrong key']}"
    assert await world.begin("nobody", wrong, path="/openai/v1/realtime") == ("invalid_api_key", 3000)
    assert await world.begin("nobody", headers={"api-key": "sk-wrong"}, path="/openai/v1/realtime") == 401


# --- the beta ---------------------------------------------------------------------------------------------------------

BETA: dict[str, dict[str, Any]] = {
    "the header": {"headers": {"OpenAI-Beta": "realtime=v1"}},
    "the header among others": {"headers": {"OpenAI-Beta": "assistants=v2, realtime=v1"}},
    "the header at Azure's path": {"headers": {"OpenAI-Beta": "realtime=v1"}, "path": "/openai/v1/realtime"},
    "the subprotocol": {"by_header": False, "more_subprotocols": ["openai-beta.realtime-v1"]},
    "Azure's path": {"path": "/openai/realtime", "query": "?api-version=2025-04-01-preview&deployment=mine"},
}


@pytest.mark.parametrize("way", BETA)
async def test_a_client_of_the_beta_is_told_so_and_closed(world: World, way: str) -> None:
    how = dict(BETA[way])
    async with world.socket("user key", how.pop("query", ""), **how) as ws:
        error = json.loads(await ws.get_message())["error"]
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
    assert (error["type"], error["code"]) == ("invalid_request_error", GONE)
    assert "Please use /" in error["message"]
    assert closed.value.reason is not None
    assert (closed.value.reason.code, closed.value.reason.reason) == (4000, f"invalid_request_error.{GONE}")
    assert await world.store.select(SESSIONS) == []


@pytest.mark.parametrize("way", BETA)
async def test_a_client_of_the_beta_without_a_key_is_refused_for_that(world: World, way: str) -> None:
    by_header = BETA[way].get("by_header", True)
    outcome = await world.begin("wrong key", **BETA[way])
    assert outcome == (401 if by_header else ("invalid_api_key", 3000))


async def test_a_beta_client_that_offers_the_betas_subprotocol_alone_gets_it(postgres_store: PostgresStore) -> None:
    """Else it would close before it hears why."""
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None})
        async with world.socket("nobody", more_subprotocols=["openai-beta.realtime-v1"]) as ws:
            assert ws.subprotocol == "openai-beta.realtime-v1"
            assert json.loads(await ws.get_message())["error"]["code"] == GONE


async def test_azures_official_client_hears_of_the_beta_path_what_to_use(world: World) -> None:
    def first() -> Any:
        with azure(world, "user key", "/openai").realtime.connect(model="mine") as connection:
            return connection.recv()

    event = await trio.to_thread.run_sync(first)
    assert (event.type, event.error.code) == ("error", GONE)
    assert "/openai/v1/realtime" in event.error.message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/realtime/sessions"),
        ("POST", "/v1/realtime/transcription_sessions"),
        ("POST", "/openai/v1/realtime/sessions"),
        ("POST", "/openai/realtimeapi/sessions"),
        ("POST", "/openai/realtime/client_secrets"),
        ("GET", "/openai/realtime"),
    ],
)
async def test_the_betas_http_paths_say_what_to_use(server: TestServer, method: str, path: str) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        answer = await http.request(method, f"{path}?api-version=2025-04-01-preview")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, GONE)
    assert "/v1/realtime/client_secrets" in answer.json()["error"]["message"]
