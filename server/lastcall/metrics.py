"""Metrics for Prometheus."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from . import __version__
from .logs import lines_dropped

LAG_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DROPPED_FROM = ("messages", "conversation_sessions", "audit_log")
TOKEN_TYPES = ("input", "output", "cached")
RESPONSE_STATUSES = ("completed", "cancelled", "incomplete", "failed")
WEBHOOK_RESULTS = ("delivered", "retried", "failed")
PIECE_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The server's metrics, in a registry of their own. limits: the labels of all limits."""

    def __init__(self, limits: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.sessions_active = Gauge(
            "lastcall_sessions_active", "Sessions open in this process", registry=self.registry
        )
        self.sessions_started = Counter(
            "lastcall_sessions_started", "Sessions whose begin was committed", registry=self.registry
        )
        self.sessions_ended = Counter(
            "lastcall_sessions_ended", "Sessions that ended, by reason", ["reason"], registry=self.registry
        )
        self.end_seconds = Histogram(
            "lastcall_session_end_commit_seconds", "From a session's end to its committed row", registry=self.registry
        )
        self.responses = Counter(
            "lastcall_responses", "Responses that are over, by status", ["status"], registry=self.registry
        )
        self.first_piece_seconds = Histogram(
            "lastcall_response_first_piece_seconds",
            "From response.create to the agent's first piece",
            registry=self.registry,
            buckets=PIECE_BUCKETS_SECONDS,
        )
        self.tokens = Counter(
            "lastcall_tokens",
            "Tokens that the model reported of responses, by type; cached ones are among the input",
            ["type"],
            registry=self.registry,
        )
        self.lease_held = Gauge(
            "lastcall_lease_held", "1 while this server's lease is held, else 0", registry=self.registry
        )
        self.sessions_reaped = Counter(
            "lastcall_sessions_reaped", "Sessions of dead servers closed by this one", registry=self.registry
        )
        self.reaper_failures = Counter("lastcall_reaper_failures", "Reaper passes that failed", registry=self.registry)
        self.reaper_last_look = Gauge(
            "lastcall_reaper_last_look_timestamp_seconds", "Time of the reaper's last pass", registry=self.registry
        )
        self.strays_closed = Counter(
            "lastcall_stray_sessions_closed",
            "Active rows of this server without a live session, closed late",
            registry=self.registry,
        )
        self.connections_refused = Counter(
            "lastcall_connections_refused", "Connections refused, by reason", ["reason"], registry=self.registry
        )
        self.limits_refused = Counter(
            "lastcall_limits_refused",
            "Requests, events and sessions refused, ended or delayed, by limit",
            ["limit"],
            registry=self.registry,
        )
        self.rows_dropped = Counter(
            "lastcall_rows_dropped", "Rows deleted for being kept long enough", ["table"], registry=self.registry
        )
        self.held_bytes = Gauge(
            "lastcall_memory_held_bytes", "Memory held by sessions and requests, as counted", registry=self.registry
        )
        self.loop_lag = Histogram(
            "lastcall_loop_lag_seconds",
            "How late the event loop ran a timer",
            registry=self.registry,
            buckets=LAG_BUCKETS_SECONDS,
        )
        self.loop_stalls = Counter(
            "lastcall_loop_stalls", "Times that the event loop was stuck for over a second", registry=self.registry
        )
        self.webhook_tries = Counter(
            "lastcall_webhook_tries",
            "Tries of this server to deliver a webhook, by what came of them",
            ["result"],
            registry=self.registry,
        )
        self.webhooks_pending = Gauge(
            "lastcall_webhooks_pending", "Webhooks that wait to be delivered, by any server", registry=self.registry
        )
        self.webhooks_failed = Gauge(
            "lastcall_webhooks_failed", "Webhooks that were given up, and are kept", registry=self.registry
        )
        self.webhook_oldest_seconds = Gauge(
            "lastcall_webhook_oldest_seconds", "Age of the oldest webhook that waits", registry=self.registry
        )
        self.registry.register(_DroppedLines())
        ProcessCollector(registry=self.registry)
        build = Info("lastcall_build", "The release that runs, and its Python", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})
        for limit in limits:
            self.limits_refused.labels(limit)  # so that each series exists from the start
        for result in WEBHOOK_RESULTS:
            self.webhook_tries.labels(result)
        # Kept, since to look up a labelled child takes longer than to count.
        self._responses = {status: self.responses.labels(status) for status in RESPONSE_STATUSES}
        self._tokens = [self.tokens.labels(kind) for kind in TOKEN_TYPES]

    def count_response(self, status: str, first_piece_seconds: float | None, tokens: Sequence[int | None] = ()) -> None:
        """Counts a response that is over.

        first_piece_seconds: until the agent's first piece; None: there was none. tokens: as in `TOKEN_TYPES`; None: the
        model did not report them.
        """
        self._responses[status].inc()
        for counter, count in zip(self._tokens, tokens, strict=False):
            if count:
                counter.inc(count)
        if first_piece_seconds is not None:
            self.first_piece_seconds.observe(first_piece_seconds)

    def count_dropped(self, messages: int, sessions: int, audit_lines: int) -> None:
        for table, rows in zip(DROPPED_FROM, (messages, sessions, audit_lines), strict=True):
            self.rows_dropped.labels(table).inc(rows)

    def count_refusal(self, limit: str) -> None:
        self.limits_refused.labels(limit).inc()


class _DroppedLines(Collector):
    """Read when it is asked for: the log counts them in any thread, and must not wait for a lock of a metric."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "lastcall_log_lines_dropped", "Log lines lost because nobody took them", lines_dropped()
        )
