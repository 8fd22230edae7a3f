"""Checkpoints that do not reach the scheduler: fewer passes, but other tasks, cancellation and errors as ever."""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import Any

import pytest
import trio
from lastcall.runtime.checkpoints import SPARED_MAX, SPARED_SECONDS, sparing
from trio.testing import MockClock


async def passes_during(work: Any) -> int:
    """How many passes of the scheduler it takes."""
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = passes
        await work
        nursery.cancel_scope.cancel()
    return passes - before


async def test_only_one_of_some_checkpoints_is_a_pass_of_the_scheduler(mock_clock: MockClock) -> None:
    async def work() -> None:
        for _ in range(10 * (SPARED_MAX + 1)):
            await trio.lowlevel.checkpoint()

    assert 9 <= await passes_during(sparing(work())) <= 11


async def test_work_that_takes_its_time_lets_others_run_at_each_checkpoint(mock_clock: MockClock) -> None:
    async def work() -> None:
        for _ in range(20):
            mock_clock.jump(SPARED_SECONDS)
            await trio.lowlevel.checkpoint()

    assert await passes_during(sparing(work())) >= 19


async def test_cancellation_reaches_the_work_at_its_next_checkpoint() -> None:
    reached = 0
    with trio.CancelScope() as scope:

        async def work() -> None:
            nonlocal reached
            while True:
                reached += 1
                if reached == 3:
                    scope.cancel()
                await trio.lowlevel.checkpoint()

        await sparing(work())
    assert (scope.cancelled_caught, reached) == (True, 3)


async def test_waits_results_and_errors_are_those_of_the_work(autojump_clock: MockClock) -> None:
    async def work() -> str:
        await trio.sleep(5)
        return "done"

    async def failing() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("x")

    assert await sparing(work()) == "done"
    assert trio.current_time() == 5
    with pytest.raises(KeyError):
        await sparing(failing())


async def test_what_trio_refuses_is_raised_in_the_work() -> None:
    @coroutine
    def of_another_loop() -> Generator[object, None, None]:
        yield "a future"

    async def work() -> str:
        try:
            await of_another_loop()
        except TypeError:
            await trio.lowlevel.checkpoint()
            return "told"
        return "not told"

    assert await sparing(work()) == "told"
