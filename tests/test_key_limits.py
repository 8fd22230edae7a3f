"""Shares of keys, of their client secrets, and of tokens' users, as the gate counts them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from server.config import Settings
from server.gate import USER_CONNECTIONS, Gate
from server.identity import Principal, Scope
from server.limits import Limit
from server.metrics import Metrics

from .test_limits import refusals

KEY, OTHER_KEY, SECRET_ID = uuid4(), uuid4(), uuid4()


def gate(**changes: Any) -> tuple[Gate, Metrics]:
    metrics = Metrics()
    return Gate(replace(Settings(), **changes), metrics), metrics


def principal(scope: Scope, user: str = "ada", **ids: Any) -> Principal:
    return Principal(user_id=user, scope=scope, **ids)


def let_in(doors: Gate, principals: Sequence[Principal]) -> list[bool]:
    """Which of them have a share, all open at once."""
    with ExitStack() as stack:
        return [stack.enter_context(doors.holder(each)) is None for each in principals]


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
async def test_what_a_share_is_counted_by(principals: list[Principal], allowed: list[bool]) -> None:
    doors, metrics = gate(key_connections_max=1)
    assert let_in(doors, principals) == allowed
    assert refusals(metrics, Limit.KEY_CONNECTIONS) == allowed.count(False)
    assert let_in(doors, principals) == allowed, "all were given back"


async def test_by_default_a_key_is_not_limited_and_a_tokens_user_is(autojump_clock: MockClock) -> None:
    doors, metrics = gate()
    assert all(let_in(doors, [principal(Scope.SERVICE, key_id=KEY, credential_id=KEY)] * 1_000))
    assert let_in(doors, [principal(Scope.USER)] * 201).count(False) == 1
    assert refusals(metrics, Limit.KEY_RATE) == 1
    with ExitStack() as stack:
        for _ in range(2):
            await trio.sleep(10)
            for _ in range(USER_CONNECTIONS // 2):
                assert stack.enter_context(doors.holder(principal(Scope.USER))) is None
        refused = stack.enter_context(doors.holder(principal(Scope.USER)))
    assert refused is not None
    assert refused.limit is Limit.KEY_CONNECTIONS
