"""The store's connections, and how it asks its questions on them.

asyncpg's pool opens, counts and replaces the connections. Returning one to the pool takes a task, a shield and a
timeout, nearly as much work as a short query; so a connection in good order is not returned, but kept for the next
caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import trio
import trio_asyncio

from ..commits import COMMITS_MAX
from ..errors import StoreUnavailable
from ..queries import QUERIES
from .calls import CALL_SECONDS, bounded_call

CONNECTIONS = 6
CONNECTIONS_FOR_WRITES = COMMITS_MAX + 1  # that readers cannot take: for commits, and for urgent questions
CONNECT_SECONDS = 3.0
COMMAND_SECONDS = 5.0


class Connections:
    """Lends out the connections of a pool. To be used from asyncio.

    pool: nobody else may take its connections.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(pool.get_max_size())

    @property
    def count(self) -> int:
        """The number of open connections."""
        return self._pool.get_size()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Lends one connection for the block.

        Raises `TimeoutError` where none comes free, or can be opened, within `CONNECT_SECONDS`.
        """
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
                # It may be broken, or in the middle of a statement: the pool resets or replaces it.
                await self._pool.release(connection)
                raise
            self._idle.append(connection)
        finally:
            self._free.release()

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            with suppress(asyncpg.InterfaceError):  # one that was cut has left the pool, and refuses every method
                if not connection.is_closed():
                    return connection
            await self._pool.release(connection)
        return await self._pool.acquire(timeout=CONNECT_SECONDS)

    async def open_all(self, prepare: Callable[[Any], Awaitable[None]]) -> None:
        """Opens and prepares all connections, one after the other."""
        async with AsyncExitStack() as held:  # held together: a returned one would be lent again
            for _ in range(self._pool.get_max_size()):
                await prepare(await held.enter_async_context(self.one()))

    async def close(self) -> None:
        """Closes all, waiting for those that are in use."""
        while self._idle:
            await self._pool.release(self._idle.pop())
        await self._pool.close()

    def terminate(self) -> None:
        """Drops all connections at once."""
        self._pool.terminate()


class Queries:
    """Asks PostgreSQL, from Trio. Readers wait their turn, so that they leave connections for writes."""

    def __init__(self, url: str, connections: Connections, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self._url = url
        self._connections = connections
        self._loop = loop
        self._readers = trio.CapacityLimiter(CONNECTIONS - CONNECTIONS_FOR_WRITES)

    async def fetch(self, query: str, *args: object, urgent: bool = False) -> list[asyncpg.Record]:
        """The rows of a query of `queries.sql`, by its name. See `select`."""
        return await self.select(QUERIES[query], *args, urgent=urgent)

    async def select(self, sql: str, *args: object, urgent: bool = False) -> list[asyncpg.Record]:
        """The rows of a statement.

        Args:
            sql: The statement, with `$1` and so on for `args`.
            urgent: Whether it skips the readers' queue: for an instance and its lease, which readers must not delay.

        Raises:
            StoreError: It failed; `StoreUnavailable` where it may work later, also if no connection came free within
                `CALL_SECONDS` or the answer took longer than that.
        """
        if urgent:
            return await bounded_call(self._loop, CALL_SECONDS, self._run, sql, *args)
        with trio.move_on_after(CALL_SECONDS) as waiting:
            async with self._readers:
                waiting.deadline = math.inf
                return await bounded_call(self._loop, CALL_SECONDS, self._run, sql, *args)
        raise StoreUnavailable(f"no connection was free within {CALL_SECONDS:g} s")

    async def _run(self, sql: str, *args: object) -> list[asyncpg.Record]:
        async with self._connections.one() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args, timeout=COMMAND_SECONDS)
            return rows
