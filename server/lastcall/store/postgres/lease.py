"""The lease connection: it holds an instance's lock, renews its lease and receives notifications of closed rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import asyncpg
import trio

from ..errors import StoreError, StoreUnavailable
from ..lease import Changed
from ..queries import QUERIES
from .calls import bounded_call
from .loop import AsyncioLoop
from .network import Connector
from .preparation.settings import SETTINGS, set_session

P = ParamSpec("P")
T = TypeVar("T")

# For one statement; a connection that takes longer is replaced. Not less: a stall that other instances hardly notice
# must not cost anybody their lease connection.
LEASE_COMMAND_SECONDS = 2.5
# Between attempts to connect that run at once: one that was begun while the link was down may hang long after that.
STAGGER_SECONDS = 0.3
ATTEMPTS_MAX = 8  # at once
IDLE_SECONDS = 2.0  # a process frozen in the middle of a transaction must not hold its locks against its own reaping
LEASE_CALL_SECONDS = 3.0  # above LEASE_COMMAND_SECONDS: only for a server that does not answer at all
CLOSED_MAX = 10_000  # notifications not yet read
HEX_DIGITS = 32  # of an id in a notification of changes
WEBHOOKS_CHANNEL = "lastcall_webhooks"


class PostgresLeaseConnection:
    """Implements `LeaseConnection`. Not from the pool: a reset would drop its lock and its listener."""

    def __init__(self, connection: Any, loop: AsyncioLoop, instance_id: UUID) -> None:
        self._connection = connection
        self._loop = loop
        self._instance_id = instance_id
        self._locked = False
        self._closed: list[UUID] = []
        self._overflowed = False
        self._news = trio.Event()
        self._changed: Changed = lambda _session_id, _message_ids: None
        self._webhooks_changed: Callable[[], object] = lambda: None

    async def renew(self) -> bool:
        if not self._locked:
            self._locked = bool(await self._fetch("take_lease_lock", self._instance_id))
        return await _call(self._loop, renew_lease, self._connection, self._instance_id)

    async def closed_among(self, session_ids: Sequence[UUID], stored: Collection[UUID] = ()) -> Sequence[UUID]:
        return [row["session_id"] for row in await self._fetch("closed_among", session_ids, list(stored))]

    def closed_by_others(self) -> Sequence[UUID] | None:
        closed, self._closed = self._closed, []
        overflowed, self._overflowed = self._overflowed, False
        self._news = trio.Event()
        return None if overflowed else closed

    def hear_changes_with(self, changed: Changed) -> None:
        self._changed = changed

    def hear_webhooks_with(self, changed: Callable[[], object]) -> None:
        self._webhooks_changed = changed

    async def news(self) -> None:
        await self._news.wait()

    async def listen(self) -> None:
        """Begins to receive notifications."""
        channel = f"lastcall_{self._instance_id.hex}"
        await _call(self._loop, self._connection.add_listener, channel, self._on_notification)
        await _call(self._loop, self._connection.add_listener, WEBHOOKS_CHANNEL, lambda *_: self._webhooks_changed())
        self._connection.add_termination_listener(lambda _: self._news.set())

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        # Called by asyncio, which must not see an exception from here.
        session_id, is_change, message_ids = payload.partition(" ")
        if is_change:
            with contextlib.suppress(ValueError):
                self._changed(UUID(session_id), _ids_of(message_ids))
            return
        if len(self._closed) < CLOSED_MAX:
            with contextlib.suppress(ValueError):
                self._closed.append(UUID(payload))
        else:
            self._overflowed = True
        self._news.set()

    async def _fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        sql = QUERIES[query]
        return await _call(self._loop, self._connection.fetch, sql, *args, timeout=LEASE_COMMAND_SECONDS)


def _ids_of(text: str) -> Sequence[UUID] | None:
    """The ids of a notification, each in hex digits; None where it names none. Raises `ValueError`."""
    return [UUID(text[at : at + HEX_DIGITS]) for at in range(0, len(text), HEX_DIGITS)] or None


@contextlib.asynccontextmanager
async def open_lease_connection(
    connector: Connector, loop: AsyncioLoop, instance_id: UUID
) -> AsyncIterator[PostgresLeaseConnection]:
    """Connects; leaving the block drops the connection and with it the lock. Raises `StoreUnavailable`."""
    settings = {
        "tcp_user_timeout": "10s",
        "statement_timeout": f"{LEASE_COMMAND_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:g}s",
    }
    set_up = partial(set_session, settings={**connector.settings, **SETTINGS, **settings})
    connection = await _call(loop, _connect_soon, connector, set_up)
    try:
        lease = PostgresLeaseConnection(connection, loop, instance_id)
        await lease.listen()
        yield lease
    finally:
        connection.terminate()


async def renew_lease(connection: Any, instance_id: UUID) -> bool:
    """Sets the heartbeat. False: the instance was declared dead or has stopped."""
    # A frozen database runs on waking the statements it was sent before, even if their sender has died meanwhile.
    # A single statement would then be a heartbeat of a dead instance; a BEGIN that nothing follows is not.
    async with connection.transaction():
        return bool(await connection.fetch(QUERIES["renew_instance"], instance_id, timeout=LEASE_COMMAND_SECONDS))


async def _connect_soon(connector: Connector, set_up: Callable[[Any], Awaitable[None]]) -> Any:
    """Returns the first connection of several attempts, each begun a moment after the other while none has ended.

    Not one after the other with less time for each: over a slow link no attempt would ever be given the time it takes.
    """
    attempts: set[asyncio.Task[Any]] = set()
    try:
        while True:
            if len(attempts) < ATTEMPTS_MAX:
                attempts.add(asyncio.ensure_future(_connect(connector, set_up)))
            ended, attempts = await asyncio.wait(attempts, timeout=STAGGER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            connected = [each for each in ended if each.exception() is None]
            attempts.update(connected[1:])
            if connected or (ended and not attempts):
                return (connected or list(ended))[0].result()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_drop)


def _drop(attempt: asyncio.Task[Any]) -> None:
    """Drops the connection of an attempt that nobody waits for any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


async def _connect(connector: Connector, set_up: Callable[[Any], Awaitable[None]]) -> Any:
    return await connector.open(set_up, command_seconds=LEASE_COMMAND_SECONDS, purpose="guard")


async def _call(
    loop: AsyncioLoop,
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
