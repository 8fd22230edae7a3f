"""A child that ends is started again: with back-off, without end, and with few words in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from lastcall.embedded import supervisor
from lastcall.embedded.supervisor import STEADY_SECONDS, WAIT_SECONDS_MAX, WAIT_SECONDS_MIN, supervised
from lastcall.runtime.conditions import Conditions
from structlog.testing import LogCapture
from trio.testing import MockClock, wait_all_tasks_blocked


class Fragile:
    """A child that ends when told to, and cannot be restarted for as long as there is a reason."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.tries: list[float] = []
        self._end = trio.Event()

    def end(self) -> None:
        self._end.set()

    async def ended(self) -> str:
        await self._end.wait()
        return "it ended"

    async def restart(self) -> str | None:
        self.tries.append(trio.current_time())
        if self.trouble is None:
            self._end = trio.Event()
        return self.trouble


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    captured = LogCapture()
    monkeypatch.setattr(
        supervisor, "_log", structlog.wrap_logger(None, processors=[captured], wrapper_class=structlog.BoundLogger)
    )
    return captured


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Fragile, Conditions]]:
    child, conditions = Fragile(), Conditions()
    async with supervised("child", child, conditions):
        yield child, conditions


def gaps(child: Fragile) -> list[float]:
    return [round(after - before, 6) for before, after in zip(child.tries, child.tries[1:], strict=False)]


async def test_it_is_told_as_away_until_it_is_there_again(mock_clock: MockClock) -> None:
    async with watched() as (child, conditions):
        await wait_all_tasks_blocked()
        assert conditions.away() is None
        child.trouble = "the disk is full"
        child.end()
        await wait_all_tasks_blocked()
        assert conditions.away() == "child is away: it ended"
        mock_clock.jump(WAIT_SECONDS_MIN)
        await wait_all_tasks_blocked()
        assert conditions.away() == "child is away: the disk is full"
        child.trouble = None
        mock_clock.jump(2 * WAIT_SECONDS_MIN)
        await wait_all_tasks_blocked()
        assert conditions.away() is None


async def test_tries_go_on_for_ever_ever_more_slowly_up_to_a_bound(autojump_clock: MockClock) -> None:
    async with watched() as (child, _):
        child.trouble = "the disk is full"
        child.end()
        await trio.sleep(24 * 3600)
    waits = gaps(child)
    assert waits[:3] == [2 * WAIT_SECONDS_MIN, 4 * WAIT_SECONDS_MIN, 8 * WAIT_SECONDS_MIN]
    assert set(waits[8:]) == {WAIT_SECONDS_MAX}
    assert len(waits) > 24 * 3600 / WAIT_SECONDS_MAX - 2


async def test_one_that_never_lasts_is_restarted_ever_more_slowly_too(autojump_clock: MockClock) -> None:
    async with watched() as (child, _):
        for _ in range(12):
            child.end()
            await trio.sleep(WAIT_SECONDS_MAX + 1)
    assert WAIT_SECONDS_MIN <= child.tries[0] < 2 * WAIT_SECONDS_MIN
    assert child.tries[-1] - 11 * (WAIT_SECONDS_MAX + 1) == pytest.approx(WAIT_SECONDS_MAX)


async def test_one_that_lasted_is_restarted_at_once_again(autojump_clock: MockClock) -> None:
    async with watched() as (child, _):
        for _ in range(12):
            child.end()
            await trio.sleep(WAIT_SECONDS_MAX + 1)
        await trio.sleep(STEADY_SECONDS)
        child.end()
        ended_at = trio.current_time()
        await trio.sleep(1)
    assert child.tries[-1] - ended_at == pytest.approx(WAIT_SECONDS_MIN)


async def test_the_log_has_a_line_for_each_change_not_for_each_try(log: LogCapture, autojump_clock: MockClock) -> None:
    async with watched() as (child, _):
        child.trouble = "the disk is full"
        child.end()
        await trio.sleep(3600)
        child.trouble = None
        await trio.sleep(2 * WAIT_SECONDS_MAX)
    assert [(line["event"], line.get("reason")) for line in log.entries] == [
        ("child_away", "it ended"),
        ("child_restart_failed", "the disk is full"),
        ("child_back", None),
    ]
