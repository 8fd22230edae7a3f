"""Polling, for conditions that no event announces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
