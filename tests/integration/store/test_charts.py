"""Charts of sessions over time: right, and fast over a year."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from lastcall.store.operators.charts import ChartReport, read_chart, width_for
from lastcall.store.operators.sessions import page_of_memory_work, page_of_sessions
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import bounded_call

pytestmark = pytest.mark.alone

DAY_SECONDS = 86_400.0
YEAR_SECONDS = 366 * DAY_SECONDS
FILL_SECONDS = 120.0
ANSWER_SECONDS = 0.2
SESSIONS = 400_000
# As a restore would: the triggers would take minutes. Rows lie in the order of their ends, as they do where they are
# written one by one.
FILL = f"""
SET statement_timeout = 0;
SET session_replication_role = replica;
INSERT INTO conversations (user_id) SELECT 'user-' || n FROM generate_series(1, 1000) n;
INSERT INTO conversation_sessions (conversation_id, user_id, is_active, session_start, session_end, ended_at,
                                   duration_seconds, end_reason)
    SELECT conversation_id, user_id, false, ended - lasted * interval '1 s', ended, ended + interval '20 ms', lasted,
           (ARRAY['client_closed', 'client_closed', 'client_lost', 'expired', 'shutdown', 'by_hand'])[1 + n % 6]
      FROM (SELECT n, now() - interval '1 year' * (1 - n::float8 / {SESSIONS}) - interval '1 s' AS ended,
                   (10 + n % 600)::float8 AS lasted FROM generate_series(1, {SESSIONS}) n) s
      JOIN (SELECT *, row_number() OVER () AS number FROM conversations) c ON number = 1 + n % 1000;
RESET session_replication_role;
RESET statement_timeout;
ANALYZE conversation_sessions;
SELECT brin_summarize_new_values('sessions_by_end'); -- as autovacuum does when so many rows come
"""


async def run(store: PostgresStore, sql: str) -> None:
    async def execute() -> None:
        async with store._connections.one() as connection:
            await connection.execute(sql, timeout=FILL_SECONDS)

    await bounded_call(store._loop, FILL_SECONDS, execute)


async def count_all(store: PostgresStore) -> int:
    hours = 0
    while counted := await store.count_hours(24 * 40):
        hours += counted
    return hours


@pytest.mark.slow
async def test_a_year_of_sessions_is_answered_in_time(postgres_store: PostgresStore) -> None:
    await run(postgres_store, FILL)
    hours = await count_all(postgres_store)
    assert 8_700 < hours < 8_800
    took = {}
    for seconds in (3600.0, DAY_SECONDS, 7 * DAY_SECONDS, 30 * DAY_SECONDS, YEAR_SECONDS):
        times = []
        for _ in range(8):  # also with the generic plan that comes after five questions
            began = time.perf_counter()
            chart = await read_chart(postgres_store, seconds)
            times.append(time.perf_counter() - began)
        took[seconds] = min(times[:5]), min(times[5:])
        ended = sum(map(sum, chart.ended.values()))
        assert ended == pytest.approx(SESSIONS * min(1, seconds / (365.25 * DAY_SECONDS)), rel=0.1)
    assert {seconds: both for seconds, both in took.items() if max(both) > ANSWER_SECONDS} == {}


@pytest.mark.slow
async def test_a_page_of_a_year_of_sessions_is_answered_in_time(postgres_store: PostgresStore) -> None:
    """Also one that begins far back, is of one user or reason, or of those few that are active or have failed."""
    await run(postgres_store, FILL)
    await run(postgres_store, "INSERT INTO conversation_sessions (user_id) VALUES ('ada')")
    half_a_year_ago = (datetime.now(UTC) - timedelta(days=180), UUID(int=0))
    pages: dict[str, Callable[[], Awaitable[Sequence[object]]]] = {
        "all": lambda: page_of_sessions(postgres_store, 50),
        "far back": lambda: page_of_sessions(postgres_store, 50, half_a_year_ago),
        "reason": lambda: page_of_sessions(postgres_store, 50, reason="expired"),
        "user": lambda: page_of_sessions(postgres_store, 50, user="user-7"),
        "active": lambda: page_of_sessions(postgres_store, 50, active=True),
        "failed": lambda: page_of_memory_work(postgres_store, 50, status="failed"),
        "pending": lambda: page_of_memory_work(postgres_store, 50, status="pending"),
    }
    found, took = {}, {}
    for name, page in pages.items():
        times = []
        for _ in range(8):
            began = time.perf_counter()
            found[name] = len(await page())
            times.append(time.perf_counter() - began)
        took[name] = max(min(times[:5]), min(times[5:]))
    assert found == {"all": 50, "far back": 50, "reason": 50, "user": 50, "active": 1, "failed": 0, "pending": 0}
    assert {name: seconds for name, seconds in took.items() if seconds > ANSWER_SECONDS} == {}


async def test_counts_are_those_of_the_rows_before_and_after_hours_are_counted(postgres_store: PostgresStore) -> None:
    await run(postgres_store, FILL.replace(str(SESSIONS), "2000"))

    def of(chart: ChartReport) -> tuple[object, ...]:
        return chart.started, chart.ended, chart.lasted, chart.late

    before = await read_chart(postgres_store, YEAR_SECONDS)
    assert sum(sum(counts) for counts in before.ended.values()) == 2000
    assert set(before.ended) == {"client_closed", "client_lost", "expired", "shutdown", "by_hand"}
    assert await count_all(postgres_store) > 8_000
    assert of(await read_chart(postgres_store, YEAR_SECONDS)) == of(before)
    await postgres_store.select(
        "TRUNCATE conversation_sessions, conversations, messages, user_memories, recall_passages, recall_lexemes"
    )
    after = await read_chart(postgres_store, YEAR_SECONDS)
    assert sum(sum(counts) for counts in after.ended.values()) == pytest.approx(2000, abs=2), "counts outlive rows"


async def test_hours_are_counted_once_however_often_and_in_whatever_steps(postgres_store: PostgresStore) -> None:
    await run(postgres_store, FILL.replace(str(SESSIONS), "500"))
    for hours_max in (1, 2, 1000):
        assert await postgres_store.count_hours(hours_max) == hours_max
    await count_all(postgres_store)
    assert await postgres_store.count_hours(10) == 0
    rows = await postgres_store.select("SELECT kind, sum(sessions)::integer AS n FROM session_counts GROUP BY kind")
    counted = {row["kind"]: row["n"] for row in rows}
    assert counted["ended"] == counted["reason"] == counted["lasted"] == counted["late"]
    assert counted["ended"] == pytest.approx(500, abs=1)


async def test_durations_are_told_to_within_half(postgres_store: PostgresStore) -> None:
    await run(postgres_store, FILL.replace(str(SESSIONS), "2000").replace("(10 + n % 600)", "(100)"))
    lasted = (await read_chart(postgres_store, YEAR_SECONDS)).lasted
    assert set(lasted) == {"p50", "p95", "p99"}
    assert all(100 <= seconds <= 150 for each in lasted.values() for seconds in each if seconds is not None)


@pytest.mark.parametrize(("seconds", "width"), [(3600, 60), (86_400, 300), (604_800, 3600), (31_622_400, 86_400)])
def test_a_chart_has_about_as_many_buckets_as_a_screen_can_show(seconds: float, width: int) -> None:
    assert width_for(seconds) == width
