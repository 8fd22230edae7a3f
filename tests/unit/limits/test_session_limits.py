"""The limits of one session, over its socket and in virtual time."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from lastcall.agents.agent import Turn
from lastcall.agents.echo import EchoAgent
from lastcall.auth.secret import new_client_secret, new_key
from lastcall.limits.limit import EVENT_BURST_SECONDS, Limit
from lastcall.store.credentials import Credential
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.support.authorization import AUDIENCE, SECRET, token
from tests.support.fake_store import FakeStore
from tests.support.refusals import refusals
from tests.support.scripted_agents import ScriptedAgent
from tests.support.virtual_server import Peer, World


async def rude_events(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Sends events at once; what is answered."""
    for number in range(count):
        await peer.send(type="session.update", event_id=f"e{number}", session={})
    return [json.loads(await peer.ws.get_message()) for _ in range(count)]


async def test_a_client_beyond_its_rate_gets_an_error_per_event_and_may_go_on(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    burst = int(2 * EVENT_BURST_SECONDS)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        answers = await rude_events(peer, burst + 2)
        errors = [event["error"] for event in answers if event["type"] == "error"]
        assert [(error["code"], error["event_id"]) for error in errors] == [
            ("rate_limit_exceeded", f"e{burst}"),
            ("rate_limit_exceeded", f"e{burst + 1}"),
        ]
        await trio.sleep(burst)
        await peer.say("Hello")
    assert refusals(world.services.metrics, Limit.EVENT_RATE) == 2


async def test_a_client_that_never_stops_flooding_is_closed(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        with suppress(ConnectionClosed):
            for number in range(100):
                await peer.send(type="session.update", event_id=f"e{number}", session={})
        assert await peer.closed() == 1008
        assert peer.last_words.count("error") == 2 * EVENT_BURST_SECONDS
        await world.over.wait()
    assert world.row.end_reason == "flooding"
    assert len(world.services.registry) == 0


async def test_a_client_that_pauses_between_its_bursts_is_not_flooding(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=2.0)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        for _ in range(5):
            await rude_events(peer, int(3 * EVENT_BURST_SECONDS))
            await trio.sleep(EVENT_BURST_SECONDS)
        assert world.row.is_active


async def test_a_response_begins_with_the_rest_of_the_rate(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), events_per_second=1.0)
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        await peer.receive("response.created")
        limits = json.loads(await peer.ws.get_message())
    assert limits["type"] == "rate_limits.updated"
    assert limits["rate_limits"] == [{"name": "requests", "limit": 2, "remaining": 0, "reset_seconds": 2.0}]


async def test_a_session_ends_at_its_expires_at(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), session_seconds=600.0)
    async with world.connected() as peer:
        began = trio.current_time()
        created = await peer.receive("session.created")
        assert isinstance(created["session"]["expires_at"], int)
        error = (await peer.receive("error"))["error"]
        assert (error["code"], error["event_id"]) == ("session_expired", None)
        assert trio.current_time() - began == pytest.approx(600.0)
        assert await peer.closed() == 1001
        await world.over.wait()
    assert (world.row.end_reason, world.row.close_code) == ("expired", 1001)
    assert refusals(world.services.metrics, Limit.SESSION_TIME) == 1


async def test_an_idle_session_is_closed_where_that_is_configured(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), idle_seconds=60.0)
    async with world.connected() as peer:
        await peer.receive("session.created")
        for _ in range(5):
            await trio.sleep(50)
            await peer.say("Still here")
        spoke = trio.current_time()
        assert (await peer.receive("error"))["error"]["code"] == "session_idle"
        assert trio.current_time() - spoke == pytest.approx(60.0)
        assert await peer.closed() == 1001
        await world.over.wait()
    assert world.row.end_reason == "idle"


async def test_an_answer_under_way_at_the_end_of_a_sessions_time_is_kept(autojump_clock: MockClock) -> None:
    class Endless(ScriptedAgent):
        async def reply(self, turn: Turn, /) -> Any:
            yield "Well … "
            await trio.sleep_forever()

    world = World(FakeStore(), Endless(), session_seconds=30.0)
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        assert await peer.closed() == 1001
        await world.over.wait()
    assert [item.status for item in world.store.items(world.row.conversation_id)] == ["completed", "incomplete"]


async def test_a_conversation_of_too_many_characters_takes_no_more(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), conversation_chars_max=100)
    async with world.connected() as peer:
        await peer.say("x" * 90)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 20}]}
        await peer.send(type="conversation.item.create", event_id="e", item=item)
        error = (await peer.receive("error"))["error"]
        assert (error["code"], error["event_id"]) == ("conversation_full", "e")
    assert refusals(world.services.metrics, Limit.ITEMS) == 1


