"""Authorization: every kind of credential against every route and event."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.auth.secret import digest
from lastcall.config import Settings
from lastcall.protocol.client_events import SUPPORTED_EVENTS
from lastcall.protocol.ids import parse_public_id, public_id
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.web.app import ROUTES, create_app
from openai import OpenAI
from openai.types.realtime import ClientSecretCreateResponse
from pydantic import TypeAdapter
from starlette.routing import Route
from websockets.exceptions import InvalidStatus

from tests.support.authorization import AUDIENCE, DONE_SECONDS, SECRET, World, closed, token
from tests.support.clients import connect
from tests.support.fake_services import FakeServices
from tests.support.operators import OPERATOR
from tests.support.processes import run_server
from tests.support.servers import TestServer, empty, open_server
from tests.support.sign_in import Browser
from tests.support.waiting import eventually

REVOKED_SECONDS = 1.0


async def speak(world: World, user: str) -> str:
    """A conversation of the user's, in which something is to be remembered."""
    async with world.socket("service", f"?user={user}") as ws:
        conversation = json.loads(await ws.get_message())["session"]["conversation_id"]
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"My name is {user}."}]}
        await ws.send_message(json.dumps({"type": "conversation.item.create", "item": item}))
        while json.loads(await ws.get_message())["type"] != "conversation.item.done":
            pass
    await eventually(lambda: world.store.recall(user, 10), lambda found: bool(found.facts))
    return str(conversation)


@asynccontextmanager
async def open_world(store: PostgresStore, tmp_path: Path) -> AsyncIterator[World]:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    async with open_server(store, EchoAgent(), jwt_secret_file=file, jwt_audience=AUDIENCE) as server:
        world = World(server, store, {"nobody": None})
        for who, subject, scope in (
            ("user key", "ada", Scope.USER),
            ("other user's key", "eve", Scope.USER),
            ("revoked key", "ada", Scope.USER),
            ("service", "backend", Scope.SERVICE),
            ("admin", "operator", Scope.ADMIN),
            ("reader", "onlooker", Scope.READER),
        ):
            await world.key(who, subject, scope)
        for user in ("ada", "eve"):
            world.conversations[user] = await speak(world, user)
        await world.secret("secret", user="ada")
        await world.secret("expired secret", user="ada")
        await world.secret("revoked secret", user="ada")
        await world.secret("bound secret", user="ada", conversation=world.conversations["ada"])
        await key_admin.revoke(store, world.ids["revoked key"], OPERATOR)
        await key_admin.revoke(store, world.ids["revoked secret"], OPERATOR)
        await expire(world, "expired secret")
        none = jwt.encode({"sub": "ada", "aud": AUDIENCE, "exp": time.time() + 600}, "", algorithm="none")
        world.tokens |= {
            "wrong key": "sk-" + "x" * 43,
            "wrong secret": "ek_" + "x" * 43,
            "token": token(),
            "expired token": token(exp=time.time() - 60),
            "token without expiry": jwt.encode({"sub": "ada", "aud": AUDIENCE}, SECRET, algorithm="HS256"),
            "token for others": token(aud="another"),
            "token with a wrong signature": token()[:-4] + "AAAA",
            "token of no algorithm": none,
            "token of nobody": token(sub=""),
            "garbage": "garbage",
        }
        await sign_in(world)
        yield world


async def sign_in(world: World) -> None:
    """Browsers of their own: one that is signed in, one whose user signed out, and one that never was."""
    for who in ("cookie", "signed-out cookie"):
        browser = Browser(world.server.url)
        made = await key_admin.create_link(world.store, "ada", 60.0, OPERATOR)
        assert (await browser.ask("POST", "/sign-in", json={"secret": made.secret})).status_code == 200
        world.cookies[who] = browser.cookie
    await browser.ask("DELETE", "/sign-in")
    world.cookies["wrong cookie"] = "lastcall=ek_" + "x" * 43
    world.tokens |= dict.fromkeys(world.cookies, None)


async def expire(world: World, who: str) -> None:
    """Replaces a secret by one whose time is over: nothing but its revocation can be changed."""
    await world.store.select(
        "INSERT INTO client_secrets (key_id, user_id, secret_hash, expires_at)"
        " VALUES ($1, 'ada', $2, now() - interval '1 s')",
        world.ids["service"],
        digest(f"ek_{who:x<43}"),
    )
    world.tokens[who] = f"ek_{who:x<43}"


