"""asyncio inside Trio, and the private parts of trio-asyncio that it overrides.

These tests fail where an upgrade of trio-asyncio takes away one of `_main_loop_one`, `_timers` and `_check_callback`.
"""

from __future__ import annotations

import asyncio

import pytest
import trio
import trio_asyncio
from lastcall.store.postgres.loop import HANDLES_MAX, open_loop

ROUNDS = 10


async def test_queued_callbacks_run_in_one_pass_of_the_scheduler_up_to_a_bound(nursery: trio.Nursery) -> None:
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with open_loop() as loop:
        nursery.start_soon(count_passes)
        done = trio.Event()
        before = passes
        for _ in range(ROUNDS * HANDLES_MAX):
            loop.call_soon(int)
        loop.call_soon(done.set)
        await done.wait()
        assert ROUNDS - 1 <= passes - before <= ROUNDS + 5
        nursery.cancel_scope.cancel()


async def test_cancelled_timers_are_dropped_at_the_next_callback() -> None:
    async with open_loop() as loop:
        for seconds in range(100, 110):
            loop.call_later(seconds, int).cancel()
        kept = loop.call_later(200, int)
        done = trio.Event()
        for _ in range(2):  # the first may be taken by a pass that began before the timers were there
            loop.call_soon(int)
            await trio.lowlevel.checkpoint()
        loop.call_soon(done.set)
        await done.wait()
        assert loop._timers == [kept]
        kept.cancel()


async def test_callbacks_are_not_checked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []
    check = "_check_callback"
    monkeypatch.setattr(asyncio.BaseEventLoop, check, lambda _loop, callback, _method: checked.append(callback))
    async with trio_asyncio.open_loop() as loop:
        loop.call_soon(int)
        assert checked, "trio-asyncio checks no longer: _trust_callbacks can go"
    checked.clear()
    async with open_loop() as loop:
        loop.call_soon(int)
        assert checked == []
