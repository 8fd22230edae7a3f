"""The server's nested lifetimes, from the database to the last connection. What is opened last ends first."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from .agents.agent import Agent
from .agents.select import open_agent
from .auth.authenticator import Authenticator, require_credentials_unless_loopback
from .config import Settings
from .diagnosis.host import warn_at_start
from .limits.descriptors import socket_allowance
from .limits.gate import Gate
from .listener import Listener
from .memory.extract import uses_rules
from .memory.finalizer import open_finalizer
from .memory.meaning.encoder import Encode
from .memory.meaning.turns import with_meanings
from .memory.reading import SessionReader, read_in_process
from .memory.rules_process import open_rules_process
from .metrics import Metrics
from .process.certificates import reload_certificates
from .process.database import open_database
from .process.inherited import InheritedSockets
from .process.managed import tell_of_the_end
from .process.meaning import open_meaning
from .process.ports import open_ports
from .realtime.services import Services, server_metrics
from .runtime.conditions import Conditions
from .runtime.service_manager import ServiceManager
from .runtime.stall_watch import StallWatch
from .runtime.watchdog import Watchdog
from .sessions.instance import open_instance
from .sessions.registry import Registry
from .sessions.upkeep.reconciler import Reconciler
from .sessions.upkeep.tasks import upkeep
from .shutdown import (
    END_SESSIONS,
    FINALIZE_MEMORY,
    LAST_COMMITS,
    RELEASE_LEASE,
    STOP_ACCEPTING,
    Signals,
    close_sessions,
)
from .store.errors import StoreError
from .store.postgres import open_store
from .store.proof import CommitProof
from .store.store import Store
from .tracing.traces import Traces, open_traces
from .transport.direct import DirectListener
from .transport.http.http1 import HttpServer
from .transport.port import url_of
from .transport.tls import ServerTls, tls_context
from .web.app import create_app
from .web.operators.port import serve_operators
from .webhooks.deliverer import open_deliverer

DATABASE_PATIENCE_SECONDS = 5.0  # for a database that is starting, as in a deployment of both

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What is announced once the server accepts connections. note: where the data is, if not where it was asked for."""

    url: str
    database: str
    agent: str
    note: str | None


async def serve(
    settings: Settings,
    announce: Callable[[Ready], None],
    watchdog: Watchdog,
    tell: Callable[[str], None],
    manager: ServiceManager,
    inherited: InheritedSockets = InheritedSockets(),  # noqa: B008 - immutable
) -> None:
    """Runs the server until a signal ends it.

    Args:
        settings: Its configuration.
        announce: Called once it takes connections.
        watchdog: Receives the signals.
        tell: See `Signals`.
        manager: Is told how the server is.
        inherited: Sockets that are to be used instead of new ones.

    Raises:
        BadSettings, EmbeddedError, DatabaseUnusable, AgentUnavailable, CannotListen: The user's mistakes.
    """
    tls_context(settings)  # first, so that mistakes in the settings, and a port that is taken, are told before a start
    warn_at_start(settings, os.environ)
    signals, metrics = Signals(settings.drain_seconds, tell, settings.drain_delay), server_metrics()
    conditions = Conditions()
    agent_of_settings = open_agent(settings, conditions)
    traces_of_settings = open_traces(settings, signals.seconds_left)

    def beat(late_seconds: float) -> None:
        metrics.loop_lag.observe(late_seconds)
        watchdog.loop_runs()
        manager.loop_runs()

    async with open_ports(settings, inherited) as ports, trio.open_nursery() as outermost:
        settings = ports.settings
        outermost.start_soon(signals.watch, watchdog)
        outermost.start_soon(watchdog.heartbeat.run, beat)
        outermost.start_soon(tell_of_the_end, signals, manager)
        with StallWatch(watchdog.heartbeat, metrics.loop_stalls.inc).running(), signals.starting:
            async with (
                traces_of_settings as traces,
                open_database(settings, conditions) as database,
                open_store(
                    database.address,
                    close_seconds=signals.last_commits_seconds,
                    patience=DATABASE_PATIENCE_SECONDS,
                    metrics=metrics,
                ) as store,
            ):
                await store.check_connection_limits()
                await require_credentials_unless_loopback(Authenticator(store, settings), settings)
                async with (
                    agent_of_settings as agent,
                    open_rules_process(settings.memory_cpu_seconds, start=uses_rules(agent)) as rules,
                    open_deliverer(store, metrics) as endpoints,
                    open_meaning(settings, store, metrics) as encoder,
                ):
                    ready = Ready(url_of(settings, settings.port), database.describe, agent.describe, database.note)
                    await serve_sessions(
                        settings,
                        store,
                        agent,
                        ports.clients.listen,
                        signals,
                        lambda: announce(ready),
                        conditions,
                        metrics,
                        traces,
                        listen_to_operators=ports.admin.listen,
                        warm_up=store.warm_up,
                        read=with_meanings(rules.read, encoder.encode_turns) if encoder else rules.read,
                        encode=encoder.encode_question if encoder else None,
                        webhooks_changed=endpoints.changed,
                    )
        outermost.cancel_scope.cancel()


