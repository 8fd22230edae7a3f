"""A store's connections, on the asyncio side: who needs one takes it, and leaves it for the next.

asyncpg's pool opens, counts and replaces them. It makes a task, a shield and a time limit to take one back, nearly as
much work as a short query; so one that is in good order is not given back, but kept at hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

CONNECT_SECONDS = 3.0


class Connections:
    """At most as many as the pool allows.

    pool: all its connections are these, and nobody else's.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(pool.get_max_size())

    @property
    def count(self) -> int:
        """How many are open."""
        return self._pool.get_size()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """One connection for the block. Raises `TimeoutError` where none comes free, or opens, in `CONNECT_SECONDS`."""
        if self._free.locked():
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._free.acquire()
        else:
            await self._free.acquire()
        try:
            connection = await self._take()
            try:
                yield connection
            except BaseException:
                # Perhaps it is broken, or was left in the middle of something: asyncpg knows what to do with it.
                await self._pool.release(connection)
                raise
            self._idle.append(connection)
        finally:
            self._free.release()

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            await self._pool.release(connection)
        return await self._pool.acquire(timeout=CONNECT_SECONDS)

    async def open_all(self, prepare: Callable[[Any], Awaitable[None]]) -> None:
        """Opens and prepares all, one after the other."""
        async with AsyncExitStack() as held:  # all at once: one that is given back would be taken again
            for _ in range(self._pool.get_max_size()):
                await prepare(await held.enter_async_context(self.one()))

    async def close(self) -> None:
        """Waits for those that are in use."""
        while self._idle:
            await self._pool.release(self._idle.pop())
        await self._pool.close()

    def terminate(self) -> None:
        """At once."""
        self._pool.terminate()
