"""Quotas of keys, client secrets and users with tokens, over real sockets and with the gate alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from lastcall.auth.identity import Principal, Scope
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.limits.limit import USER_CONNECTIONS, Limit
from lastcall.limits.quota import Caller, Refusal
from lastcall.metrics import Metrics
from lastcall.store.postgres import PostgresStore
from trio.testing import MockClock

from tests.support.authorization import AUDIENCE, SECRET, World, token
from tests.support.refusals import answer_to, refusals, sessions
from tests.support.servers import empty, open_server
from tests.support.waiting import eventually

KEY, OTHER_KEY, SECRET_ID = uuid4(), uuid4(), uuid4()


@pytest.fixture
async def store(postgres_store: PostgresStore) -> AsyncIterator[PostgresStore]:
    await empty(postgres_store)
    yield postgres_store
    await empty(postgres_store)


def handshake(key: str | None) -> bytes:
    return (
        "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()


async def test_a_key_with_too_many_sessions_gets_429_and_another_key_does_not(
    store: PostgresStore,
) -> None:
    async with open_server(store, key_connections_max=2) as server, AsyncExitStack() as stack:
        world = World(server, store)
        await world.key("service", "backend", Scope.SERVICE)
        await world.key("other", "bob", Scope.USER)
        await world.secret("secret", user="ada")
        await stack.enter_async_context(world.socket("service", "?user=ada"))
        await stack.enter_async_context(world.socket("secret"))
        await eventually(lambda: sessions(store), lambda count: count == 2)
        status, headers, error = await answer_to(server.url, handshake(world.tokens["service"]))
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        assert "key" in error["message"]
        assert int(headers["retry-after"]) >= 1
        assert await world.begin("secret", by_header=False) == 429, "its secrets' sessions are the key's"
        assert await world.begin("other") == "bob"
        assert await sessions(store) == 3


async def test_a_key_gets_its_quota_back_with_the_end_of_each_session(store: PostgresStore) -> None:
    async with open_server(store, key_connections_max=1) as server:
        world = World(server, store)
        await world.key("ada", "ada", Scope.USER)
        for _ in range(3):
            assert await eventually(lambda: world.begin("ada"), lambda outcome: outcome == "ada")


async def test_a_key_that_connects_too_often_gets_429(store: PostgresStore) -> None:
    async with open_server(store, key_connections_per_second=0.1) as server:
        world = World(server, store)
        await world.key("ada", "ada", Scope.USER)
        assert await world.begin("ada") == "ada"
        status, headers, _ = await answer_to(server.url, handshake(world.tokens["ada"]))
        assert (status, 1 <= int(headers["retry-after"]) <= 10) == (429, True)


async def test_a_user_has_one_quota_for_all_tokens(store: PostgresStore, tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    settings: dict[str, Any] = {"jwt_secret_file": secret_file, "jwt_audience": AUDIENCE, "key_connections_max": 1}
    async with open_server(store, **settings) as server:
        world = World(server, store)
        world.tokens |= {"one": token(), "two": token(iat=time.time() - 60), "bob": token(sub="bob")}
        async with world.socket("one") as ws:
            await ws.get_message()
            assert await world.begin("two") == 429
            assert await world.begin("bob") == "bob"


async def test_guessing_keys_ends_at_the_addresses_limit_before_the_database(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[bytes] = []
    find = PostgresStore.find_credential

    async def noted(self: PostgresStore, secret_hash: bytes) -> Any:
        looked_up.append(secret_hash)
        return await find(self, secret_hash)

    monkeypatch.setattr(PostgresStore, "find_credential", noted)
    rates: dict[str, Any] = {"address_connections_per_second": 0.3, "address_requests_per_second": 0.3}
    async with open_server(store, **rates) as server:
        await World(server, store).key("ada", "ada", Scope.USER)
        guesses = [handshake(f"sk-lastcall-{number:064}") for number in range(20)]
        statuses = [(await answer_to(server.url, guess))[0] for guess in guesses]
    assert statuses == [401] * 3 + [429] * 17
    assert len(looked_up) <= 3


# --- the gate alone


def gate(**changes: Any) -> tuple[Gate, Metrics]:
    metrics = Metrics(Limit)
    return Gate(replace(Settings(), **changes), metrics.count_refusal), metrics


def principal(scope: Scope, user: str = "ada", **ids: Any) -> Principal:
    return Principal(user_id=user, scope=scope, **ids)


def let_in(doors: Gate, principals: Sequence[Principal]) -> list[bool]:
    """Which of them have a share, all open at once."""
    entered = [doors.enter_credential(each) for each in principals]
    for each in entered:
        if isinstance(each, Caller):
            each.leave()
    return [not isinstance(each, Refusal) for each in entered]


@pytest.mark.parametrize(
    ("principals", "allowed"),
    [
        ([principal(Scope.USER, key_id=KEY, credential_id=KEY)] * 2, [True, False]),
        (
            [
                principal(Scope.SERVICE, key_id=KEY, credential_id=KEY),
                principal(Scope.CLIENT, "bob", key_id=KEY, credential_id=SECRET_ID),
                principal(Scope.SERVICE, "bob", key_id=OTHER_KEY, credential_id=OTHER_KEY),
            ],
            [True, False, True],
        ),
        ([principal(Scope.USER), principal(Scope.USER, "bob"), principal(Scope.USER)], [True, True, False]),
        ([principal(Scope.OPEN)] * 3, [True] * 3),
        ([principal(Scope.CLIENT, credential_id=SECRET_ID)] * 3, [True] * 3),
        (
            [principal(Scope.USER, str(KEY)), principal(Scope.USER, key_id=KEY, credential_id=KEY)],
            [True, True],
        ),
    ],
    ids=["a key", "its secrets", "users of tokens", "open access", "its secrets too", "a user called like a key"],
)
async def test_quotas_are_counted_by_key_or_user(principals: list[Principal], allowed: list[bool]) -> None:
    doors, metrics = gate(key_connections_max=1)
    assert let_in(doors, principals) == allowed
    assert refusals(metrics, Limit.KEY_CONNECTIONS) == allowed.count(False)
    assert let_in(doors, principals) == allowed, "all were given back"


async def test_by_default_a_key_is_not_limited_and_a_tokens_user_is(autojump_clock: MockClock) -> None:
    doors, metrics = gate()
    assert all(let_in(doors, [principal(Scope.SERVICE, key_id=KEY, credential_id=KEY)] * 1_000))
    assert let_in(doors, [principal(Scope.USER)] * 201).count(False) == 1
    assert refusals(metrics, Limit.KEY_RATE) == 1
    for _ in range(2):
        await trio.sleep(10)
        for _ in range(USER_CONNECTIONS // 2):
            assert isinstance(doors.enter_credential(principal(Scope.USER)), Caller)
    refused = doors.enter_credential(principal(Scope.USER))
    assert isinstance(refused, Refusal)
    assert refused.limit is Limit.KEY_CONNECTIONS