ADA, EVE = "ada", "eve"
GOOD = {
    "user key": "ada",
    "other user's key": "eve",
    "service": "backend",
    "admin": "operator",
    "secret": "ada",
    "bound secret": "ada",
    "token": "ada",
    "cookie": "ada",
}
BAD = (
    "nobody", "wrong key", "wrong secret", "revoked key", "expired secret", "revoked secret", "expired token",
    "token without expiry", "token for others", "token with a wrong signature", "token of no algorithm",
    "token of nobody", "garbage", "signed-out cookie", "wrong cookie",
)  # fmt: skip
READER = "reader"  # for the console only
EVERYBODY = (*GOOD, READER, *BAD)
BROWSERS = ("cookie", "signed-out cookie", "wrong cookie")
NO_USERS = {READER: 403}
KEYS = ("user key", "other user's key", "service", "admin")

CONVERSATION = "/v1/conversations/{conversation_id}"
ITEMS = "/v1/conversations/{conversation_id}/items"
MEMORY = "/v1/memories/{memory_id}"

SESSION = "/v1/admin/sessions/{session_id}"
OVERSEEN = dict.fromkeys(GOOD, 403) | {"admin": 200, READER: 200}
OPERATED = dict.fromkeys((*GOOD, READER), 403) | {"admin": 200}