async def serve_sessions(
    settings: Settings,
    store: Store,
    agent: Agent,
    listen: Callable[[], Sequence[DirectListener]],
    signals: Signals,
    announce: Callable[[], None],
    conditions: Conditions | None = None,
    metrics: Metrics | None = None,
    traces: Traces | None = None,
    *,
    listen_to_operators: Callable[[], Sequence[DirectListener]] = lambda: (),
    warm_up: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    read: SessionReader = read_in_process,
    encode: Encode | None = None,
    webhooks_changed: Callable[[], object] = lambda: None,
) -> None:
    """From this instance's lease to its last memory. A shutdown goes through it in the order of `PHASES`.

    encode: see `Services`. webhooks_changed: see `open_instance`.
    warm_up: opens the store's connections. The lease has its own first: they may take all that the database allows.
    """
    registry, metrics = Registry(), metrics or server_metrics()
    gate = Gate(settings, metrics.count_refusal)
    metrics.held_bytes.set_function(lambda: gate.memory.held)
    async with open_instance(store, settings, registry, metrics, webhooks_changed) as lease:
        try:
            await warm_up()
        except StoreError as error:  # it only makes the first sessions faster, but they may wait for connections later
            _log.warning("connections_not_opened", error=str(error))
        reconciler = Reconciler(store, lease, registry, metrics)
        async with trio.open_nursery() as repairs:
            for work in upkeep(store, lease, settings, registry, metrics, reconciler):
                repairs.start_soon(work)
            with trio.CancelScope() as memory_budget:
                async with open_finalizer(store, agent, settings, read) as finalizer:
                    services = Services(
                        lease,
                        settings,
                        store,
                        agent,
                        finalizer,
                        registry,
                        metrics,
                        Authenticator(store, settings),
                        gate,
                        reconciler,
                        CommitProof(store),
                        conditions=conditions or Conditions(),
                        encode=encode,
                        traces=traces or Traces(),
                    )
                    await serve_connections(services, listen, signals, announce, listen_to_operators)
                    signals.enter(FINALIZE_MEMORY, memory_budget)
            repairs.cancel_scope.cancel()
        signals.enter(RELEASE_LEASE)
    signals.enter(LAST_COMMITS)


async def serve_connections(
    services: Services,
    listen: Callable[[], Sequence[DirectListener]],
    signals: Signals,
    announce: Callable[[], None],
    listen_to_operators: Callable[[], Sequence[DirectListener]] = lambda: (),
) -> None:
    """Accepts connections until the first signal, then lets the open ones end. Operators are served throughout."""
    settings = services.settings
    app = create_app(services, origins=settings.allow_origin, tls=settings.tls_cert is not None)
    http = HttpServer(app)
    async with services.running(), serve_operators(services, listen_to_operators), trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            tls = ServerTls(settings) if settings.tls_cert is not None else None
            listener = Listener(services, http, socket_allowance(settings).sockets, tls)
            signals.started()
            accepting.start_soon(listener.accept, listen(), connections)
            if tls is not None:
                accepting.start_soon(reload_certificates, tls, signals)
            if not signals.stop.is_set():
                announce()
                services.lease.log_start()
            await signals.stop.wait()
            services.draining_soon.set()
            await signals.delay()
            signals.enter(STOP_ACCEPTING)
            listener.is_last = signals.all_end
            accepting.cancel_scope.cancel()
        services.draining.set()
        services.finalizer.drain()
        await http.stop()
        await close_sessions(services, signals)
        signals.enter(END_SESSIONS, connections.cancel_scope)
