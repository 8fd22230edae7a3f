"""The asyncio loop that asyncpg runs on, inside Trio."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from typing import Any

import structlog
import trio
import trio_asyncio

HANDLES_MAX = 64  # asyncio callbacks in one pass of Trio's scheduler

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[trio_asyncio.BaseTrioEventLoop]:
    """An asyncio loop for as long as the block lasts."""
    async with trio_asyncio.open_loop() as loop:
        # trio-asyncio's default handler raises into its nursery: one failed background future would end the server.
        loop.set_exception_handler(_log_only)
        _run_many_callbacks_a_pass(loop)
        _trust_callbacks(loop)
        yield loop


def _run_many_callbacks_a_pass(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """One database call is two dozen callbacks, and trio-asyncio runs one in each pass of Trio's scheduler.

    So with many connections at work, each of which lengthens every pass, calls took up to nine times as long: ends of
    sessions waited a tenth of a second to be committed. This runs what is queued in the same pass.

    And every call sets a time limit, cancels it, and had the loop woken for that seconds later: those are dropped.
    """
    run_one = loop._main_loop_one  # noqa: SLF001 - there is no public hook; test_loop.py holds it to this
    timers = loop._timers  # noqa: SLF001

    async def run_many(no_wait: bool = False) -> None:
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        await run_one(no_wait)
        with contextlib.suppress(trio.WouldBlock):
            for _ in range(HANDLES_MAX - 1):
                await run_one(no_wait=True)

    loop._main_loop_one = run_many  # noqa: SLF001


def _trust_callbacks(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """asyncio inspects every callback in its debug mode, trio-asyncio always: a twentieth of a server's time."""
    if not loop.get_debug():
        loop._check_callback = lambda *_: None  # noqa: SLF001


def _log_only(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.debug("asyncio_exception", message=context.get("message"), error=repr(context.get("exception")))