async def test_json_beyond_the_bounds_is_rejected_before_it_is_parsed(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        wide = "[" + "[]," * 30_000 + "[]]"
        deep = "[" * 65 + "]" * 65
        for tracing in (wide, deep):
            await peer.ws.send_message('{"type":"session.update","event_id":"e","session":{"tracing":' + tracing + "}}")
            error = (await peer.receive("error"))["error"]
            assert (error["code"], error["event_id"]) == ("invalid_value", "e")
        await peer.say("Hello")
    assert refusals(world.services.metrics, Limit.JSON_SHAPE) == 2


class SlowStore(FakeStore):
    """Each append takes a second."""

    async def append_items(self, *args: Any, **kwargs: Any) -> None:
        await trio.sleep(1)
        await super().append_items(*args, **kwargs)


async def test_events_beyond_the_inbox_are_refused_with_their_event_ids(autojump_clock: MockClock) -> None:
    """Invalid ones too; what was refused before keeps its place among what is handled."""
    world = World(SlowStore(), EchoAgent(), inbox_events_max=2)
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
        await peer.send(type="conversation.item.create", event_id="first", item=item)
        for number in range(3):
            await peer.send(type="no.event" if number % 2 else "session.update", event_id=f"e{number}", session={})
        await peer.send(type="no.event", event_id="last")
        refused = [await peer.receive("error") for _ in range(2)]
        assert [(event["error"]["code"], event["error"]["event_id"]) for event in refused] == [
            ("too_many_events", "e2"),
            ("too_many_events", "last"),
        ]
        assert await peer.receive("session.updated")
        rejected = (await peer.receive("error"))["error"]
        assert (rejected["code"], rejected["event_id"]) == ("invalid_value", "e1")
    assert refusals(world.services.metrics, Limit.INBOX) == 2


# --- the end of a credential ------------------------------------------------------------------------------------------


def key_of(world: World, seconds: int | None) -> str:
    """A client secret that is valid for so long, or a key."""
    secret = new_key() if seconds is None else new_client_secret()
    credential = Credential(credential_id=uuid4(), key_id=uuid4(), user_id="ada", scope="user")
    if seconds is not None:
        credential = replace(credential, scope="client")
        world.store.create_key(replace(credential, credential_id=credential.key_id or uuid4(), scope="user"), b"")
    world.store.create_key(credential, secret.digest)
    if seconds is not None:
        world.store.credentials[credential.credential_id].expires_at = trio.current_time() + seconds
    return secret.value


@pytest.fixture
def jwt_settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "secret").write_text(SECRET)
    return {"jwt_secret_file": tmp_path / "secret", "jwt_audience": AUDIENCE}


async def ended_after(world: World, credential: str) -> tuple[float, str, int]:
    """How long a session of this credential lasted, and the error and the close code that its client was told."""
    async with world.connected(subprotocols=("realtime", f"openai-insecure-api-key.{credential}")) as peer:
        began = trio.current_time()
        await peer.receive("session.created")
        code = (await peer.receive("error"))["error"]["code"]
        lasted = trio.current_time() - began
        closed = await peer.closed()
        await world.over.wait()
    return lasted, code, closed


@pytest.mark.parametrize("kind", ["client secret", "token"])
async def test_a_session_ends_with_its_credential_where_that_is_set(
    kind: str, jwt_settings: dict[str, Any], autojump_clock: MockClock
) -> None:
    world = World(FakeStore(), EchoAgent(), end_with_credential=True, **jwt_settings)
    credential = token(exp=time.time() + 90) if kind == "token" else key_of(world, 90)
    lasted, code, closed = await ended_after(world, credential)
    assert lasted == pytest.approx(90.0, abs=2.0)
    assert (code, closed) == ("invalid_api_key", 3000)
    assert (world.row.end_reason, world.row.close_code) == ("expired", 3000)


@pytest.mark.parametrize("kind", ["client secret", "token", "key"])
async def test_a_session_outlives_its_credential_unless_that_is_set(
    kind: str, jwt_settings: dict[str, Any], autojump_clock: MockClock
) -> None:
    flag = kind == "key"  # a key does not expire: its revocation ends its sessions at any rate
    world = World(FakeStore(), EchoAgent(), end_with_credential=flag, session_seconds=600.0, **jwt_settings)
    credential = token(exp=time.time() + 90) if kind == "token" else key_of(world, None if kind == "key" else 90)
    lasted, code, closed = await ended_after(world, credential)
    assert lasted == pytest.approx(600.0)
    assert (code, closed) == ("session_expired", 1001)


async def test_a_credential_does_not_make_a_session_longer(
    jwt_settings: dict[str, Any], autojump_clock: MockClock
) -> None:
    world = World(FakeStore(), EchoAgent(), end_with_credential=True, session_seconds=60.0, **jwt_settings)
    lasted, code, closed = await ended_after(world, token(exp=time.time() + 600))
    assert lasted == pytest.approx(60.0)
    assert (code, closed) == ("session_expired", 1001)


async def test_a_clock_that_is_set_back_makes_no_session_longer(
    jwt_settings: dict[str, Any], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(FakeStore(), EchoAgent(), end_with_credential=True, **jwt_settings)
    credential = f"openai-insecure-api-key.{token(exp=time.time() + 600)}"
    async with world.connected(subprotocols=("realtime", credential)) as peer:
        began = trio.current_time()
        created = await peer.receive("session.created")
        assert created["session"]["expires_at"] == pytest.approx(time.time() + 600, abs=5)
        year_ago = time.time() - 365 * 86_400
        monkeypatch.setattr(time, "time", lambda: year_ago)
        assert (await peer.receive("error"))["error"]["code"] == "invalid_api_key"
        assert trio.current_time() - began == pytest.approx(600.0, abs=2.0)


async def test_a_busy_session_ends_with_its_credential_too(
    jwt_settings: dict[str, Any], autojump_clock: MockClock
) -> None:
    world = World(FakeStore(), EchoAgent(), end_with_credential=True, idle_seconds=50.0, **jwt_settings)
    credential = f"openai-insecure-api-key.{token(exp=time.time() + 100)}"
    async with world.connected(subprotocols=("realtime", credential)) as peer:
        await peer.receive("session.created")
        for _ in range(3):
            await trio.sleep(30)
            await peer.say("Still here")
        assert (await peer.receive("error"))["error"]["code"] == "invalid_api_key"
        assert await peer.closed() == 3000
