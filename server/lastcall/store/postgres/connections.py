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
from typing import Any, TypeVar

import asyncpg
import trio

from ...metrics import Metrics
from ..commits import COMMITS_MAX
from ..errors import StoreUnavailable, reason_of
from ..queries import QUERIES
from .calls import CALL_SECONDS, bounded_call, connection_at_fault, timed
from .loop import AsyncioLoop
from .network import Connector

CONNECTIONS = 6
CONNECTIONS_FOR_WRITES = COMMITS_MAX + 1  # that readers cannot take: for commits, and for urgent questions
FREE_SECONDS = 3.0
CONNECT_SECONDS = 5.0  # for one connection, on whichever host; each host has a deadline of its own
COMMAND_SECONDS = 5.0
QUIET_SECONDS = 5.0  # after that long without use, a connection is checked first
CHECK_SECONDS = 0.5
SCARCE_SECONDS = 1.0  # after the database refused one more connection, for which those that are open have to do

T = TypeVar("T")


class Connections:
    """Lends out the connections of a pool. To be used from asyncio.

    pool: nobody else may take its connections. writes: a connection that has become read-only is of no use.
    """

    def __init__(self, pool: asyncpg.Pool, *, writes: bool = True) -> None:
        self._pool = pool
        self._writes = writes
        self._idle: list[tuple[Any, float]] = []  # and since when
        self._trusted_since = -math.inf
        self._free = asyncio.Semaphore(pool.get_max_size())
        self._lent = 0
        self._returned = asyncio.Event()  # set when one comes back, and replaced
        self._scarce_until = -math.inf

    @property
    def count(self) -> int:
        """The number of open connections."""
        return self._pool.get_size()

    @property
    def lent(self) -> int:
        """The number of connections that are in use."""
        return self._lent

    async def run(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Runs an idempotent operation on a connection, and once more on another where the connection was at fault.

        Idle connections are cut by people, poolers, firewalls and failovers; no user need notice.
        """
        try:
            async with self.one() as connection:
                return await operation(connection)
        except Exception as error:
            # After a timeout, too little time is left.
            if not connection_at_fault(error) or isinstance(error, TimeoutError):
                raise
        async with self.one() as connection:
            return await operation(connection)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Lends one connection for the block.

        Raises `StoreUnavailable` where none can be opened, and `TimeoutError` where none comes free within
        `FREE_SECONDS`.
        """
        if self._free.locked():
            async with asyncio.timeout(FREE_SECONDS):
                await self._free.acquire()
        else:
            await self._free.acquire()
        try:
            connection = await self._take()
            self._lent += 1
            try:
                yield connection
            except BaseException as error:
                if connection_at_fault(error):
                    self._suspect_all()
                    _drop(connection)
                else:
                    # It may be in the middle of a statement: the pool resets or replaces it.
                    await self._pool.release(connection)
                raise
            else:
                self._idle.append((connection, _now()))
            finally:
                self._lent -= 1
                self._returned.set()
                self._returned = asyncio.Event()
        finally:
            self._free.release()

    async def _take(self) -> Any:
        """One that is open, or another one; where the database allows no more, one that comes back in time."""
        until = _now() + FREE_SECONDS
        while (connection := await self._take_idle()) is None:
            returned = self._returned
            try:
                if self._lent == 0 or _now() >= self._scarce_until:
                    return await self._open()
            except StoreUnavailable as error:
                is_scarce = isinstance(error.__cause__, asyncpg.TooManyConnectionsError)
                if not is_scarce or (self._lent == 0 and not self._idle) or _now() >= until:
                    raise
                self._scarce_until = _now() + SCARCE_SECONDS
            # Not longer: others may have left some to us meanwhile.
            with suppress(TimeoutError):
                async with asyncio.timeout(SCARCE_SECONDS):
                    await returned.wait()
        return connection

    async def _take_idle(self) -> Any | None:
        while self._idle:
            connection, since = self._idle.pop()
            if not _is_open(connection):
                _drop(connection)
            elif since > max(self._trusted_since, _now() - QUIET_SECONDS) or await self._is_of_use(connection):
                return connection
            else:
                # The others have been idle for longer still: do not wait for each of them.
                for each in (connection, *(idle for idle, _ in self._idle)):
                    _drop(each)
                self._idle.clear()
        return None

    async def _is_of_use(self, connection: Any) -> bool:
        """Asks the server. A firewall may have forgotten the connection, the server may have become a standby."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                is_read_only = await connection.fetchval(QUERIES["is_read_only"])
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            return False
        return not (is_read_only and self._writes)

    def _suspect_all(self) -> None:
        """Has idle connections checked before their use: what ended one may have ended them all."""
        self._trusted_since = _now()

    async def _open(self) -> Any:
        try:
            return await self._pool.acquire(timeout=CONNECT_SECONDS)
        except Exception as error:
            # Whatever the database said, no statement is to blame.
            raise StoreUnavailable(f"cannot connect: {reason_of(error)}") from error

    async def open_all(self, prepare: Callable[[Any], Awaitable[None]]) -> None:
        """Opens and prepares all connections, one after the other."""
        async with AsyncExitStack() as held:  # held together: a returned one would be lent again
            for _ in range(self._pool.get_max_size()):
                await prepare(await held.enter_async_context(self.one()))

    async def close(self) -> None:
        """Closes all, waiting for those that are in use."""
        while self._idle:
            await self._pool.release(self._idle.pop()[0])
        await self._pool.close()

    def terminate(self) -> None:
        """Drops all connections at once."""
        self._pool.terminate()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_open(connection: Any) -> bool:
    with suppress(asyncpg.InterfaceError):  # one that was cut has left the pool, and refuses every method
        return not connection.is_closed()
    return False


def _drop(connection: Any) -> None:
    """Closes a connection without a word to the server; the pool opens another when it is needed."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


class Queries:
    """Asks PostgreSQL, from Trio. Readers wait their turn, so that they leave connections for writes."""

    def __init__(self, connector: Connector, connections: Connections, loop: AsyncioLoop, metrics: Metrics) -> None:
        self._connector = connector
        self._connections = connections
        self._loop = loop
        self._metrics = metrics
        metrics.connections_open.set_function(lambda: connections.count)
        metrics.connections_used.set_function(lambda: connections.lent)
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
            return await self._ask(sql, *args)
        try:
            self._readers.acquire_nowait()  # mostly there is no queue, and to wait in it takes a scope and a deadline
        except trio.WouldBlock:
            await self._wait_for_turn()
        try:
            return await self._ask(sql, *args)
        finally:
            self._readers.release()

    async def _wait_for_turn(self) -> None:
        with trio.move_on_after(CALL_SECONDS):
            await self._readers.acquire()
            return
        raise StoreUnavailable(f"no connection was free within {CALL_SECONDS:g} s")

    async def _ask(self, sql: str, *args: object) -> list[asyncpg.Record]:
        async def fetch(connection: Any) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args, timeout=COMMAND_SECONDS)
            return rows

        with timed(self._metrics, "query"):
            return await bounded_call(self._loop, CALL_SECONDS, self._connections.run, fetch)
