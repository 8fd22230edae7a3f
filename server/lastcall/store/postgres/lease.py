"""The lease connection: it holds an instance's lock, renews its lease and receives notifications of closed rows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import asyncpg
import trio
import trio_asyncio

from ..errors import StoreError, StoreUnavailable
from ..queries import QUERIES
from .calls import bounded_call
from .network import Connector
from .preparation.settings import SETTINGS, set_session

P = ParamSpec("P")
T = TypeVar("T")

GAP_SECONDS = 1.5  # without a heartbeat: the database was out of reach
# For one statement; a connection that takes longer is replaced. Above GAP_SECONDS: a stall that other instances do not
# even notice must not cost anybody their lease connection.
LEASE_COMMAND_SECONDS = 2.5
IDLE_SECONDS = 2.0  # a process frozen in the middle of a transaction must not hold its locks against its own reaping
LEASE_CALL_SECONDS = 3.0  # above LEASE_COMMAND_SECONDS: only for a server that does not answer at all
CLOSED_MAX = 10_000  # notifications not yet read


class PostgresLeaseConnection:
    """Implements `LeaseConnection`. Not from the pool: a reset would drop its lock and its listener."""

    def __init__(self, connection: Any, loop: trio_asyncio.BaseTrioEventLoop, instance_id: UUID) -> None:
        self._connection = connection
        self._loop = loop
        self._instance_id = instance_id
        self._closed: list[UUID] = []
        self._overflowed = False
        self._news = trio.Event()

    async def renew(self) -> bool:
        return bool(await _call(self._loop, self._renew))

    async def _renew(self) -> Sequence[Any]:
        # A frozen database runs on waking the statements it was sent before, even if their sender has died meanwhile.
        # A single statement would then be a heartbeat of a dead instance; a BEGIN that nothing follows is not.
        async with self._connection.transaction():
            return await self._connection.fetch(QUERIES["renew_instance"], self._instance_id, GAP_SECONDS)  # type: ignore[no-any-return]

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        return [row["session_id"] for row in await self._fetch("closed_among", session_ids, list(stored))]

    def closed_by_others(self) -> Sequence[UUID] | None:
        closed, self._closed = self._closed, []
        overflowed, self._overflowed = self._overflowed, False
        self._news = trio.Event()
        return None if overflowed else closed

    async def news(self) -> None:
        await self._news.wait()

    async def take_lock(self) -> None:
        """Listens and takes the lock. Raises `StoreUnavailable`, also while an earlier connection still holds it."""
        channel = f"lastcall_{self._instance_id.hex}"
        await _call(self._loop, self._connection.add_listener, channel, self._on_notification)
        self._connection.add_termination_listener(lambda _: self._news.set())
        if not await self._fetch("take_lease_lock", self._instance_id):
            raise StoreUnavailable("the lock of an earlier connection is still held")

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        # Called by asyncio, which must not see an exception from here.
        if len(self._closed) < CLOSED_MAX:
            with contextlib.suppress(ValueError):
                self._closed.append(UUID(payload))
        else:
            self._overflowed = True
        self._news.set()

    async def _fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        sql = QUERIES[query]
        return await _call(self._loop, self._connection.fetch, sql, *args, timeout=LEASE_COMMAND_SECONDS)


@contextlib.asynccontextmanager
async def open_lease_connection(
    connector: Connector, loop: trio_asyncio.BaseTrioEventLoop, instance_id: UUID
) -> AsyncIterator[PostgresLeaseConnection]:
    """Connects and takes the lock; leaving the block drops the connection and the lock. Raises `StoreUnavailable`."""
    settings = {
        "tcp_user_timeout": "10s",
        "statement_timeout": f"{LEASE_COMMAND_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s",
    }
    set_up = partial(set_session, settings={**connector.settings, **SETTINGS, **settings})
    connection = await _call(
        loop, partial(connector.open, set_up, command_seconds=LEASE_COMMAND_SECONDS, purpose="guard")
    )
    try:
        lease = PostgresLeaseConnection(connection, loop, instance_id)
        await lease.take_lock()
        yield lease
    finally:
        connection.terminate()


async def _call(
    loop: trio_asyncio.BaseTrioEventLoop,
    operation: Callable[P, Coroutine[Any, Any, T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """A call on the lease connection. Whatever fails, the answer is to replace the connection."""
    try:
        return await bounded_call(loop, LEASE_CALL_SECONDS, operation, *args, **kwargs)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise StoreUnavailable(str(error)) from error
