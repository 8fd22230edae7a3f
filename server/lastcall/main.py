"""The picture: the server's nested lifetimes, from the database to the last connection.

No other module opens a nursery that outlives one connection, but for the services that it asks for here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
import trio

from .agents.agent import Agent
from .agents.select import open_agent
from .auth.authenticator import Authenticator, require_credentials_unless_loopback
from .auth.identity import Presented, Principal
from .config import Settings
from .embedded.postgres import open_embedded
from .limits.gate import Gate
from .limits.limit import Limit
from .listener import Listener, sockets_allowed
from .memory.finalizer import open_finalizer
from .metrics import Metrics
from .realtime.services import Services
from .runtime.background import in_background
from .sessions.instance import open_instance
from .sessions.reaper import Reaper
from .sessions.reconciler import Reconciler
from .sessions.session import Registry
from .shutdown import HURRY_SECONDS, Schedule, Signals, close_sessions, forced_exit
from .store.errors import StoreError
from .store.postgres import DatabaseAddress, open_store
from .store.records import ClientSecret, RememberedFact
from .store.store import Store
from .transport.http1 import HttpServer
from .transport.tls import tls_context
from .web.app import create_app

BACKLOG_CONNECTIONS = 1024
DATABASE_PATIENCE_SECONDS = 5.0  # where it starts or restarts, as in a deploy of both
FIRST_RENEWAL_SECONDS = 3.0  # before it is said that the server is ready

_log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be bound; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What is told once the server takes connections. note: where the data is, if that is a surprise."""

    url: str
    database: str
    agent: str
    note: str | None


async def serve(settings: Settings, announce: Callable[[Ready], None]) -> None:
    """Runs the server until SIGTERM or SIGINT. Lifetimes nest: what is opened last ends first.

    Raises the user errors of its parts: `BadSettings`, `EmbeddedError`, `DatabaseUnusable`, `AgentUnavailable`,
    `CannotListen`.
    """
    tls_context(settings)  # before the rest is started: mistakes are told at once
    signals = Signals(settings.drain_seconds)
    async with trio.open_nursery() as outermost:
        outermost.start_soon(signals.watch)
        with forced_exit(signals):
            async with (
                open_database(settings) as database,
                open_store(
                    database.url,
                    close_seconds=Schedule(settings.drain_seconds).last_commits_seconds,
                    patience=DATABASE_PATIENCE_SECONDS,
                ) as store,
                _kept_from_strangers(store, settings),
                open_agent(settings) as agent,
            ):
                with suppress(StoreError):  # it only saves the first sessions time
                    await store.warm_up()
                sockets = await listen(settings)
                ready = Ready(url_of(settings, sockets), database.describe, agent.describe, database.note)
                await serve_sessions(settings, store, agent, sockets, signals, lambda: announce(ready))
        outermost.cancel_scope.cancel()


async def serve_sessions(
    settings: Settings,
    store: Store,
    agent: Agent,
    sockets: Sequence[trio.SocketListener],
    signals: Signals,
    announce: Callable[[], None],
) -> None:
    """From this instance's registration to its last memory."""
    registry, metrics = Registry(), Metrics(Limit)
    gate = Gate(settings, metrics.count_refusal)
    async with open_instance(store, settings, registry) as lease:
        reconciler = Reconciler(store, lease, registry, metrics)
        with trio.CancelScope() as memory_budget:
            async with (
                in_background(Reaper(store, lease, settings, metrics).run),
                open_finalizer(store, agent, settings) as finalizer,
                in_background(reconciler.run),
            ):
                authenticator = Authenticator(store, settings)
                services = Services(
                    lease, settings, store, agent, finalizer, registry, metrics, authenticator, gate, reconciler
                )
                await serve_connections(services, sockets, signals, announce)
                signals.limit(memory_budget, signals.schedule.memory_until, 0.0)


async def serve_connections(
    services: Services, sockets: Sequence[trio.SocketListener], signals: Signals, announce: Callable[[], None]
) -> None:
    """Accepts connections until the first signal, then lets the open ones end."""
    settings = services.settings
    app = create_app(HttpSide(services), origins=settings.allow_origin, tls=settings.tls_cert is not None)
    http = HttpServer(app)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            listener = Listener(services, http, sockets_allowed(settings), tls_context(settings))
            accepting.start_soon(listener.accept, sockets, connections)
            with trio.move_on_after(FIRST_RENEWAL_SECONDS):
                await services.lease.renewed.wait()
            announce()
            await signals.stop.wait()
            accepting.cancel_scope.cancel()
        services.draining.set()
        await http.stop()
        await close_sessions(services, signals)
        signals.limit(connections.cancel_scope, signals.schedule.sockets_until(), HURRY_SECONDS)


class HttpSide:
    """What the HTTP routes see of the server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.metrics = services.metrics.registry
        self.page_items = services.store.page_items
        self.list_conversations = services.store.list_conversations
        self.gate = services.gate

    async def ready(self) -> str | None:
        if self._services.draining.is_set():
            return "draining"
        try:
            await self._services.store.ping()
        except StoreError:
            return "database unreachable"
        return None if self._services.lease.guarded else "lease not renewed"

    async def principal(self, presented: Presented) -> Principal:
        return await self._services.authenticator.principal(presented)

    @property
    def was_open(self) -> bool:
        return self._services.authenticator.was_open

    @property
    def instructions(self) -> str:
        return self._services.settings.instructions

    async def create_client_secret(self, secret: ClientSecret) -> int:
        return await self._services.store.create_client_secret(secret)

    async def recall(self, user_id: str) -> Sequence[RememberedFact]:
        return await self._services.store.recall(user_id, self._services.settings.recall_memories_max)


@asynccontextmanager
async def _kept_from_strangers(store: Store, settings: Settings) -> AsyncIterator[None]:
    await require_credentials_unless_loopback(Authenticator(store, settings), settings)
    yield


@dataclass(frozen=True, slots=True)
class Database:
    """The database in use. describe: for the ready line, without a password."""

    url: str
    describe: str
    note: str | None = None


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings: the given one, or the embedded one for as long as the block lasts."""
    if settings.database_url is not None:
        yield Database(settings.database_url, f"PostgreSQL at {DatabaseAddress(settings.database_url)}")
        return
    async with open_embedded(settings.data_dir) as embedded:
        yield Database(embedded.url, f"embedded PostgreSQL in {settings.data_dir}", embedded.place.note)
    if embedded.left_running:
        _log.warning("postgresql_left_running", reason=embedded.left_running, data=str(embedded.place.cluster))


async def listen(settings: Settings) -> Sequence[trio.SocketListener]:
    """Binds the address. Raises `CannotListen`."""
    try:
        return await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=BACKLOG_CONNECTIONS)
    except OSError as error:
        reason = error.strerror or str(error)
        where = f"{settings.host}:{settings.port}"
        raise CannotListen(f"cannot listen on {where}: {reason} (choose another --host or --port)") from error


def url_of(settings: Settings, sockets: Sequence[trio.SocketListener]) -> str:
    port = sockets[0].socket.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.tls_cert is None else 'https'}://{host}:{port}"
