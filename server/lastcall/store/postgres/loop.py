"""The asyncio loop that asyncpg runs on, inside Trio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import structlog
import trio_asyncio

from .callbacks import AsyncioLoop
from .network.sockets import set_up_sockets

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[AsyncioLoop]:
    """Runs an asyncio loop for as long as the block lasts."""
    async with trio_asyncio.open_loop() as loop:
        # The default handler raises into trio-asyncio's nursery: one failed background future would end the server.
        loop.set_exception_handler(_log_only)
        set_up_sockets(loop)
        yield AsyncioLoop(loop)


def _log_only(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.debug("asyncio_exception", message=context.get("message"), error=repr(context.get("exception")))
