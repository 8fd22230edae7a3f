"""Polling, for conditions that no event announces; and services that run beside a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

T = TypeVar("T")
LOOK_SECONDS = 0.01


async def eventually(look: Callable[[], Awaitable[T]], wanted: Callable[[T], object], *, within: float = 5.0) -> T:
    """Polls `look` until `wanted` accepts its result; returns it. Fails with the last one after `within` seconds."""
    seen: list[T] = []
    with trio.move_on_after(within):
        while True:
            seen[:] = [await look()]
            if wanted(seen[0]):
                return seen[0]
            await trio.sleep(LOOK_SECONDS)
    raise AssertionError(f"not within {within:g} s; last seen: {seen!r:.1000}")


@asynccontextmanager
async def in_background(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs a service until the block is left, and cancels it then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield
        nursery.cancel_scope.cancel()
