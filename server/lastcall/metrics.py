"""Metrics for Prometheus: their names, units, labels and meaning. Who measures has no say in these."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from . import __version__
from .logs import lines_dropped

LAG_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DROPPED_FROM = ("messages", "conversation_sessions", "audit_log")
TOKEN_TYPES = ("input", "output", "cached")
WEBHOOK_RESULTS = ("delivered", "retried", "failed")
PIECE_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
CALL_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RESPONSE_STATUSES = ("completed", "cancelled", "incomplete", "failed")
REFUSAL_REASONS = ("credentials", "handshake", "limits", "overload", "sockets", "store", "tls")
OTHER = "other"  # the label of values that are not known beforehand
UNKNOWN = float("nan")  # of a gauge whose source does not answer: no alert may be made of what was true before

DatabaseCall = Literal["commit", "query"]
DATABASE_CALLS: tuple[DatabaseCall, ...] = ("commit", "query")


# Each would say when its counter began: twice as many series, which Prometheus ignores unless told otherwise.
disable_created_metrics()  # type: ignore[no-untyped-call]


class CountsByLabel:
    """A counter with one label. Its series exist from the start, so that the first increase is seen as one.

    A value that is not among `values` counts as `other`: what a client or somebody's agent says makes no series.
    """

    def __init__(self, registry: CollectorRegistry, name: str, help: str, label: str, values: Iterable[str]) -> None:
        self._counter = Counter(name, help, [label], registry=registry)
        # Kept, since to look up a labelled child takes longer than to count.
        self._series = {str(value): self._counter.labels(str(value)) for value in values}

    def count(self, value: str, amount: float = 1) -> None:
        series = self._series.get(value)
        (self._counter.labels(OTHER) if series is None else series).inc(amount)


class Metrics:
    """The server's metrics, in a registry of their own.

    Args:
        limits: The names of all limits.
        end_reasons: Why sessions end.
        failure_codes: Why responses fail; those of other people's agents count as `other`.
    """

    def __init__(
        self, limits: Iterable[str] = (), end_reasons: Iterable[str] = (), failure_codes: Iterable[str] = ()
    ) -> None:
        self.registry = CollectorRegistry()
        # --- sessions and responses
        self.sessions_active = self._gauge("sessions_active", "Sessions open in this process")
        self.sessions_started = self._counter("sessions_started", "Sessions whose begin was committed")
        self.sessions_ended = CountsByLabel(
            self.registry, "lastcall_sessions_ended", "Sessions that ended, by reason", "reason", end_reasons
        )
        self.end_seconds = self._histogram(
            "session_end_commit_seconds", "From a session's end to its committed row", CALL_BUCKETS_SECONDS
        )
        self.responses = CountsByLabel(
            self.registry, "lastcall_responses", "Responses that are over, by status", "status", RESPONSE_STATUSES
        )
        self.failures = CountsByLabel(
            self.registry, "lastcall_response_failures", "Responses that failed, by error code", "code", failure_codes
        )
        self.first_piece_seconds = self._histogram(
            "response_first_piece_seconds", "From response.create to the agent's first piece", PIECE_BUCKETS_SECONDS
        )
        self.tokens = CountsByLabel(
            self.registry,
            "lastcall_tokens",
            "Tokens that the model reported of responses, by type; cached ones are among the input",
            "type",
            TOKEN_TYPES,
        )
        # --- the truth of the session table
        self.rows_active = self._gauge("session_rows_active", "Active rows of this server, as last counted")
        self.rows_unmatched = self._gauge(
            "sessions_unmatched", "Sessions of this server with only a row or only a socket, as last counted"
        )
        self.census_time = self._gauge("census_timestamp_seconds", "Time at which this server last counted its rows")
        self.rows_orphaned = self._gauge(
            "sessions_orphaned", "Active rows without a living server, over all servers; NaN: not known"
        )
        self.memory_pending = self._gauge(
            "memory_pending_sessions", "Ended sessions whose memory is pending, over all servers; NaN: not known"
        )
        self.memory_failed = self._gauge(
            "memory_failed_sessions", "Ended sessions whose memory has failed, over all servers; NaN: not known"
        )
        self.meanings_pending = self._gauge(
            "meaning_passages_pending", "Passages of earlier turns without meanings, over all servers; 10,000 at most"
        )
        self.turns_encoded_late = self._counter(
            "turns_encoded_late", "Turns that got their meaning later than their words"
        )
        self.sessions_reaped = self._counter("sessions_reaped", "Sessions of dead servers closed by this one")
        self.reaper_failures = self._counter("reaper_failures", "Reaper passes that failed")
        self.reaper_last_look = self._gauge("reaper_last_look_timestamp_seconds", "Time of the reaper's last pass")
        self.strays_closed = self._counter(
            "stray_sessions_closed", "Active rows of this server without a live session, closed late"
        )
        # --- the lease
        self.lease_held = self._gauge("lease_held", "1 while this server's lease is held, else 0")
        self.lease_age = self._gauge("lease_age_seconds", "Time since this server's lease was last renewed")
        self.lease_connections_lost = self._counter(
            "lease_connections_lost", "Connections of this server's lease that were lost, or could not be opened"
        )
        self.leases_lost = self._counter("leases_lost", "Times that this server was declared dead by another one")
        # --- the database
        calls = Histogram(
            "lastcall_database_call_seconds",
            "Time until the database answered a commit or a query, failures included",
            ["call"],
            registry=self.registry,
            buckets=CALL_BUCKETS_SECONDS,
        )
        self._calls = {call: calls.labels(call) for call in DATABASE_CALLS}
        self._call_failures = CountsByLabel(
            self.registry,
            "lastcall_database_call_failures",
            "Commits and queries that failed: no answer, no connection, or an error",
            "call",
            DATABASE_CALLS,
        )
        self.connections_open = self._gauge("database_connections_open", "Connections in this server's pool")
        self.connections_used = self._gauge("database_connections_used", "Connections of the pool that are in use")
        self.queue_rows = self._gauge("commit_queue_rows", "Rows that wait for a commit")
        # --- what is refused
        self.connections_refused = CountsByLabel(
            self.registry, "lastcall_connections_refused", "Connections refused, by reason", "reason", REFUSAL_REASONS
        )
        self._limits_refused = CountsByLabel(
            self.registry,
            "lastcall_limits_refused",
            "Requests, events and sessions refused, ended or delayed, by limit",
            "limit",
            limits,
        )
        self._rows_dropped = CountsByLabel(
            self.registry, "lastcall_rows_dropped", "Rows deleted for being kept long enough", "table", DROPPED_FROM
        )
        # --- webhooks
        self.webhook_tries = CountsByLabel(
            self.registry,
            "lastcall_webhook_tries",
            "Tries of this server to deliver a webhook, by what came of them",
            "result",
            WEBHOOK_RESULTS,
        )
        self.webhooks_pending = self._gauge("webhooks_pending", "Webhooks that wait to be delivered, by any server")
        self.webhooks_failed = self._gauge("webhooks_failed", "Webhooks that were given up, and are kept")
        self.webhook_oldest_seconds = self._gauge("webhook_oldest_seconds", "Age of the oldest webhook that waits")
        # --- the process
        self.held_bytes = self._gauge("memory_held_bytes", "Memory held by sessions and requests, as counted")
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop ran a timer", LAG_BUCKETS_SECONDS)
        self.loop_stalls = self._counter("loop_stalls", "Times that the event loop was stuck for over a second")
        self.registry.register(_DroppedLines())
        ProcessCollector(registry=self.registry)
        build = Info("lastcall_build", "The release that runs, and its Python", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"lastcall_{name}", help, registry=self.registry)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(f"lastcall_{name}", help, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"lastcall_{name}", help, registry=self.registry, buckets=buckets)

    def count_response(
        self,
        status: str,
        first_piece_seconds: float | None,
        tokens: Sequence[int | None] = (),
        failure: str | None = None,
    ) -> None:
        """Counts a response that is over.

        Args:
            status: How it ended.
            first_piece_seconds: Until the agent's first piece; None: there was none.
            tokens: As in `TOKEN_TYPES`; None: the model did not report them.
            failure: The error code of one that failed.
        """
        self.responses.count(status)
        if failure is not None:
            self.failures.count(failure)
        for kind, count in zip(TOKEN_TYPES, tokens, strict=False):
            if count:
                self.tokens.count(kind, count)
        if first_piece_seconds is not None:
            self.first_piece_seconds.observe(first_piece_seconds)

    def count_dropped(self, messages: int, sessions: int, audit_lines: int) -> None:
        for table, rows in zip(DROPPED_FROM, (messages, sessions, audit_lines), strict=True):
            self._rows_dropped.count(table, rows)

    def count_refusal(self, limit: str) -> None:
        self._limits_refused.count(limit)

    def count_database_call(self, call: DatabaseCall, seconds: float, *, failed: bool) -> None:
        """Counts an answer of the database, or that there was none."""
        self._calls[call].observe(seconds)
        if failed:
            self._call_failures.count(call)


class _DroppedLines(Collector):
    """Read when it is asked for: the log counts them in any thread, and must not wait for a lock of a metric."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "lastcall_log_lines_dropped", "Log lines lost because nobody took them", lines_dropped()
        )
