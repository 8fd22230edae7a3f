"""The one way in which tests wait for what no event tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")
LOOK_SECONDS = 0.01


async def eventually(look: Callable[[], Awaitable[T]], wanted: Callable[[T], object], *, within: float = 5.0) -> T:
    """Looks until what is seen is wanted, and returns it. Fails after `within` seconds, with what was seen last."""
    seen: list[T] = []
    with trio.move_on_after(within):
        while True:
            seen[:] = [await look()]
            if wanted(seen[0]):
                return seen[0]
            await trio.sleep(LOOK_SECONDS)
    raise AssertionError(f"not within {within:g} s; last seen: {seen!r:.1000}")
