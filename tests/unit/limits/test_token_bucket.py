"""The rate limiter, in virtual time."""

from __future__ import annotations

import pytest
import trio
from lastcall.limits.token_bucket import TokenBucket
from trio.testing import MockClock


async def test_a_bucket_gives_its_burst_at_once_and_then_its_rate(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(2.0, 5)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    assert bucket.seconds_until(1.0) == pytest.approx(0.5)
    await trio.sleep(0.5)
    assert [bucket.take() for _ in range(2)] == [True, False]
    await trio.sleep(1_000)
    assert bucket.full
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]


async def test_what_costs_more_than_a_burst_takes_the_whole_one(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(1.0, 3)
    assert bucket.take(100.0)
    assert not bucket.take(100.0)
    await trio.sleep(bucket.seconds_until(100.0))
    assert bucket.take(100.0)
