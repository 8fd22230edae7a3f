"""What answers took, summed up by day, user and key, and over time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from lastcall.store import reports
from lastcall.store.operators.charts import AnswerChartReport, read_answer_chart
from lastcall.store.operators.usage import UsageGroup, UsageSum, read_usage, responses_of
from lastcall.store.people.reports import export_user
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import bounded_call

from .world import PostgresWorld, key_of, registered, response

DAY = datetime(2026, 3, 10, tzinfo=UTC)
ONE = UUID(int=1)
DAY_SECONDS = 86_400.0
YEAR_SECONDS = 366 * DAY_SECONDS
FILL_SECONDS = 120.0
ANSWER_SECONDS = 0.2
PUT = """
    INSERT INTO agent_responses (user_id, session_id, response_id, key_id, started_at, first_at, ended_at, outcome,
                                 agent, input_tokens, output_tokens, cached_tokens)
    VALUES ($1, $2, gen_random_uuid(), $3, $4, $5, $6, $7, 'parrot', $8, $9, $10)
"""
# Three answers to each session, and rows in the order of their ends.
FILL = """
    SET statement_timeout = 0;
    SET session_replication_role = replica;
    INSERT INTO agent_responses (user_id, session_id, response_id, started_at, first_at, ended_at, outcome, reason,
                                 agent, model, input_tokens, output_tokens, cached_tokens)
        SELECT 'user-' || n % 1000, md5((n / 3)::text)::uuid, gen_random_uuid(), ended - interval '3 s',
               ended - interval '2 s', ended, (ARRAY['completed', 'completed', 'failed', 'cancelled'])[1 + n % 4],
               NULL, 'openai gray at 127.0.0.1', 'gray', 300, 40, 100
          FROM (SELECT n, now() - interval '1 year' * (1 - n::float8 / {answers}) - interval '1 s' AS ended
                  FROM generate_series(1, {answers}) n) each;
    INSERT INTO conversations (user_id) VALUES ('ada');
    INSERT INTO conversation_sessions (conversation_id, user_id, is_active, session_start, session_end, ended_at,
                                       duration_seconds, end_reason)
        SELECT conversation_id, 'ada', false, now() - interval '1 year', now() - interval '1 year',
               now() - interval '1 year', 0, 'expired' FROM conversations;
    RESET session_replication_role;
    RESET statement_timeout;
    ANALYZE agent_responses;
    SELECT brin_summarize_new_values('responses_by_end');
