"""Starts again what this server runs beside itself, whenever it ends, for as long as the server lives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
import trio

from ..runtime.conditions import Conditions

WAIT_SECONDS_MIN = 0.1  # before the first restart; doubled after each that failed, or did not last
WAIT_SECONDS_MAX = 10.0
STEADY_SECONDS = 60.0  # what ends sooner after a restart waits longer for the next one
TOLD_SECONDS = 1.0  # a wait from which on a failed restart is in the log, once

_log = structlog.get_logger(__name__)


class Child(Protocol):
    """A part of the server that is not in its process."""

    async def ended(self) -> str:
        """Returns once it has ended, with the reason in a few words."""
        ...

    async def restart(self) -> str | None:
        """Tries once, for a bounded time. Returns why it failed; None: it is there again."""
        ...


@asynccontextmanager
async def supervised(name: str, child: Child, conditions: Conditions) -> AsyncIterator[None]:
    """Restarts the child with back-off until the block is left, and tells in `conditions` while it is away."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_supervise, name, child, conditions)
        yield
        nursery.cancel_scope.cancel()


async def _supervise(name: str, child: Child, conditions: Conditions) -> None:
    wait, since = WAIT_SECONDS_MIN, trio.current_time()
    while True:
        reason = await child.ended()
        if trio.current_time() > since + STEADY_SECONDS:
            wait = WAIT_SECONDS_MIN
        conditions.set(name, reason)
        _log.warning("child_away", child=name, reason=reason)
        away_since = trio.current_time()
        wait = await _bring_back(name, child, conditions, wait)
        since = trio.current_time()
        conditions.clear(name)
        _log.warning("child_back", child=name, away_seconds=round(since - away_since, 3))


async def _bring_back(name: str, child: Child, conditions: Conditions, wait: float) -> float:
    """Tries until it succeeds; returns the wait before the next restart."""
    told = False
    while True:
        await trio.sleep(wait)
        wait = min(2 * wait, WAIT_SECONDS_MAX)
        reason = await child.restart()
        if reason is None:
            return wait
        conditions.set(name, reason)
        if not told and wait > TOLD_SECONDS:
            told = True
            _log.warning("child_restart_failed", child=name, reason=reason, next_seconds=wait)
