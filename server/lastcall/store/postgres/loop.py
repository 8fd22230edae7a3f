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

from .network.sockets import set_up_sockets

HANDLES_MAX = 64  # asyncio callbacks in one pass of Trio's scheduler

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[trio_asyncio.BaseTrioEventLoop]:
    """Runs an asyncio loop for as long as the block lasts."""
    async with trio_asyncio.open_loop() as loop:
        # The default handler raises into trio-asyncio's nursery: one failed background future would end the server.
        loop.set_exception_handler(_log_only)
        _run_many_callbacks_a_pass(loop)
        _trust_callbacks(loop)
        set_up_sockets(loop)
        yield loop


def _run_many_callbacks_a_pass(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """Runs up to `HANDLES_MAX` queued callbacks per pass of Trio's scheduler, where trio-asyncio runs one.

    A database call is two dozen callbacks. With one per pass, and passes that get longer with every connection, calls
    took up to nine times as long under load, and ends of sessions waited 0.1 s for their commit.

    Also drops cancelled timers: every call sets a timeout and cancels it, and the loop would wake up for it later.
    """
    run_one = loop._main_loop_one  # noqa: SLF001 - there is no public hook; test_loop.py checks these names
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
    """Skips a check of every callback that asyncio makes in debug mode only: it took 5 % of a server's CPU time."""
    if not loop.get_debug():
        loop._check_callback = lambda *_: None  # noqa: SLF001


def _log_only(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.debug("asyncio_exception", message=context.get("message"), error=repr(context.get("exception")))
