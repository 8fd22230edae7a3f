"""Quotas of callers, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from lastcall.limits.limit import Limit
from lastcall.limits.quota import CallerQuotas, Quota, caller_of, is_this_machine
from trio.testing import MockClock

AWAY = "203.0.113.7"


def table(callers_max: int = 100, **share: Any) -> CallerQuotas:
    return CallerQuotas(Quota(**share), Limit.ADDRESS_RATE, Limit.ADDRESS_CONNECTIONS, callers_max)


async def test_one_callers_flood_leaves_other_callers_quotas_untouched(autojump_clock: MockClock) -> None:
    callers = table(per_second=1.0, burst=3.0)
    assert [callers.take("flood") is None for _ in range(10)] == [True] * 3 + [False] * 7
    assert callers.take("other") is None
    refused = callers.take("flood")
    assert refused is not None
    assert refused.limit is Limit.ADDRESS_RATE
    assert refused.retry_after == pytest.approx(1.0)


async def test_a_caller_has_no_more_open_than_its_quota_and_gets_it_back() -> None:
    callers = table(at_once=1)
    with callers.held("a") as first, callers.held("a") as second, callers.held("b") as other:
        assert (first, other) == (None, None)
        assert second is not None
        assert second.limit is Limit.ADDRESS_CONNECTIONS
    with callers.held("a") as again:
        assert again is None


async def test_a_quota_is_given_back_where_the_block_raises() -> None:
    callers = table(at_once=1)
    with pytest.raises(ValueError, match="broken"), callers.held("a"):
        raise ValueError("broken")
    with callers.held("a") as again:
        assert again is None


async def test_a_flood_of_other_callers_gives_nobody_a_new_bucket(autojump_clock: MockClock) -> None:
    callers = table(callers_max=50, per_second=0.001, burst=1.0)
    assert callers.take("attacker") is None
    for number in range(1_000):
        callers.take(f"puppet {number}")
    assert len(callers) <= 50
    assert callers.take("attacker") is not None


async def test_callers_beyond_the_table_share_one_bucket(autojump_clock: MockClock) -> None:
    callers = table(callers_max=2, per_second=0.001, burst=1.0)
    assert [callers.take(name) is None for name in ("a", "b", "c", "d")] == [True, True, True, False]


async def test_idle_callers_are_forgotten(autojump_clock: MockClock) -> None:
    callers = table(per_second=1.0, burst=1.0)
    for number in range(80):
        callers.take(f"old {number}")
    await trio.sleep(10)
    with callers.held("kept"):
        for number in range(80):
            callers.take(f"new {number}")
        assert len(callers) <= 81
        await trio.sleep(10)
        for number in range(80):
            callers.take(f"newer {number}")
        assert len(callers) <= 82, "one more for whoever has something open"


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_a_caller_is_an_address_or_an_ipv6_network(address: str, caller: str) -> None:
    assert caller_of(address) == caller


def test_this_machines_own_addresses_are_known() -> None:
    assert [is_this_machine(caller_of(each)) for each in ("127.0.0.9", "::1", "::ffff:127.0.0.1", AWAY)] == [
        True,
        True,
        True,
        False,
    ]
