"""This server process as an instance in the database: its lease, renewed every second, and the loss of it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import structlog
import trio

from .. import __version__
from ..config import Settings
from ..runtime.host import host_id, process_started
from ..store.errors import StoreError
from ..store.lease import LeaseConnection
from ..store.records import EndReason, Instance
from ..store.store import Store
from .registry import Registry

STOP_SECONDS = 2.0
RECONNECT_SECONDS = 0.25  # after a lease connection was lost

_log = structlog.get_logger(__name__)


class InstanceLease:
    """The lease of this process's current instance. After losing it, the process goes on as a new instance.

    Attributes:
        instance_id: Changes when a lease is lost. A session keeps the one that it began under.
        held: Whether the lease is being renewed, as far as this process knows.
        renewed: Set when the lease is renewed for the first time.
    """

    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self.host_id = host_id()
        self.instance_id = uuid4()
        self.held = False
        self.renewed = trio.Event()

    async def register(self) -> None:
        """Registers this process as a new instance."""
        instance_id = uuid4()
        await self._store.register_instance(
            Instance(
                instance_id=instance_id,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                lease_seconds=self._settings.lease_seconds,
                host_id=self.host_id,
                process_started=process_started(os.getpid()),
            )
        )
        self.instance_id = instance_id

    async def keep(self) -> None:
        """Renews the lease for ever. A lost connection is replaced, a lost lease followed by a new instance."""
        while True:
            try:
                async with self._store.open_lease_connection(self.instance_id) as connection:
                    await self._renew(connection)
                await self._start_anew()
            except StoreError as error:
                _log.warning("lease_not_renewed", error=str(error))
            finally:
                self.held = False
            await trio.sleep(RECONNECT_SECONDS)

    async def _renew(self, connection: LeaseConnection) -> None:
        """Renews until the lease is lost, and stops sessions whose rows others closed."""
        closed: Sequence[UUID] | None = None
        while await connection.renew():
            self.held = True
            self.renewed.set()
            if closed is None:
                closed = await self._closed_meanwhile(connection)
            for session_id in closed:
                self._stop_session(session_id)
            with trio.move_on_after(self._settings.heartbeat_seconds):
                await connection.news()
            closed = connection.closed_by_others()

    async def _closed_meanwhile(self, connection: LeaseConnection) -> Sequence[UUID]:
        """Checks the rows of all open sessions: notifications of the time without a connection are lost.

        On the lease connection: after an outage, those of the pool may be stuck for seconds.
        """
        open_here = {session.session_id: session for session in self._registry}
        stored = [key for key, session in open_here.items() if session.row_stored]
        return await connection.closed_among(list(open_here), stored) if open_here else []

    def _stop_session(self, session_id: UUID) -> None:
        session = self._registry.get(session_id)
        if session is not None:
            session.stop(EndReason.CLOSED_ELSEWHERE)

    async def _start_anew(self) -> None:
        """Stops all sessions, since whoever declared this instance dead closed their rows, and registers a new one."""
        _log.error("lease_lost", instance_id=str(self.instance_id), sessions=len(self._registry))
        for session in self._registry:
            session.stop(EndReason.OWNER_DIED)
        await self.register()


@asynccontextmanager
async def open_instance(store: Store, settings: Settings, registry: Registry) -> AsyncIterator[InstanceLease]:
    """Registers this process, keeps its lease until the block is left, and then marks the instance as stopped.

    Raises:
        StoreError: The instance could not be registered.
    """
    lease = InstanceLease(store, settings, registry)
    await lease.register()
    async with trio.open_nursery() as services:
        services.start_soon(lease.keep)
        try:
            yield lease
        finally:
            services.cancel_scope.cancel()
            with trio.move_on_after(STOP_SECONDS, shield=True):
                await _stop(store, lease.instance_id)


async def _stop(store: Store, instance_id: UUID) -> None:
    try:
        await store.stop_instance(instance_id)
    except StoreError as error:
        _log.warning("instance_not_marked_as_stopped", error=str(error))
