"""The group-commit writer alone, on virtual time, over a commit function that does what the test says."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st
from lastcall import logs
from lastcall.store import commits
from lastcall.store import queue as commit_queue
from lastcall.store.commits import COMMITS_MAX, LOG_SECONDS, RETRY_WAIT_SECONDS_MAX, CommitWriter
from lastcall.store.errors import InvalidRow, ItemExists, SessionClosed, StoreError, StoreUnavailable
from lastcall.store.queue import BATCH_ROWS_MAX, Outcome
from trio.testing import MockClock, wait_all_tasks_blocked

WITHIN = 60.0
ORDERS = 10  # tries, since tasks that wake together run in any order
COMMIT_SECONDS = 1.0


class Database:
    """A commit function: keeps the rows of each batch that it committed, and fails as `fail` says.

    fail: called with each batch; may raise. refuse: what becomes of single rows. seconds: what a commit takes.
    """

    def __init__(self, *, seconds: float = COMMIT_SECONDS) -> None:
        self.seconds = seconds
        self.under_way: list[Sequence[str]] = []
        self.side_by_side: list[tuple[Sequence[str], ...]] = []
        self.batches: list[list[str]] = []
        self.attempts: list[float] = []
        self.fail: Callable[[Sequence[str]], None] = lambda _: None
        self.refuse: dict[str, Outcome[bool]] = {}

    @property
    def rows(self) -> list[str]:
        return [row for batch in self.batches for row in batch]

    async def commit(self, rows: Sequence[str]) -> Sequence[Outcome[bool]]:
        self.attempts.append(trio.current_time())
        self.under_way.append(rows)
        self.side_by_side.append(tuple(self.under_way))
        try:
            await trio.sleep(self.seconds)
        finally:
            self.under_way.remove(rows)
        self.fail(rows)
        self.batches.append(list(rows))
        return [self.refuse.get(row, True) for row in rows]


class CallerQuotas:
    """Tasks that submit rows; `results` has what each got, and when."""

    def __init__(self, writer: CommitWriter[str, bool], nursery: trio.Nursery) -> None:
        self.writer = writer
        self._nursery = nursery
        self.results: dict[str, bool | StoreError] = {}
        self.settled_at: dict[str, float] = {}

    async def submit(self, *rows: str, within: float | None = WITHIN) -> None:
        """Submits rows in this order, one task each; `within` None: surely. Returns once all are queued."""
        for row in rows:
            self._nursery.start_soon(self._submit, row, within)
            await wait_all_tasks_blocked()

    async def _submit(self, row: str, within: float | None) -> None:
        try:
            if within is None:
                (self.results[row],) = await self.writer.submit_surely(row)
            else:
                self.results[row] = await self.writer.submit(row, within=within)
        except StoreError as error:
            self.results[row] = error
        self.settled_at[row] = trio.current_time()


def of_one(_row: str) -> str:
    """All rows belong together: their commits follow one another."""
    return "one"


def of_many(row: str) -> str | None:
    """A row belongs to its first letter; one in capitals concerns all."""
    return None if row.isupper() else row[0]


@asynccontextmanager
async def open_writer(
    database: Database, *, close_seconds: float = 60.0, key: Callable[[str], str | None] = of_one
) -> AsyncIterator[CallerQuotas]:
    """A running writer; leaving the block closes it, and waits for it and for all callers."""
    writer: CommitWriter[str, bool] = CommitWriter(database.commit, key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        yield CallerQuotas(writer, nursery)
        writer.close(close_seconds)


def names(count: int) -> list[str]:
    return [f"row-{index}" for index in range(count)]


def down(_: Sequence[str]) -> None:
    raise StoreUnavailable("down")


async def test_a_row_on_an_idle_writer_is_committed_at_once(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    async with open_writer(database) as callers:
        began = trio.current_time()
        assert await callers.writer.submit("a", within=WITHIN) is True
        assert trio.current_time() == began
    assert database.batches == [["a"]]


async def test_a_row_that_was_not_committed_in_time_says_why(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    async with open_writer(database) as callers:
        database.fail = down
        with pytest.raises(StoreUnavailable, match=r"no commit within 3 s: down"):
            await callers.writer.submit("a", within=3.0)
        database.fail = lambda _: None
        database.refuse = {"b": StoreUnavailable("locked")}
        with pytest.raises(StoreUnavailable, match=r"no commit within 3 s: locked"):
            await callers.writer.submit("b", within=3.0)
        database.seconds = WITHIN
        with pytest.raises(StoreUnavailable, match=r"no commit within 3 s: no answer yet"):
            await callers.writer.submit("c", within=3.0)


async def test_the_reason_why_commits_fail_is_logged_now_and_then(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    database.fail = down
    logs.configure(json_logs=False, level="warning")
    with structlog.testing.capture_logs() as lines:
        async with open_writer(database) as callers:
            await callers.submit("a", "b", within=2.5 * LOG_SECONDS)
    assert lines == [{"event": "commit_failed", "log_level": "warning", "reason": "down"}] * 3
    assert len(database.attempts) > len(lines)


async def test_rows_that_arrive_during_a_commit_form_the_next_batch_in_order(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit("a", "b", "c", "d")
    assert database.batches == [["a"], ["b", "c", "d"]]
    assert callers.results == dict.fromkeys("abcd", True)


async def test_rows_that_do_not_belong_together_are_committed_side_by_side(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database, key=of_many) as callers:
        began = trio.current_time()
        await callers.submit("a1", "b1", "c1", "d1")
    assert database.side_by_side[1] == (["a1"], ["b1"])
    assert max(len(batches) for batches in database.side_by_side) == COMMITS_MAX
    assert callers.settled_at["b1"] - began == COMMIT_SECONDS
    assert callers.settled_at["d1"] - began == 2 * COMMIT_SECONDS


async def test_rows_of_one_key_wait_for_each_other_and_delay_no_others(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database, key=of_many) as callers:
        began = trio.current_time()
        await callers.submit("a1", "a2", "b1")
    assert callers.settled_at["b1"] - began == COMMIT_SECONDS
    assert callers.settled_at["a2"] - began == 2 * COMMIT_SECONDS
    assert (["a1"], ["b1"]) in database.side_by_side


async def test_a_row_without_a_key_is_committed_after_all_before_it_and_alone(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with open_writer(database, key=of_many) as callers:
        await callers.submit("a1", "b1", "ALL", "c1")
        await trio.sleep(1.5 * COMMIT_SECONDS)
        await callers.submit("d1")
    assert database.batches[2:] == [["ALL", "c1"], ["d1"]]
    assert (["ALL", "c1"],) in database.side_by_side


@given(
    rows=st.lists(st.sampled_from(["a", "b", "c", "d", "ALL"]), min_size=1, max_size=40),
    seconds=st.lists(st.sampled_from([0.0, 0.1, 0.7]), min_size=1, max_size=10),
    failures=st.lists(st.booleans(), max_size=10),
)
def test_rows_of_one_key_keep_their_order_whatever_fails(
    rows: list[str], seconds: list[float], failures: list[bool]
) -> None:
    """Each row is committed once; before each comes what it belongs to, or where it concerns all, all that came."""
    numbered = [f"{row}{number:02}" for number, row in enumerate(rows)]
    database = Database()
    pauses, fates = itertools.cycle(seconds), iter(failures)

    def fail(_rows: Sequence[str]) -> None:
        database.seconds = next(pauses)
        if next(fates, False):
            raise StoreUnavailable("flapping")

    async def main() -> None:
        database.fail = fail
        async with open_writer(database, key=of_many) as callers:
            for row in numbered:
                await callers.submit(row, within=None)
                await trio.sleep(next(pauses) / 10)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert sorted(database.rows) == sorted(numbered)
    place = {row: database.rows.index(row) for row in numbered}
    for earlier, later in itertools.combinations(numbered, 2):
        if of_many(later) in (of_many(earlier), None):
            assert place[earlier] < place[later]
    for batches in database.side_by_side:
        assert len(batches) == 1 or all(of_many(row) for rows in batches for row in rows)


async def test_nobody_is_answered_before_the_commit_has_returned(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        began = trio.current_time()
        await callers.submit("a", "b")
    assert callers.settled_at["a"] - began == COMMIT_SECONDS
    assert callers.settled_at["b"] - began == 2 * COMMIT_SECONDS


async def test_a_batch_is_bounded_and_what_is_left_over_keeps_its_order(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_queue, "BATCH_ROWS_MAX", 4)
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit(*names(10))
    assert [len(batch) for batch in database.batches] == [1, 4, 4, 1]
    assert database.rows == names(10)
    assert BATCH_ROWS_MAX == 512


async def test_a_failure_that_passes_is_tried_again(autojump_clock: MockClock) -> None:
    database = Database()

    def fail(_: Sequence[str]) -> None:
        if len(database.attempts) < 4:
            raise StoreUnavailable("restarting")

    database.fail = fail
    async with open_writer(database) as callers:
        await callers.submit("a", "b")
    assert database.batches == [["a", "b"]]
    assert callers.results == {"a": True, "b": True}


async def test_tries_are_never_far_apart(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    database.fail = down
    async with open_writer(database) as callers:
        await callers.submit("a", within=30.0)
        await trio.sleep(31.0)
    gaps = [later - earlier for earlier, later in zip(database.attempts, database.attempts[1:], strict=False)]
    assert len(gaps) >= 30.0 / commits.RETRY_WAIT_SECONDS_MAX - 1
    assert max(gaps) <= commits.RETRY_WAIT_SECONDS_MAX
    assert len(gaps) < 1000


async def test_a_caller_waits_no_longer_than_it_said_and_its_row_is_dropped(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    database.fail = down
    async with open_writer(database) as callers:
        began = trio.current_time()
        await callers.submit("a", within=3.0)
        await callers.submit("b", within=60.0)
        await trio.sleep(10.0)
        database.fail = lambda _: None
    assert isinstance(callers.results["a"], StoreUnavailable)
    assert callers.settled_at["a"] - began == 3.0
    assert callers.results["b"] is True
    assert database.rows == ["b"]


async def test_an_abandoned_row_is_dropped_from_the_batch_of_others(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit("first")
        database.fail = down
        await callers.submit("brief", within=3.0)
        await callers.submit("patient", within=60.0)
        await trio.sleep(10.0)
        database.fail = lambda _: None
    assert isinstance(callers.results["brief"], StoreUnavailable)
    assert callers.results["patient"] is True
    assert "brief" not in database.rows


async def test_a_row_that_must_land_is_tried_through_any_outage(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    database.fail = down
    async with open_writer(database) as callers:
        await callers.submit("end", within=None)
        await trio.sleep(3600.0)
        assert callers.results == {}
        database.fail = lambda _: None
    assert callers.results == {"end": True}


async def test_closing_commits_what_is_queued(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit("a", "b", "c", within=None)
    assert database.rows == ["a", "b", "c"]
    assert callers.results == dict.fromkeys("abc", True)


async def test_closing_gives_up_at_the_end_of_its_budget_and_says_so(autojump_clock: MockClock) -> None:
    database = Database(seconds=0)
    database.fail = down
    async with open_writer(database, close_seconds=5.0) as callers:
        await callers.submit("end", "another", within=None)
        closed = trio.current_time()
    assert 5.0 <= trio.current_time() - closed <= 5.0 + 2 * commits.RETRY_WAIT_SECONDS_MAX
    assert {type(result) for result in callers.results.values()} == {StoreUnavailable}
    assert len(callers.results) == 2


async def test_closing_takes_no_longer_than_its_budget_although_commits_hang(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_queue, "BATCH_ROWS_MAX", 2)
    database = Database(seconds=7.0)
    database.fail = down
    async with open_writer(database, close_seconds=2.0) as callers:
        await callers.submit(*names(9), within=None)
        closed = trio.current_time()
    assert trio.current_time() - closed <= 2.0 + commits.RETRY_WAIT_SECONDS_MAX
    assert [type(result) for result in callers.results.values()] == [StoreUnavailable] * 9


async def test_a_closed_writer_takes_no_more_rows(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        callers.writer.close(1.0)
        with pytest.raises(StoreUnavailable):
            await callers.writer.submit("late", within=WITHIN)
        with pytest.raises(StoreUnavailable):
            await callers.writer.submit_surely("late")
    assert database.rows == []


@pytest.mark.parametrize("bad", [{"row-5"}, {"row-1", "row-2"}, {"row-16"}, set(names(17))])
async def test_a_row_at_fault_fails_alone_and_the_others_keep_their_order(
    autojump_clock: MockClock, bad: set[str]
) -> None:
    database = Database()

    def fail(rows: Sequence[str]) -> None:
        if bad.intersection(rows):
            raise ItemExists("bad row")

    database.fail = fail
    async with open_writer(database) as callers:
        await callers.submit(*names(17))
    assert {row for row, result in callers.results.items() if isinstance(result, ItemExists)} == bad
    assert database.rows == [row for row in names(17) if row not in bad]
    assert all(result is True for row, result in callers.results.items() if row not in bad)


async def test_a_row_at_fault_is_found_although_the_database_goes_away_meanwhile(autojump_clock: MockClock) -> None:
    database = Database()

    def fail(rows: Sequence[str]) -> None:
        if len(database.attempts) % 2:
            raise StoreUnavailable("flapping")
        if "row-3" in rows:
            raise InvalidRow("bad row")

    database.fail = fail
    async with open_writer(database, close_seconds=60.0) as callers:
        await callers.submit(*names(8))
    assert [row for row, result in callers.results.items() if isinstance(result, InvalidRow)] == ["row-3"]
    assert database.rows == [row for row in names(8) if row != "row-3"]


async def test_what_has_come_since_a_commit_failed_goes_with_its_next_try(autojump_clock: MockClock) -> None:
    database = Database()

    def unreachable(_rows: Sequence[str]) -> None:
        raise StoreUnavailable("the database is away")

    database.fail = unreachable
    async with open_writer(database) as callers:
        await callers.submit("bulk", within=None)
        await trio.sleep(1.0)
        await callers.submit("end", within=None)
        database.fail = lambda _: None
        await trio.sleep(1.0)
    assert database.batches == [["bulk", "end"]]


async def test_rows_that_were_held_are_tried_again_in_their_order(autojump_clock: MockClock) -> None:
    for _ in range(ORDERS):
        database = Database(seconds=RETRY_WAIT_SECONDS_MAX / 5)
        database.refuse = dict.fromkeys(("words", "end"), StoreUnavailable("somebody holds the row"))
        async with open_writer(database) as callers:
            await callers.submit("first", "words", "end", within=None)
            await trio.sleep(RETRY_WAIT_SECONDS_MAX / 2)
            database.refuse = {}
            await trio.sleep(RETRY_WAIT_SECONDS_MAX)
        assert database.rows[-2:] == ["words", "end"]


async def test_an_outcome_reaches_only_its_own_caller(autojump_clock: MockClock) -> None:
    database = Database()
    database.refuse = {"b": SessionClosed("closed"), "c": False}
    async with open_writer(database) as callers:
        await callers.submit("first", "a", "b", "c", "d")
    assert database.batches == [["first"], ["a", "b", "c", "d"]]
    assert isinstance(callers.results.pop("b"), SessionClosed)
    assert callers.results == {"first": True, "a": True, "c": False, "d": True}


async def test_a_cancelled_callers_row_is_committed_all_the_same(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit("first")
        with trio.move_on_after(0) as scope:
            await callers.writer.submit("cancelled", within=WITHIN)
        assert scope.cancelled_caught
    assert database.rows == ["first", "cancelled"]


async def test_a_caller_cancelled_before_it_waits_has_queued_its_row(autojump_clock: MockClock) -> None:
    database = Database()
    async with open_writer(database) as callers:
        with trio.CancelScope() as scope:
            scope.cancel()
            await callers.writer.submit_surely("cancelled")
        assert scope.cancelled_caught
    assert database.rows == ["cancelled"]


async def test_cancelling_the_writers_surroundings_does_not_stop_it_closing_does(autojump_clock: MockClock) -> None:
    database = Database()
    writer: CommitWriter[str, bool] = CommitWriter(database.commit, of_one)
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await wait_all_tasks_blocked()
            outer.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(100.0)
                assert await writer.submit("end", within=WITHIN) is True
                writer.close(1.0)
    assert database.rows == ["end"]


async def test_a_full_queue_refuses_at_once(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "QUEUE_ROWS_MAX", 3)
    database = Database()
    async with open_writer(database) as callers:
        await callers.submit("in flight", *names(3))
        began = trio.current_time()
        for submit in (callers.writer.submit("over", within=WITHIN), callers.writer.submit_surely("over")):
            with pytest.raises(StoreUnavailable):
                await submit
        assert trio.current_time() == began
    assert database.rows == ["in flight", *names(3)]


@pytest.mark.parametrize("error", [ValueError("odd"), StoreError("relation does not exist"), KeyError()])
async def test_an_unknown_error_fails_its_batch_and_the_writer_lives_on(
    autojump_clock: MockClock, error: Exception
) -> None:
    database = Database()

    def fail(rows: Sequence[str]) -> None:
        if "bad" in rows:
            raise error

    database.fail = fail
    async with open_writer(database) as callers:
        await callers.submit("first", "bad")
        await trio.sleep(10.0)
        await callers.submit("after")
    assert isinstance(callers.results.pop("bad"), StoreError)
    assert callers.results == {"first": True, "after": True}


async def test_a_commit_that_answers_for_too_few_rows_fails_its_batch(autojump_clock: MockClock) -> None:
    database = Database()

    async def commit(rows: Sequence[str]) -> Sequence[Outcome[bool]]:
        return (await database.commit(rows))[1:]

    async with trio.open_nursery() as nursery:
        writer: CommitWriter[str, bool] = CommitWriter(commit, of_one)
        nursery.start_soon(writer.run)
        with pytest.raises(StoreUnavailable):
            await writer.submit("a", within=WITHIN)
        writer.close(1.0)
