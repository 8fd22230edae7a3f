"""This server process as an instance in the database: its lease, renewed every second, and the loss of it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from uuid import UUID, uuid4

import structlog
import trio

from .. import __version__
from ..config import Settings
from ..logs.trouble import Trouble
from ..metrics import Metrics
from ..runtime.host import host_id, process_started
from ..store.errors import StoreError
from ..store.lease import LeaseConnection
from ..store.records import EndReason, Instance
from ..store.store import Store
from .changes import Changes
from .death import GAP_SECONDS
from .registry import Registry

STOP_SECONDS = 2.0
HELD_SECONDS = 10.0  # that a start waits for its lease
# After a lease connection was lost, or could not be opened. Others wait no longer than `gone_seconds` for it.
RECONNECT_SECONDS = 0.1
RECONNECT_SECONDS_MAX = 1.0  # once the lease has run out anyway

_log = structlog.get_logger(__name__)


class LeaseNotHeld(Exception):
    """A start could not take its lease; the message is one line for the user that includes the fix."""


class InstanceLease:
    """The lease of this process's current instance. After losing it, the process goes on as a new instance.

    Attributes:
        instance_id: Changes when a lease is lost. A session keeps the one that it began under.
        changes: Of other sessions in the conversations of this server's; heard on the lease connection.
        guarded: Set when the lease is renewed on its own connection for the first time.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        metrics: Metrics | None = None,
        webhooks_changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._metrics = metrics or Metrics()
        self._webhooks_changed = webhooks_changed
        self._renewed_at = self._guarded_at = -inf
        self._trouble = Trouble()
        self.changes = Changes(store)
        self.host_id = host_id()
        self.instance_id = uuid4()
        self.guarded = trio.Event()

    @property
    def held(self) -> bool:
        """Whether the lease was renewed of late, on whatever connection."""
        return self.age_seconds <= GAP_SECONDS

    @property
    def age_seconds(self) -> float:
        """Since the lease was last renewed; infinite where it never was."""
        return trio.current_time() - self._renewed_at

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
            async with trio.open_nursery() as until_lost:
                until_lost.start_soon(self._renew_guarded, until_lost.cancel_scope)
                until_lost.start_soon(self._renew_unguarded, until_lost.cancel_scope)
            await self._start_anew()
            await trio.sleep(RECONNECT_SECONDS)

    async def _renew_guarded(self, until_lost: trio.CancelScope) -> None:
        """Renews on the lease connection, and opens another one whenever that is lost."""
        lost_at = trio.current_time()
        while True:
            try:
                async with self._store.open_lease_connection(self.instance_id) as connection:
                    connection.hear_changes_with(self.changes.changed)
                    connection.hear_webhooks_with(self._webhooks_changed)
                    self._webhooks_changed()  # what was told while there was no connection is lost
                    self.changes.heard_nothing()
                    await self._renew(connection)
                until_lost.cancel()
            except StoreError as error:
                self._metrics.lease_connections_lost.inc()
                self._note_trouble(error)
            lost_at = max(lost_at, self._guarded_at)
            hopeless = trio.current_time() - lost_at > self._settings.lease_seconds
            await trio.sleep(RECONNECT_SECONDS_MAX if hopeless else RECONNECT_SECONDS)

    async def _renew(self, connection: LeaseConnection) -> None:
        """Renews until the lease is lost, and stops sessions whose rows others closed."""
        closed: Sequence[UUID] | None = None
        while await connection.renew():
            self._renewed_at = self._guarded_at = trio.current_time()
            self.guarded.set()
            self._trouble.over()
            if closed is None:
                closed = await self._closed_meanwhile(connection)
            self._stop_sessions(closed)
            with trio.move_on_after(self._settings.heartbeat_seconds):
                await connection.news()
            closed = connection.closed_by_others()

    async def _renew_unguarded(self, until_lost: trio.CancelScope) -> None:
        """Renews on other connections while the lease connection is away, and looks for rows that others closed.

        A password that was rotated, or a limit of connections, lets those that are open work on, but opens no other.
        """
        while True:
            await trio.sleep(self._settings.heartbeat_seconds)
            if trio.current_time() - self._guarded_at <= 2 * self._settings.heartbeat_seconds:
                continue
            try:
                if not await self._store.renew_lease(self.instance_id):
                    until_lost.cancel()
                self._renewed_at = trio.current_time()
                self._stop_sessions(await self._closed_meanwhile(self._store))
                self.changes.heard_nothing()
            except StoreError as error:
                self._note_trouble(error)

    async def _closed_meanwhile(self, source: LeaseConnection | Store) -> Sequence[UUID]:
        """Checks the rows of all open sessions: notifications of the time without a connection are lost.

        On the lease connection where there is one: after an outage, those of the pool may be stuck for seconds.
        """
        open_here = {session.session_id: session for session in self._registry}
        stored = [key for key, session in open_here.items() if session.row_stored]
        return await source.closed_among(list(open_here), stored) if open_here else []

    def _stop_sessions(self, closed: Sequence[UUID]) -> None:
        for session_id in closed:
            session = self._registry.get(session_id)
            if session is not None:
                session.stop(EndReason.CLOSED_ELSEWHERE)

    def _note_trouble(self, error: StoreError) -> None:
        """Logs it, but not again and again."""
        if self._trouble.is_new(error):
            _log.warning("lease_not_renewed", error=str(error))

    async def _start_anew(self) -> None:
        """Stops all sessions, since whoever declared this instance dead closed their rows, and registers a new one."""
        self._metrics.leases_lost.inc()
        _log.error("lease_lost", instance_id=str(self.instance_id), sessions=len(self._registry))
        self._renewed_at = self._guarded_at = -inf
        for session in self._registry:
            session.stop(EndReason.OWNER_DIED)
        while True:
            try:
                await self.register()
            except StoreError as error:
                self._note_trouble(error)
                await trio.sleep(RECONNECT_SECONDS_MAX)
            else:
                _log.info("instance_started_anew", instance_id=str(self.instance_id))
                return

    def log_start(self) -> None:
        """To be called once the server takes connections: `ready` is the first line of its log."""
        _log.info("instance_started", instance_id=str(self.instance_id), version=__version__, pid=os.getpid())

    async def wait_held(self) -> None:
        """Returns once the lease is held, on a connection of its own.

        Raises:
            LeaseNotHeld: It was not within `HELD_SECONDS`.
        """
        with trio.move_on_after(HELD_SECONDS):
            await self.guarded.wait()
        if not self.guarded.is_set():
            raise LeaseNotHeld(
                f"no lease in the database within {HELD_SECONDS:g} s: {self._trouble.last or 'no answer'}"
                " (check its limits of connections)"
            )