"""


async def put(
    store: PostgresStore,
    ended: datetime,
    user: str = "ada",
    session_id: UUID = ONE,
    key_id: UUID | None = None,
    outcome: str = "completed",
    tokens: tuple[int | None, ...] = (30, 4, 16),
) -> None:
    """An answer that took four seconds, one of them until its first piece."""
    started = ended - timedelta(seconds=4)
    first = started + timedelta(seconds=1)
    await store.select(PUT, user, session_id, key_id, started, first, ended, outcome, *tokens)


async def summed(store: PostgresStore, *by: UsageGroup, since: datetime = DAY, days: int = 2) -> list[UsageSum]:
    return list(await read_usage(store, since, since + timedelta(days=days), by, 100))


async def fill(store: PostgresStore, answers: int) -> None:
    async def execute() -> None:
        async with store._connections.one() as connection:
            await connection.execute(FILL.format(answers=answers), timeout=FILL_SECONDS)

    await bounded_call(store._loop, FILL_SECONDS, execute)


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def test_answers_are_summed_up_by_day_in_utc(postgres_store: PostgresStore) -> None:
    store = postgres_store
    await put(store, DAY - timedelta(microseconds=1))  # the day before
    await put(store, DAY)
    await put(store, DAY + timedelta(hours=23, minutes=59), outcome="failed", tokens=(None, None, None))
    await put(store, DAY + timedelta(days=1), session_id=UUID(int=2))
    await put(store, DAY + timedelta(days=2))  # the day after
    second, first = await summed(store, "day")
    assert (first.date, second.date) == (DAY.date(), (DAY + timedelta(days=1)).date())
    assert (first.sessions, first.answers, first.failed, first.counted) == (1, 2, 1, 1)
    assert (first.input_tokens, first.output_tokens, first.cached_tokens) == (30, 4, 16)
    assert (first.first_seconds, first.answer_seconds) == (1.0, 4.0)
    assert (first.user_id, first.key_id) == (None, None)


async def test_tokens_that_nobody_reported_are_unknown_not_zero(postgres_store: PostgresStore) -> None:
    await put(postgres_store, DAY, tokens=(None, None, None))
    (found,) = await summed(postgres_store)
    assert (found.answers, found.counted, found.input_tokens, found.cached_tokens) == (1, 0, None, None)


async def test_answers_are_summed_up_by_user_and_key(world: PostgresWorld) -> None:
    store, key = world.store, await key_of(world, "backend")
    await put(store, DAY, "ada", key_id=key.key_id)
    await put(store, DAY, "ada", UUID(int=2))
    await put(store, DAY + timedelta(days=1), "bob", key_id=key.key_id)
    by_user = [(each.user_id, each.answers, each.sessions, each.date) for each in await summed(store, "user")]
    assert by_user == [("ada", 2, 2, None), ("bob", 1, 1, None)]
    by_key = {each.key_id: (each.answers, each.key_subject) for each in await summed(store, "key")}
    assert by_key == {key.key_id: (2, "backend"), None: (1, None)}
    assert len(await summed(store, "day", "user", "key")) == 3
    pages = [await read_usage(store, DAY, DAY + timedelta(days=2), ["user"], 1, skip=skip) for skip in (0, 1, 2)]
    assert [[each.user_id for each in page] for page in pages] == [["ada"], ["bob"], []]


async def test_a_day_has_its_answers_beside_its_sessions(postgres_store: PostgresStore) -> None:
    store = postgres_store
    await store.select("INSERT INTO conversation_sessions (user_id, session_start) VALUES ('ada', $1)", DAY)
    await put(store, DAY + timedelta(hours=1))
    await put(store, DAY + timedelta(days=1))  # of a session that began the day before
    second, first = await reports.daily_stats(store, DAY, DAY + timedelta(days=2))
    assert (first.total_sessions, first.answers, first.input_tokens, first.output_tokens) == (1, 1, 30, 4)
    assert (second.total_sessions, second.avg_duration, second.answers) == (0, None, 1)


async def test_a_sessions_answers_come_in_pages_in_their_order(world: PostgresWorld) -> None:
    start = await world.begin()
    await world.append(*[response(start, age=age) for age in (3.0, 2.0, 1.0)])
    await world.append(response(await world.begin()))
    first = await responses_of(world.store, start.session_id, 2)
    assert len(first) == 2
    (last,) = await responses_of(world.store, start.session_id, 2, (first[1].started_at, first[1].response_id))
    assert first[0].started_at < first[1].started_at < last.started_at


async def test_an_export_has_a_users_figures(world: PostgresWorld) -> None:
    given = response(await world.begin())
    await world.append(given)
    await world.append(response(await world.begin("bob")))
    exported = [record async for kind, record in export_user(world.store, "ada") if kind == "responses"]
    assert [(each["response_id"], each["input_tokens"]) for each in exported] == [(UUID(given.response_id), 30)]


async def test_a_chart_is_the_same_before_and_after_its_hours_are_counted(postgres_store: PostgresStore) -> None:
    await fill(postgres_store, 2_000)

    def sums(chart: AnswerChartReport) -> tuple[dict[str, int], dict[str, int]]:
        return tuple({name: sum(counts) for name, counts in of.items()} for of in (chart.outcomes, chart.tokens))  # type: ignore[return-value]

    before = await read_answer_chart(postgres_store, YEAR_SECONDS)
    assert sums(before) == (
        {"cancelled": 500, "completed": 1000, "failed": 500},
        {"cached": 200_000, "input": 600_000, "output": 80_000},
    )
    assert {bound for bounds in before.first.values() for bound in bounds if bound is not None} == {1.0}
    assert all(3 <= bound <= 4.5 for bounds in before.took.values() for bound in bounds if bound is not None)
    while await postgres_store.count_hours(24 * 40):
        pass
    assert await read_answer_chart(postgres_store, YEAR_SECONDS) == before
    await postgres_store.select("TRUNCATE agent_responses")
    after = await read_answer_chart(postgres_store, YEAR_SECONDS)
    assert sums(after)[0]["failed"] == pytest.approx(500, abs=2), "counts outlive rows, and name nobody"


async def test_an_answer_without_a_piece_has_no_time_until_its_first(postgres_store: PostgresStore) -> None:
    await put(postgres_store, datetime.now(UTC))
    await postgres_store.select("UPDATE agent_responses SET first_at = NULL")
    chart = await read_answer_chart(postgres_store, 3600.0)
    assert (chart.first["p50"], len(chart.took["p50"])) == ([None], 1)


@pytest.mark.slow
@pytest.mark.alone
async def test_a_year_of_answers_is_answered_in_time(postgres_store: PostgresStore) -> None:
    await fill(postgres_store, 150_000)
    while await postgres_store.count_hours(24 * 40):
        pass
    took: dict[Any, float] = {}
    for seconds in (3600.0, DAY_SECONDS, 7 * DAY_SECONDS, 30 * DAY_SECONDS, YEAR_SECONDS):
        times = []
        for _ in range(8):  # also with the generic plan that comes after five questions
            began = time.perf_counter()
            await read_answer_chart(postgres_store, seconds)
            times.append(time.perf_counter() - began)
        took[seconds] = max(min(times[:5]), min(times[5:]))
    now = datetime.now(UTC)
    for days in (1, 7):  # that the console shows as a table; others may take longer
        times = []
        for _ in range(8):
            began = time.perf_counter()
            await read_usage(postgres_store, now - timedelta(days=days), now, ["user"], 50)
            times.append(time.perf_counter() - began)
        took[f"{days} days by user"] = max(min(times[:5]), min(times[5:]))
    assert {what: seconds for what, seconds in took.items() if seconds > ANSWER_SECONDS} == {}
