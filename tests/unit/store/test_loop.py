"""asyncio inside Trio: its callbacks must not wait for a turn each."""

from __future__ import annotations

import trio
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