# The status of each route for each who; what is not named is 401.
HTTP: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "/"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/c/{conversation_id}"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/console"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/embed"): dict.fromkeys(EVERYBODY, 404),  # no other site may show it here
    ("GET", "/v1/admin/truth"): OVERSEEN,
    ("GET", "/v1/admin/chart"): OVERSEEN,
    ("GET", "/v1/admin/sessions"): OVERSEEN,
    ("GET", SESSION): OVERSEEN | {"admin": 404, READER: 404},  # as it stands here, it names no session
    ("GET", f"{SESSION}/items"): OVERSEEN | {"admin": 404, READER: 404},
    ("GET", f"{SESSION}/responses"): OVERSEEN | {"admin": 404, READER: 404},
    ("GET", "/v1/admin/usage"): OVERSEEN,
    ("GET", "/v1/admin/usage/chart"): OVERSEEN,
    ("POST", f"{SESSION}/close"): OPERATED | {"admin": 404},
    ("GET", "/v1/admin/memory"): OVERSEEN,
    ("POST", "/v1/admin/memory/retry"): OPERATED,
    ("GET", "/v1/admin/memories"): OVERSEEN | {"admin": 400, READER: 400},  # as it stands here, it names nobody
    ("DELETE", "/v1/admin/memories/{memory_id}"): OPERATED | {"admin": 404},
    ("GET", "/v1/admin/keys"): OVERSEEN,
    ("POST", "/v1/admin/keys"): OPERATED | {"admin": 400},  # as it stands here, it names nobody
    ("DELETE", "/v1/admin/keys/{key_id}"): OPERATED | {"admin": 404},
    ("GET", "/v1/admin/users"): OVERSEEN,
    ("GET", "/v1/admin/users/export"): OPERATED | {"admin": 400},
    ("POST", "/v1/admin/users/erase"): OPERATED | {"admin": 400},
    ("GET", "/v1/admin/webhooks"): OVERSEEN,
    ("POST", "/v1/admin/webhooks"): OPERATED | {"admin": 400},  # as it stands here, it names no URL
    ("GET", "/v1/admin/webhooks/deliveries"): OVERSEEN,
    ("POST", "/v1/admin/webhooks/deliveries/retry"): OPERATED,
    ("DELETE", "/v1/admin/webhooks/{webhook_id}"): OPERATED | {"admin": 404},
    ("POST", "/v1/admin/webhooks/{webhook_id}/test"): OPERATED | {"admin": 404},
    ("GET", "/v1/admin/audit"): OVERSEEN,
    ("GET", "/v1/admin/audit.csv"): OVERSEEN,
    ("GET", "/v1/sessions/{session_id}"): dict.fromkeys(GOOD, 404) | NO_USERS,
    ("GET", "/healthz"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/readyz"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/static/chat.js"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/metrics"): OVERSEEN,
    ("GET", "/v1/memories"): dict.fromkeys(GOOD, 200) | NO_USERS,
    # As it stands here, it asks nothing.
    ("GET", "/v1/memories/recalled"): dict.fromkeys(GOOD, 400) | {"bound secret": 403} | NO_USERS,
    ("PATCH", MEMORY): dict.fromkeys(GOOD, 404) | NO_USERS,  # as it stands here, it names no memory
    ("DELETE", MEMORY): dict.fromkeys(GOOD, 404) | NO_USERS,
    ("GET", "/v1/conversations"): dict.fromkeys(GOOD, 200) | {"bound secret": 403} | NO_USERS,
    ("POST", CONVERSATION): dict.fromkeys(GOOD, 404) | NO_USERS,
    ("DELETE", CONVERSATION): dict.fromkeys(GOOD, 404) | NO_USERS,
    ("GET", ITEMS): dict.fromkeys(GOOD, 404) | NO_USERS,  # as it stands here, it names no conversation
    ("GET", "/openapi.json"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/asyncapi.json"): dict.fromkeys(EVERYBODY, 200),
    ("POST", "/v1/realtime/client_secrets"): dict.fromkeys((*GOOD, READER), 403) | dict.fromkeys(KEYS, 200),
    # Signing in and out is for browsers on the server's own page, whoever was signed in before.
    ("GET", "/sign-in"): dict.fromkeys(EVERYBODY, 200),
    ("GET", "/sign-in/callback"): dict.fromkeys(
        EVERYBODY, 303
    ),  # back to the page, which tells that nothing came of it
    ("GET", "/sign-in/out"): dict.fromkeys(EVERYBODY, 303),
    ("POST", "/sign-in"): dict.fromkeys(EVERYBODY, 403) | dict.fromkeys(BROWSERS, 400),
    ("POST", "/sign-in/provider"): dict.fromkeys(EVERYBODY, 403) | dict.fromkeys(BROWSERS, 404),
    ("DELETE", "/sign-in"): dict.fromkeys(EVERYBODY, 403) | dict.fromkeys(BROWSERS, 200),  # the last: it signs out
}


def test_every_route_has_its_place_in_the_matrix() -> None:
    """A route that is added without saying who may ask it fails here."""
    routes = [route for route in create_app(FakeServices()).routes if isinstance(route, Route)]
    assert len(routes) == len(create_app(FakeServices()).routes)
    assert {
        (method, route.path.replace("/static/{path}", "/static/chat.js"))
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    } == set(HTTP)


@pytest.fixture
async def world(postgres_store: PostgresStore, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(postgres_store, tmp_path) as world:
        yield world


async def test_every_credential_on_every_http_route(world: World) -> None:
    expected = {(*route, who): statuses.get(who, 401) for route, statuses in HTTP.items() for who in EVERYBODY}
    assert set(world.tokens) == set(EVERYBODY)
    found: dict[tuple[str, str, str], int] = {}

    async def ask(method: str, path: str, who: str) -> None:
        answer = await world.ask(method, path, who)
        found[method, path, who] = answer.status_code
        if answer.status_code >= 400:
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert (answer.headers.get("www-authenticate") == "Bearer") == (answer.status_code == 401)

    for case in expected:
        await ask(*case)
    assert found == expected


async def test_a_conversations_items_are_for_its_own_user(world: World) -> None:
    path = ITEMS.replace("{conversation_id}", world.conversations["ada"])
    expected = {
        who: (200 if user == ADA else 404) if who in GOOD else 401
        for who, user in (GOOD | dict.fromkeys(BAD, "")).items()
    }
    expected[READER] = 403
    assert {who: (await world.ask("GET", path, who)).status_code for who in EVERYBODY} == expected


async def test_a_conversation_is_renamed_and_deleted_by_its_own_user_only(world: World) -> None:
    path = CONVERSATION.replace("{conversation_id}", world.conversations["ada"])
    own = {who for who, user in GOOD.items() if user == ADA}
    expected = {who: (200 if who in own else 404) if who in GOOD else 401 for who in EVERYBODY} | NO_USERS
    for who, status in expected.items():
        assert (await world.ask("POST", path, who, json={"title": f"by {who}"})).status_code == status
        if status != 200:
            assert (await world.ask("DELETE", path, who)).status_code == status
    listed = (await world.ask("GET", "/v1/conversations", "user key")).json()["data"]
    assert [each["title"] for each in listed if each["id"] == world.conversations["ada"]] == ["by cookie"]
    assert (await world.ask("DELETE", path, "bound secret")).status_code == 200
    assert (await world.ask("DELETE", path, "user key")).status_code == 404


async def test_every_credential_on_the_websocket(world: World) -> None:
    own = public_id("conv", parse_public_id("conv", world.conversations["ada"]))
    others = world.conversations["eve"]
    unknown, not_found = public_id("conv", uuid4()), ("conversation_not_found", 1008)
    expected: dict[tuple[str, str, bool], Any] = {}
    for by_header in (True, False):
        for who in BAD:
            code = "missing_api_key" if who in ("nobody", *BROWSERS) else "invalid_api_key"
            expected |= {(who, query, by_header): 401 if by_header else (code, 3000) for query in ("", "?user=eve")}
        expected |= {(READER, query, by_header): 403 for query in ("", "?user=eve")}
        for who, user in GOOD.items():
            names = who in ("service", "admin")
            expected[who, "", by_header] = user
            expected[who, "?user=eve", by_header] = "eve" if names else user
            expected[who, f"?user=ada&conversation={own}", by_header] = ADA if names or user == ADA else not_found
            expected[who, f"?user=eve&conversation={others}", by_header] = EVE if names or user == EVE else not_found
            expected[who, f"?conversation={unknown}", by_header] = not_found
    found: dict[tuple[str, str, bool], Any] = {}

    async def begin(who: str, query: str, by_header: bool) -> None:
        found[who, query, by_header] = await world.begin(who, query, by_header=by_header)

    async with trio.open_nursery() as nursery:
        for case in expected:
            nursery.start_soon(begin, *case)
    assert found == expected


# The result of each event that names one of Ada's objects: the code of the error, or the type of the reply.
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "session.update": ({"session": {"type": "realtime"}}, "session.updated"),
    "conversation.item.create": (
        {
            "previous_item_id": "ITEM",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "behind yours"}]},
        },
        "item_create_invalid_previous_item_id",
    ),
    "conversation.item.retrieve": ({"item_id": "ITEM"}, "item_retrieve_invalid_item_id"),
    "conversation.item.truncate": (
        {"item_id": "ITEM", "content_index": 0, "audio_end_ms": 0},
        "item_truncate_invalid_item_id",
    ),
    "conversation.item.delete": ({"item_id": "ITEM"}, "item_delete_invalid_item_id"),
    "input_audio_buffer.clear": ({}, "input_audio_buffer.cleared"),
    "response.create": (
        {"response": {"conversation": "none", "input": [{"type": "item_reference", "id": "ITEM"}]}},
        "item_not_found",
    ),
    "response.cancel": ({"response_id": "resp_1"}, "response_cancel_not_active"),
}


