"""Bodies of `/v1/admin/…` but those about sessions. Times are Unix seconds with fractions; null: not yet."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class Unmatched(Struct, kw_only=True):
    """A session that has had only a row or only a socket for a while."""

    session_id: str
    lacks: Literal["row", "socket"]
    server: str | None


class ServerRow(Struct, kw_only=True):
    """A server. heartbeat_age, counted_age: seconds since its last heartbeat and count."""

    id: str
    name: str
    version: str
    state: Literal["runs", "stopped", "reaped"]
    started_at: float
    ended_at: float | None
    lease_seconds: float
    heartbeat_age: float
    counted_age: float | None
    rows: int | None
    sockets: int | None


class Truth(Struct, kw_only=True):
    """Whether active rows and sockets agree, over all servers.

    state: red where sessions are unmatched, unknown where one of `silent` has not counted of late. rows and sockets may
    differ for the moment in which a session begins or ends. database_ms: what this question took.
    """

    object: Literal["admin.truth"] = "admin.truth"
    state: Literal["green", "red", "unknown"]
    rows: int
    sockets: int
    orphaned: int
    unmatched: list[Unmatched]
    silent: list[str]
    servers: list[ServerRow]
    memory_pending: int
    memory_failed: int
    database_ms: float
    may_act: bool


class Chart(Struct, kw_only=True):
    """Counts by buckets of `width_seconds`, of those that are not empty. lasted, late: p50, p95 and p99 in seconds.

    late: from a session's end until its row said so.
    """

    object: Literal["admin.chart"] = "admin.chart"
    width_seconds: int
    times: list[int]
    started: list[int]
    ended: dict[str, list[int]]
    lasted: dict[str, list[float | None]]
    late: dict[str, list[float | None]]


class Retried(Struct, kw_only=True):
    """sessions: how many are pending again."""

    object: Literal["admin.memory.retried"] = "admin.memory.retried"
    sessions: int


class KeyRow(Struct, kw_only=True):
    """A key. prefix: its first characters. active_sessions: with those of its client secrets."""

    id: str
    prefix: str
    subject: str
    scope: str
    created_at: float
    revoked_at: float | None
    active_sessions: int


class KeyPage(Struct, kw_only=True):
    """Newest first."""

    object: Literal["list"] = "list"
    data: list[KeyRow]


class KeyCreated(Struct, kw_only=True):
    """key: told only here."""

    id: str
    object: Literal["admin.key"] = "admin.key"
    key: str
    subject: str
    scope: str


class KeyRevoked(Struct, kw_only=True):
    """closed_sessions: of the key and of its client secrets."""

    id: str
    object: Literal["admin.key.revoked"] = "admin.key.revoked"
    revoked_at: float
    closed_sessions: int


class UserRow(Struct, kw_only=True):
    """A user. conversations: without deleted ones."""

    user: str
    sessions: int
    active: int
    conversations: int
    memories: int
    last_started_at: float | None


class UserPage(Struct, kw_only=True):
    """By name. next: for `after`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[UserRow]
    next: str | None


class UserErased(Struct, kw_only=True):
    """How much was deleted."""

    user: str
    object: Literal["admin.user.erased"] = "admin.user.erased"
    sessions: int
    messages: int
    memories: int


class AuditRow(Struct, kw_only=True):
    """Who did what. target: the id of a session or key, or the keyed hash of a user's name."""

    id: int
    at: float
    actor: str
    key_id: str | None
    via: Literal["api", "command"]
    action: str
    target: str
    details: dict[str, Any]


class AuditPage(Struct, kw_only=True):
    """Newest first. next: for `before`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[AuditRow]
    next: int | None


class WebhookRow(Struct, kw_only=True):
    """An endpoint. pending, failed: its deliveries, counted up to 100,000."""

    id: str
    object: Literal["admin.webhook"] = "admin.webhook"
    url: str
    events: list[str]
    created_at: float
    pending: int
    failed: int


class WebhookPage(Struct, kw_only=True):
    """Oldest first."""

    object: Literal["list"] = "list"
    data: list[WebhookRow]


class WebhookAdded(Struct, kw_only=True):
    """secret: signs what is sent; told only here."""

    id: str
    object: Literal["admin.webhook.added"] = "admin.webhook.added"
    url: str
    events: list[str]
    secret: str


class WebhookRemoved(Struct, kw_only=True):
    id: str
    object: Literal["admin.webhook.removed"] = "admin.webhook.removed"


class WebhookTested(Struct, kw_only=True):
    """A test that is about to be sent. event_id: as its receiver is told."""

    delivery_id: int
    object: Literal["admin.webhook.tested"] = "admin.webhook.tested"
    event_id: str


class DeliveryRow(Struct, kw_only=True):
    """An event for an endpoint. due_at: of the next try; null: at once, or none. status, error: of the last try."""

    id: int
    webhook_id: str
    url: str
    event_id: str
    event: str
    session_id: str | None
    user: str | None
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: float
    due_at: float | None
    finished_at: float | None
    status: int | None
    error: str | None


class DeliveryPage(Struct, kw_only=True):
    """Newest first. next: for `before`; null: this is the last page."""

    object: Literal["list"] = "list"
    data: list[DeliveryRow]
    next: int | None


class DeliveriesRetried(Struct, kw_only=True):
    """deliveries: how many are sent again."""

    object: Literal["admin.deliveries.retried"] = "admin.deliveries.retried"
    deliveries: int
