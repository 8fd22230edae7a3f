"""Deliveries are looked for only while there are endpoints."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio
from lastcall.metrics import Metrics
from lastcall.store.errors import StoreUnavailable
from lastcall.webhooks import watch
from lastcall.webhooks.deliverer import open_deliverer
from trio.testing import MockClock

DAY_SECONDS = 86_400.0
MOMENT_SECONDS = 0.001


class Database:
    """Counts what it is asked. there: whether it has an endpoint. away: it cannot be asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.there = self.away = False

    async def fetch(self, query: str, *_args: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.asked[query] += 1
        if self.away:
            raise StoreUnavailable("away")
        if query == "webhook_backlog":
            return [{"pending": 0, "failed": 0, "oldest_seconds": None}]
        return [{"there": self.there}] if query == "has_endpoints" else []


async def test_a_server_without_endpoints_asks_one_question_a_minute(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_deliverer(database, Metrics()):
        await trio.sleep(DAY_SECONDS)
    assert set(database.asked) == {"has_endpoints"}
    assert database.asked["has_endpoints"] <= DAY_SECONDS / watch.LOOK_SECONDS + 1


async def test_an_endpoint_is_worked_for_as_soon_as_it_is_told_of_and_no_longer_than_it_is_there(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with open_deliverer(database, Metrics()) as endpoints:
        await trio.sleep(watch.LOOK_SECONDS / 2)
        database.there = True
        endpoints.changed()
        await trio.sleep(MOMENT_SECONDS)
        assert database.asked["claim_deliveries"] == database.asked["webhook_backlog"] == 1
        await trio.sleep(watch.LOOK_SECONDS / 4)
        claims = database.asked["claim_deliveries"]
        assert claims > 10
        database.there = False
        endpoints.changed()
        await trio.sleep(DAY_SECONDS)
        assert database.asked["claim_deliveries"] == claims


async def test_an_endpoint_that_nobody_told_of_is_found_within_a_bound(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_deliverer(database, Metrics()):
        await trio.sleep(MOMENT_SECONDS)
        database.there = True
        await trio.sleep(watch.LOOK_SECONDS)
        assert database.asked["claim_deliveries"]


async def test_a_database_that_is_away_is_asked_again_soon(autojump_clock: MockClock) -> None:
    database = Database()
    database.away = True
    async with open_deliverer(database, Metrics()):
        await trio.sleep(10 * watch.RETRY_SECONDS)
        database.away, database.there = False, True
        await trio.sleep(watch.RETRY_SECONDS)
        assert database.asked["claim_deliveries"]
    assert database.asked["has_endpoints"] <= 14