def test_every_event_is_listed_among_those_that_can_name_foreign_objects() -> None:
    assert set(FOREIGN) == set(SUPPORTED_EVENTS)


@pytest.mark.parametrize("who", ["other user's key", "user key", "service", "secret", "token"])
async def test_no_event_reaches_an_item_of_another_conversation(world: World, who: str) -> None:
    """Also not one of the user's own: an item is named within its conversation."""
    of_ada = "SELECT item_id, deleted_at FROM messages WHERE user_id = 'ada'"
    [row] = await world.store.select(of_ada)
    async with world.socket(who, "") as ws:
        created = json.loads(await ws.get_message())
        await ws.get_message()
        for kind, (fields, expected) in FOREIGN.items():
            text = json.dumps({"type": kind, **fields}).replace("ITEM", row["item_id"])
            await ws.send_message(text)
            answer = json.loads(await ws.get_message())
            assert answer.get("error", {}).get("code", answer["type"]) == expected
            assert row["item_id"] not in json.dumps(answer.get("session", {}))
        assert created["session"]["conversation_id"] not in world.conversations.values()
    assert list(await world.store.select(of_ada)) == [row]


async def test_a_user_sees_nobody_elses_memory(world: World) -> None:
    for who in ("user key", "secret", "bound secret", "token"):
        for way in ({"params": {"user": "eve"}}, {"headers": {"OpenAI-Safety-Identifier": "eve"}}):
            facts = (await world.ask("GET", "/v1/memories", who, **way)).json()["data"]
            assert facts
            assert "eve" not in json.dumps(facts)
    assert "eve" in (await world.ask("GET", "/v1/memories", "service", params={"user": "eve"})).text


