"""The estimate of the database's clock: what an answer teaches it, and that a wrong one costs a try, never a date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import trio
from lastcall.metrics import Metrics
from lastcall.store.clock import DatabaseClock
from lastcall.store.errors import StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.batch import FRESH_SECONDS, BatchStatement
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from trio.testing import MockClock

from .world import end, item, registered

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_nothing_is_known_before_the_first_answer() -> None:
    assert DatabaseClock().at(5.0) is None


@pytest.mark.parametrize("step", [-0.3, 0.3, 3600.0])
def test_an_answer_that_contradicts_the_estimate_counts(step: float) -> None:
    """Even if it was slower: the clock of the database was set."""
    clock = DatabaseClock()
    clock.observe(10.0, 10.02, NOON)
    clock.observe(12.0, 12.4, after(2.2 + step))
    assert clock.at(12.2) == after(2.2 + step)


def test_an_estimate_is_doubtful_until_it_was_asked_for_and_once_it_was_contradicted() -> None:
    clock = DatabaseClock()
    assert clock.doubtful
    clock.doubtful = False
    clock.observe(10.0, 10.02, NOON)
    clock.observe(11.0, 11.2, after(1.0))
    assert not clock.doubtful
    clock.observe(12.0, 12.4, after(3600.0))
    assert clock.doubtful


def test_an_answer_that_only_came_late_changes_nothing() -> None:
    clock = DatabaseClock()
    clock.observe(10.0, 10.02, NOON)
    for at in (2.05, 5.9):  # read long after it was given; given long after it was asked for
        clock.observe(12.0, 16.0, after(at))
    assert clock.at(12.01) == after(2.0)


def test_an_answer_dates_the_middle_of_its_way() -> None:
    clock = DatabaseClock()
    clock.observe(10.0, 10.5, NOON)
    assert clock.at(12.25) == after(2.0)


def test_a_faster_answer_counts_at_once() -> None:
    """A slower one counts once the last has aged."""
    clock = DatabaseClock()
    clock.observe(10.0, 10.2, NOON)
    clock.observe(11.0, 11.02, after(1.0))
    assert clock.at(11.01) == after(1.0)
    clock.observe(12.0, 12.2, after(2.2))  # a tenth of a second may be wrong with it
    assert clock.at(12.01) == after(2.0)
    clock.observe(200.0, 200.2, after(190.3))
    assert clock.at(200.1) == after(190.3)


@pytest.mark.parametrize(("seconds", "asked"), [((0.01, 9.0), 1), ((0.3, 0.01, 9.0), 2), ((0.3, 0.25, 0.2, 9.0), 3)])
async def test_a_first_answer_that_took_long_is_asked_for_again_but_not_for_ever(
    seconds: tuple[float, ...], asked: int, autojump_clock: MockClock
) -> None:
    class Connection:
        """All of the time goes by after the answer was given: the worst case."""

        answers = 0

        async def fetchval(self, _sql: str) -> datetime:
            at = after(trio.current_time())
            await trio.sleep(seconds[self.answers])
            self.answers += 1
            return at

    connection = Connection()
    store = PostgresStore(cast("Any", None), cast("Any", None), cast("Any", None), Metrics())
    await store._read_clock(connection)

    assert connection.answers == asked
    known = store._clock.at(trio.current_time())
    assert known is not None
    assert 0.0 <= (after(trio.current_time()) - known).total_seconds() == pytest.approx(min(seconds) / 2)


@pytest.mark.parametrize("wrong_by", [-2 * FRESH_SECONDS, 2 * FRESH_SECONDS])
async def test_a_wrong_estimate_costs_a_try_and_dates_nothing_wrong(
    postgres_store: PostgresStore, wrong_by: float
) -> None:
    world = await registered(postgres_store)
    start = await world.begin(age=10.0)
    now = trio.current_time()
    at = postgres_store._clock.at(now)
    assert at is not None
    postgres_store._clock.observe(now, now, at + timedelta(seconds=wrong_by))
    assert postgres_store._clock.at(now) == at + timedelta(seconds=wrong_by)
    ended = end(start)
    assert await world.store.end_session(ended) is True
    row = await world.session(start.session_id)
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.ended_at - row.session_end == pytest.approx(trio.current_time() - ended.ended, abs=FRESH_SECONDS / 2)


async def test_an_estimate_that_was_contradicted_by_a_slow_answer_dates_nothing(postgres_store: PostgresStore) -> None:
    """After an outage in which the clock was set: the first answer takes long, and may be wrong by half of that."""
    world = await registered(postgres_store)
    start = await world.begin(age=10.0)
    now = trio.current_time()
    at = postgres_store._clock.at(now)
    assert at is not None
    postgres_store._clock.observe(now, now, at - timedelta(hours=1))  # the clock before it was set
    slow = 0.6 * FRESH_SECONDS
    postgres_store._clock.observe(now - 2 * slow, now, at - 2 * timedelta(seconds=slow))  # given at once, read late
    known = postgres_store._clock.at(now)
    assert known is not None
    assert (at - known).total_seconds() == pytest.approx(slow)
    ended = end(start)
    assert await world.store.end_session(ended) is True
    row = await world.session(start.session_id)
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.ended_at - row.session_end < slow / 2 + trio.current_time() - ended.ended


@pytest.mark.parametrize("late_by", [-2 * FRESH_SECONDS, 2 * FRESH_SECONDS])
async def test_a_batch_that_was_sent_at_another_time_than_it_says_stores_nothing(
    postgres_store: PostgresStore, late_by: float
) -> None:
    world = await registered(postgres_store)
    start = await world.begin()
    stored = item(start)

    async def send_late() -> None:
        async with postgres_store._connections.one() as connection:
            at = await connection.fetchval("SELECT clock_timestamp()")
            batch = BatchStatement([(stored,), end(start)])
            await batch.run(connection, trio.current_time(), at - timedelta(seconds=late_by))

    with pytest.raises(StoreUnavailable):
        await bounded_call(postgres_store._loop, CALL_SECONDS, send_late)
    assert (await world.session(start.session_id)).is_active
    assert await world.items(start.conversation_id) == []
