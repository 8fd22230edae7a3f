"""An instance's guard: the one connection that holds its lock, renews its lease and hears of rows closed by others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import asyncpg
import structlog
import trio
import trio_asyncio

from ..errors import StoreError, StoreUnavailable
from ..queries import QUERIES
from .calls import bounded, store_error

P = ParamSpec("P")
T = TypeVar("T")

GAP_SECONDS = 1.5  # without a heartbeat: the database was out of reach
# A renewal; a connection that takes longer is given up. Above GAP_SECONDS: in a stall that the others do not even
# notice, nobody's guard may go.
GUARD_SECONDS = 2.5
IDLE_SECONDS = 2.0  # a process frozen in the middle of a transaction must not hold its locks against its own reaping
ANSWER_SECONDS = 3.0  # above GUARD_SECONDS: only for a server that does not answer at all
CLOSED_MAX = 10_000  # notifications not yet looked at

_log = structlog.get_logger(__name__)


class PostgresLeaseConnection:
    """`store.LeaseConnection`; not a pooled one, which would lose its lock and listener when it is reset."""

    def __init__(self, connection: Any, loop: trio_asyncio.BaseTrioEventLoop, instance_id: UUID) -> None:
        self._connection = connection
        self._loop = loop
        self._instance_id = instance_id
        self._closed: list[UUID] = []
        self._overflown = False
        self._news = trio.Event()

    async def renew(self) -> bool:
        return bool(await self._call(self._renew))

    async def _renew(self) -> Sequence[Any]:
        # A frozen database does on waking what it was sent before, also by a process that has died meanwhile. As one
        # statement, that would be a heartbeat of the dead; a BEGIN that nothing follows is none.
        async with self._connection.transaction():
            return await self._connection.fetch(QUERIES["renew_instance"], self._instance_id, GAP_SECONDS)  # type: ignore[no-any-return]

    async def closed_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        return [row["session_id"] for row in await self._fetch("closed_among", session_ids)]

    def closed_by_others(self) -> Sequence[UUID] | None:
        closed, self._closed = self._closed, []
        overflown, self._overflown = self._overflown, False
        self._news = trio.Event()
        return None if overflown else closed

    async def news(self) -> None:
        await self._news.wait()

    async def take(self) -> None:
        """Takes the lock and listens. Raises `StoreUnavailable`, also while an earlier guard's lock is still held."""
        await self._call(self._connection.add_listener, f"lastcall_{self._instance_id.hex}", self._on_notification)
        self._connection.add_termination_listener(lambda _: self._news.set())
        if not await self._fetch("guard_instance", self._instance_id):
            raise StoreUnavailable("the lock of an earlier connection is still held")

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        # Called by asyncio, which must not see an exception of ours.
        if len(self._closed) < CLOSED_MAX:
            with contextlib.suppress(ValueError):
                self._closed.append(UUID(payload))
        else:
            self._overflown = True
        self._news.set()

    async def _fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        return await self._call(self._connection.fetch, QUERIES[query], *args, timeout=GUARD_SECONDS)

    async def _call(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _unavailable_or(self._loop, operation, *args, **kwargs)


async def _unavailable_or(
    loop: trio_asyncio.BaseTrioEventLoop, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """A call on the guard's connection; whatever goes wrong, the connection has to be replaced."""
    try:
        return await bounded(loop, ANSWER_SECONDS, operation, *args, **kwargs)
    except StoreError as error:
        raise StoreUnavailable(str(error)) from error
    except Exception as error:
        raise StoreUnavailable(str(store_error(error))) from error


@contextlib.asynccontextmanager
async def open_lease_connection(
    url: str, loop: trio_asyncio.BaseTrioEventLoop, instance_id: UUID
) -> AsyncIterator[PostgresLeaseConnection]:
    """Connects and takes the lock. Leaving drops the connection, and the lock with it. Raises `StoreUnavailable`."""
    settings = {
        "application_name": "lastcall guard",
        "tcp_user_timeout": "10s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s",
    }
    connection = await _unavailable_or(loop, _connect, url, settings)
    try:
        guard = PostgresLeaseConnection(connection, loop, instance_id)
        await guard.take()
        yield guard
    finally:
        connection.terminate()


async def _connect(url: str, settings: dict[str, str]) -> Any:
    return await asyncpg.connect(url, timeout=GUARD_SECONDS, command_timeout=GUARD_SECONDS, server_settings=settings)