async def test_a_memory_is_corrected_and_forgotten_by_its_own_user_only(world: World) -> None:
    async def known(who: str) -> list[dict[str, Any]]:
        return list((await world.ask("GET", "/v1/memories", who)).json()["data"])

    (of_ada, *_), (of_eve, *_) = await known("user key"), await known("other user's key")
    words = {"content": "The user is called Ada Lovelace."}
    for method, content in (("PATCH", {"json": words}), ("DELETE", {})):
        assert (await world.ask(method, f"/v1/memories/{of_eve['id']}", "user key", **content)).status_code == 404
        assert (await world.ask(method, f"/v1/memories/{of_ada['id']}", "garbage", **content)).status_code == 401
    assert (await known("other user's key"))[0] == of_eve
    edited = (await world.ask("PATCH", f"/v1/memories/{of_ada['id']}", "user key", json=words)).json()
    assert edited["content"] == words["content"]
    assert words["content"] in [each["content"] for each in await known("user key")]
    assert (await world.ask("DELETE", f"/v1/memories/{of_ada['id']}", "user key")).status_code == 200
    assert of_ada["id"] not in [each["id"] for each in await known("user key")]


async def test_a_user_sees_also_what_is_too_much_to_tell_the_agent(world: World) -> None:
    told = Settings().recall_memories_max
    many = "INSERT INTO user_memories (user_id, kind, content) SELECT 'ada', 'note', generate_series(1, $1::integer)"
    await world.store.select(many, told)
    assert len((await world.ask("GET", "/v1/memories", "user key")).json()["data"]) > told


async def test_what_a_message_brings_back_is_explained_to_its_own_user_only(world: World) -> None:
    async def explained(who: str, query: str, **params: str) -> tuple[bool, list[dict[str, Any]]]:
        answer = await world.ask("GET", "/v1/memories/recalled", who, params={"query": query, **params})
        assert answer.status_code == 200
        found = answer.json()
        return found["comes_back"], found["data"]

    indexed = "SELECT count(DISTINCT session_id) AS n FROM recall_passages"
    await eventually(lambda: world.store.select(indexed), lambda rows: rows[0]["n"] == 2)
    comes_back, (first, *_) = await explained("user key", "Is my name Ada, or what is my name?")
    assert comes_back
    assert (first["text"], first["who"], first["conversation_id"]) == (
        "My name is ada.",
        "user",
        world.conversations["ada"],
    )
    assert first["score"] > 0
    assert set(first["words"]) == {"name", "ada"}
    assert "eve" not in json.dumps(await explained("user key", "Is my name Eve?", user="eve"))
    assert (await explained("user key", "Thanks a lot!"))[0] is False
    for query in ("", "x" * 2001, "nul \0"):
        answer = await world.ask("GET", "/v1/memories/recalled", "user key", params={"query": query})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "query")


async def test_a_bound_secret_opens_its_conversation_also_where_none_is_asked_for(world: World) -> None:
    async with world.socket("bound secret") as ws:
        created = json.loads(await ws.get_message())
    assert created["session"]["conversation_id"] == world.conversations["ada"]


async def test_a_bound_secret_opens_no_other_conversation_of_its_own_user_either(world: World) -> None:
    async with world.socket("user key") as ws:
        other = json.loads(await ws.get_message())["session"]["conversation_id"]
    assert await world.begin("secret", f"?conversation={other}") == "ada"
    for by_header in (True, False):
        outcome = await world.begin("bound secret", f"?conversation={other}", by_header=by_header)
        assert outcome == ("conversation_not_found", 1008)


