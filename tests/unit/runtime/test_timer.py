"""The shared timer: calls come in their order and in time, and none costs another one anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
from lastcall.runtime.timer import CALLS_PER_STEP, CANCELLED_MIN, Timer
from trio.testing import MockClock, wait_all_tasks_blocked


@asynccontextmanager
async def running() -> AsyncIterator[Timer]:
    timer = Timer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        yield timer
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_calls_are_made_at_their_times(order: tuple[int, ...], autojump_clock: MockClock) -> None:
    calls: list[tuple[int, float]] = []
    async with running() as timer:
        began = trio.current_time()
        for after in order:
            await wait_all_tasks_blocked()
            timer.at(began + after, lambda after=after: calls.append((after, trio.current_time() - began)))  # type: ignore[misc]
        await trio.sleep(4)
    assert calls == [(1, 1), (2, 2), (3, 3)]


async def test_what_is_due_before_it_runs_or_in_the_past_is_called_at_once(autojump_clock: MockClock) -> None:
    calls: list[float] = []
    timer = Timer()
    timer.at(trio.current_time() - 1, lambda: calls.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(timer.run)
        await wait_all_tasks_blocked()
        timer.at(began - 5, lambda: calls.append(trio.current_time()))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert calls == [began, began]


async def test_a_call_may_ask_for_the_next_one(autojump_clock: MockClock) -> None:
    times: list[float] = []
    async with running() as timer:
        began = trio.current_time()

        def again() -> None:
            times.append(trio.current_time() - began)
            timer.at(trio.current_time() + 2, again)

        again()
        await trio.sleep(7)
    assert times == [0, 2, 4, 6]


async def test_a_cancelled_alarm_is_not_called_and_cancelling_it_again_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []
    async with running() as timer:
        alarms = [timer.at(trio.current_time() + 1, lambda name=name: calls.append(name)) for name in "abc"]  # type: ignore[misc]
        alarms[1].cancel()
        alarms[1].cancel()
        await trio.sleep(2)
        alarms[0].cancel()
    assert calls == ["a", "c"]


async def test_cancelled_alarms_do_not_pile_up_until_their_time() -> None:
    timer = Timer()
    kept = timer.at(trio.current_time() + 100, lambda: None)
    for _ in range(10_000):
        timer.at(trio.current_time() + 200, lambda: None).cancel()
    assert len(timer._alarms) <= 2 * CANCELLED_MIN
    assert kept in timer._alarms


async def test_a_call_that_raises_costs_no_other_one_anything(autojump_clock: MockClock) -> None:
    calls: list[str] = []

    def fail() -> None:
        raise RuntimeError("this call fails")

    with structlog.testing.capture_logs() as logs:
        async with running() as timer:
            timer.at(trio.current_time() + 1, fail)
            timer.at(trio.current_time() + 2, lambda: calls.append("later"))
            await trio.sleep(3)
    assert calls == ["later"]
    assert [line["event"] for line in logs] == ["timer_call_failed"]


async def test_other_tasks_run_between_many_calls_that_are_due_at_once(autojump_clock: MockClock) -> None:
    calls, seen = [], set()
    async with running() as timer:
        when = trio.current_time() + 1
        for number in range(20 * CALLS_PER_STEP):
            timer.at(when, lambda number=number: calls.append(number))  # type: ignore[misc]
        await trio.sleep_until(when)
        while len(calls) < 20 * CALLS_PER_STEP:
            seen.add(len(calls))
            await trio.lowlevel.checkpoint()
    assert len(seen) >= 5