@asynccontextmanager
async def open_instance(
    store: Store,
    settings: Settings,
    registry: Registry,
    metrics: Metrics,
    webhooks_changed: Callable[[], object] = lambda: None,
) -> AsyncIterator[InstanceLease]:
    """Takes this process's lease, keeps it until the block is left, and then marks the instance as stopped.

    webhooks_changed: called when endpoints of webhooks may have changed.

    Raises:
        StoreError: The instance could not be registered.
        LeaseNotHeld: Its lease could not be taken.
    """
    lease = InstanceLease(store, settings, registry, metrics, webhooks_changed)
    metrics.lease_held.set_function(lambda: lease.held)
    metrics.lease_age.set_function(lambda: lease.age_seconds)
    await lease.register()
    async with trio.open_nursery() as services:
        services.start_soon(lease.keep)
        try:
            await lease.wait_held()
            yield lease
        finally:
            services.cancel_scope.cancel()
            with trio.move_on_after(STOP_SECONDS, shield=True):
                await _stop(store, lease.instance_id)


async def _stop(store: Store, instance_id: UUID) -> None:
    try:
        await store.stop_instance(instance_id)
    except StoreError as error:
        _log.warning("instance_not_marked_as_stopped", instance_id=str(instance_id), error=str(error))
    else:
        _log.info("instance_stopped", instance_id=str(instance_id))