WISHES: list[tuple[str, Any, int, str | None]] = [
    ("user key", {"user": "eve"}, 403, "user"),
    ("user key", {"user": "ada"}, 200, None),
    ("service", {"user": "a\nb"}, 400, "user"),
    ("service", {"user": "ada", "conversation": "conv_x"}, 400, "conversation"),
    ("service", {"user": "ada", "conversation": str(uuid4())}, 404, "conversation"),
    ("service", {"user": "ada", "conversation": "eve's"}, 404, "conversation"),
    ("service", {"expires_after": {"anchor": "created_at", "seconds": 9}}, 400, "expires_after.seconds"),
    ("service", {"expires_after": {"anchor": "created_at", "seconds": 7201}}, 400, "expires_after.seconds"),
    ("service", {"expires_after": {"anchor": "tomorrow", "seconds": 60}}, 400, None),
    ("service", {"session": {"type": "transcription"}}, 400, "session.type"),
    ("service", {"session": {"type": "realtime", "tools": 7}}, 400, "session.tools"),
    ("service", {"session": {"type": "realtime", "tool_choice": "sometimes"}}, 400, "session.tool_choice"),
    ("service", {"session": {"type": "realtime", "prompt": {"id": "pmpt_1"}}}, 400, "session.prompt"),
    ("service", {"session": {"type": "realtime", "temperature": 1}}, 400, "session.temperature"),
    ("service", {"session": 5}, 400, "session"),
    ("service", {"usr": "ada"}, 400, "usr"),
    ("service", {"expires_after": {"minutes": 5}}, 400, "expires_after.minutes"),
    ("service", {"session": {"type": "realtime", "audio": {"output": {"voice": "ash"}}}}, 200, None),
    ("service", {"session": {"instructions": "x" * 70_000}}, 400, "session"),
    ("service", [], 400, None),
]


async def test_a_client_secret_is_made_only_as_it_may_be(world: World) -> None:
    for maker, wish, status, param in WISHES:
        body = wish
        if isinstance(wish, dict) and wish.get("conversation") == "eve's":
            body = {**wish, "conversation": world.conversations["eve"]}
        answer = await world.ask("POST", "/v1/realtime/client_secrets", maker, json=body)
        assert answer.status_code == status, (wish, answer.text)
        if status != 200:
            assert answer.json()["error"]["param"] == param, wish


async def test_a_client_secret_begins_with_its_session_and_expires_when_it_says(world: World) -> None:
    session = {"type": "realtime", "instructions": "Speak like a pirate.", "max_output_tokens": 99}
    session |= {"output_modalities": ["audio"], "audio": {"output": {"voice": "ash"}}}  # of no effect
    body = {"session": session, "expires_after": {"anchor": "created_at", "seconds": 60}, "user": "ada"}
    answer = (await world.ask("POST", "/v1/realtime/client_secrets", "service", json=body)).json()
    assert answer["value"].startswith("ek_")
    assert abs(answer["expires_at"] - time.time() - 60) < 5
    assert answer["session"]["instructions"] == "Speak like a pirate."
    assert (answer["session"]["output_modalities"], answer["session"].get("audio")) == (["text"], None)
    half = rb'{"session": {"type": "realtime", "instructions": "half \ud83d"}}'
    cut = (await world.ask("POST", "/v1/realtime/client_secrets", "service", content=half)).json()
    assert cut["session"]["instructions"] == "half \ufffd", "as in the events of a WebSocket"
    world.tokens["pirate"] = answer["value"]
    async with world.socket("pirate", by_header=False) as ws:
        assert ws.subprotocol == "realtime"
        created = json.loads(await ws.get_message())["session"]
    assert created["instructions"].startswith("Speak like a pirate.")
    assert created["max_output_tokens"] == 99


async def test_the_official_client_creates_a_client_secret_that_browsers_can_use(world: World) -> None:
    conversation = world.conversations["ada"]

    def make() -> Any:
        client = OpenAI(base_url=f"{world.server.url}/v1", api_key=str(world.tokens["service"]))
        return client.realtime.client_secrets.create(
            session={"type": "realtime", "instructions": "Be brief."},
            expires_after={"anchor": "created_at", "seconds": 60},
            extra_body={"user": "ada", "conversation": conversation},
        )

    made = await trio.to_thread.run_sync(make)
    strict = TypeAdapter(ClientSecretCreateResponse).validate_python(made.model_dump(exclude_unset=True), strict=True)
    assert strict.session.type == "realtime"

    def use() -> Any:
        with OpenAI(base_url=f"{world.server.url}/v1", api_key=made.value).realtime.connect(model="x") as connection:
            return connection.recv().to_dict()

    created = await trio.to_thread.run_sync(use)
    assert created["session"]["conversation_id"] == conversation
    assert created["session"]["instructions"].startswith("Be brief.")


async def test_the_official_client_learns_of_a_bad_key_before_it_is_connected(world: World) -> None:
    def connect_badly() -> int:
        client = OpenAI(base_url=f"{world.server.url}/v1", api_key=str(world.tokens["wrong key"]))
        with pytest.raises(InvalidStatus) as refused, client.realtime.connect(model="x"):
            pass
        return refused.value.response.status_code

    assert await trio.to_thread.run_sync(connect_badly) == 401


# --- revoking ---------------------------------------------------------------------------------------------------------


async def sql(world: World, text: str, who: str) -> None:
    await world.store.select(text, world.ids[who])


Deed = Callable[[World], Any]
DEEDS: dict[str, tuple[str, Deed]] = {
    "keys revoke": ("user key", lambda world: key_admin.revoke(world.store, world.ids["user key"], OPERATOR)),
    "keys revoke of a secret": ("secret", lambda world: key_admin.revoke(world.store, world.ids["secret"], OPERATOR)),
    "the key behind a secret": ("secret", lambda world: key_admin.revoke(world.store, world.ids["service"], OPERATOR)),
    "UPDATE by hand": (
        "user key",
        lambda world: sql(world, "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1", "user key"),
    ),
    "UPDATE of all keys": (
        "bound secret",
        lambda world: sql(world, "UPDATE api_keys SET revoked_at = now() WHERE $1::uuid IS NOT NULL", "service"),
    ),
    "DELETE by hand": ("user key", lambda world: sql(world, "DELETE FROM api_keys WHERE key_id = $1", "user key")),
    "DELETE of the key behind a secret": (
        "secret",
        lambda world: sql(world, "DELETE FROM api_keys WHERE key_id = $1", "service"),
    ),
    "DELETE of a secret": (
        "secret",
        lambda world: sql(world, "DELETE FROM client_secrets WHERE secret_id = $1", "secret"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEDS)
async def test_revoking_closes_only_its_live_sockets_within_a_second_everywhere(world: World, name: str) -> None:
    who, deed = DEEDS[name]
    async with open_server(world.store) as second, trio.open_nursery() as nursery:
        first_server, codes = world.server, []

        async def hold(server: TestServer, ready: trio.Event) -> None:
            async with World(server, world.store, world.tokens).socket(who) as ws:
                await ws.get_message()
                ready.set()
                codes.append(await closed(ws))

        readies = [trio.Event(), trio.Event()]
        for server, ready in zip((first_server, second), readies, strict=True):
            nursery.start_soon(hold, server, ready)
        for ready in readies:
            await ready.wait()
        async with world.socket("other user's key") as bystander:
            await bystander.get_message()
            began = trio.current_time()
            await deed(world)
            while len(codes) < 2:
                await trio.sleep(0.005)
                assert trio.current_time() - began < REVOKED_SECONDS
            assert codes == [4001, 4001]
            if name != "UPDATE of all keys":
                await bystander.ping()
    rows = await world.store.select(
        "SELECT end_reason FROM conversation_sessions WHERE user_id = 'ada' AND credential_id = $1",
        world.ids[who],
    )
    assert [row["end_reason"] for row in rows] == ["revoked", "revoked"]
    assert await world.begin(who) == 401


# --- the first key ----------------------------------------------------------------------------------------------------


async def test_the_first_key_closes_an_open_server_while_it_runs(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None, "unused": "sk-unused"})
        assert await world.begin("nobody", "?user=ada") == "ada"
        assert await world.begin("unused", headers={"OpenAI-Safety-Identifier": "bob"}) == "bob"
        assert (await world.ask("GET", "/metrics", "nobody")).status_code == 200
        await world.secret("made without keys", "nobody", user="ada")
        assert await world.begin("made without keys", "?user=eve") == "ada"
        await world.key("admin", "operator", Scope.ADMIN)

        async def refused() -> Any:
            return await world.begin("nobody")

        await eventually(refused, lambda outcome: outcome == 401, within=2.0)
        for who in ("unused", "made without keys"):
            assert await world.begin(who) == 401
        assert (await world.ask("GET", "/metrics", "nobody")).status_code == 401
        assert (await world.ask("GET", "/metrics", "admin")).status_code == 200
        await key_admin.revoke(postgres_store, world.ids["admin"], OPERATOR)
        await trio.sleep(1.1)  # longer than a look is believed
        assert await world.begin("nobody") == 401  # revoking the last key opens nothing


async def test_the_first_key_counts_at_once_for_whoever_shows_it(postgres_store: PostgresStore) -> None:
    """While the server still believes that it is open, and would take any name."""
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None})
        assert await world.begin("nobody", "?user=bob") == "bob"
        await world.key("new", "ada", Scope.USER)
        assert await world.begin("new", "?user=bob") == "ada"


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1:8000"])
async def test_without_keys_a_name_that_was_made_to_point_here_gets_nothing(
    postgres_store: PostgresStore, host: str
) -> None:
    async with open_server(postgres_store) as server:
        world = World(server, postgres_store, {"nobody": None})
        answer = await world.ask("GET", "/v1/memories", "nobody", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_host")


async def test_a_foreign_page_gets_403_and_a_listed_one_may_connect(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, allow_origin=("https://chat.example",)) as server:
        world = World(server, postgres_store, {"nobody": None})
        foreign, listed = {"origin": "https://evil.example"}, {"origin": "https://chat.example"}
        assert await world.begin("nobody", headers=foreign) == 403
        assert await world.begin("nobody", headers=foreign, by_header=False) == 403
        assert await world.begin("nobody", headers=listed, by_header=False) == "anonymous"
        assert (await world.ask("GET", "/v1/memories", "nobody", headers=foreign)).status_code == 403
        answer = await world.ask("GET", "/v1/memories", "nobody", headers=listed)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        methods = {method for route in ROUTES if isinstance(route, Route) for method in route.methods or ()}
        for method in methods - {"HEAD"}:
            asked = {**listed, "access-control-request-method": method}
            assert (await world.ask("OPTIONS", "/v1/memories/mem_1", "nobody", headers=asked)).status_code == 200


async def test_sessions_from_before_the_first_key_go_on(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store) as server, connect(server.url, user="ada") as client:
        await key_admin.create_key(postgres_store, "ada", Scope.USER, OPERATOR)
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def test_no_secret_is_in_what_a_server_logs_or_shows(
    database_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything that a server writes at its most talkative, while it is shown good and bad credentials in each way."""
    secrets: list[str] = []
    jwt_file = tmp_path / "secret"
    jwt_file.write_text(SECRET)
    arguments = ("--database-url", database_url, "--agent", "echo", "--log-level", "debug")

    async def visit(server: Any) -> None:
        async with open_store(database_url) as store:
            world = World(server, store, {"token": token(), "bad token": token(exp=1), "bad key": "sk-" + "b" * 43})
            world.tokens["nobody"] = None
            await world.key("service", "backend", Scope.SERVICE)
            await world.secret("secret", user="ada")
            for who in list(world.tokens):
                for by_header in (True, False):
                    await world.begin(who, by_header=by_header)
                await world.ask("GET", "/v1/memories", who)
                await world.ask("GET", f"/nothing/{who}", who)
                await world.ask("POST", "/v1/realtime/client_secrets", who, content=b"{")
                await world.begin(who, "?call_id=1")
                await world.begin("nobody", f"?api-key={world.tokens[who]}", path="/openai/v1/realtime")
                await world.ask("GET", "/v1/memories", "nobody", headers={"api-key": str(world.tokens[who])})
            await key_admin.revoke(store, world.ids["service"], OPERATOR)
            secrets.extend(value for value in world.tokens.values() if value is not None)

    async def clear() -> None:
        async with open_store(database_url) as store:
            await empty(store)

    trio.run(clear)
    with run_server(*arguments, "--jwt-secret-file", str(jwt_file), "--jwt-audience", AUDIENCE) as server:
        processes = [path.read_bytes() for path in Path("/proc").glob(f"{server.process.pid}/cmdline")]
        trio.run(visit, server)
        server.stop()
        while event := server._events.get(timeout=DONE_SECONDS):
            server.log.append(event)
    written = json.dumps(server.log) + "".join(capfd.readouterr()) + str(processes)
    assert len(server.log) > 10
    assert "session_ended" in written
    assert len(secrets) == 5
    for secret in (*secrets, SECRET):
        assert secret not in written
        assert secret[12:] not in written
