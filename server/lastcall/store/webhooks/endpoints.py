"""What operators do with webhooks, each act with its line in the audit log; and what they see of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from ..operators.acts import Actor
from ..reports import Rows, reports_of
from .outbox import CLAIM_SECONDS, COUNTED_MAX, ENDPOINTS_MAX, State

EVENTS = ("session.ended", "memory.done")
STATES: tuple[State, ...] = ("pending", "delivered", "failed")
RETRIED_MAX = 10_000  # by one call


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """An endpoint. pending, failed: deliveries, up to `COUNTED_MAX` each."""

    endpoint_id: UUID
    url: str
    events: Sequence[str]
    created_at: datetime
    pending: int
    failed: int


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A delivery. due_at: of the next try; None: at once. status, error: of the last try; None: there was none."""

    delivery_id: int
    endpoint_id: UUID
    url: str
    event_id: UUID
    event: str
    session_id: UUID | None
    user_id: str | None
    state: State
    attempts: int
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class QueuedTest:
    """A test that was queued. event_id: as its receiver is told."""

    delivery_id: int
    event_id: UUID


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint to be stored. secret: the bytes that sign."""

    url: str
    events: Sequence[str]
    secret: bytes = field(repr=False)
    endpoint_id: UUID = field(default_factory=uuid4)


async def add_endpoint(store: Rows, endpoint: NewEndpoint, by: Actor) -> bool:
    """Stores an endpoint; False: there are `ENDPOINTS_MAX` already."""
    columns = (endpoint.endpoint_id, endpoint.url, list(endpoint.events), endpoint.secret)
    return bool(await store.fetch("add_endpoint", *by.columns, *columns, ENDPOINTS_MAX))


async def list_endpoints(store: Rows) -> Sequence[EndpointReport]:
    """The oldest first."""
    return reports_of(EndpointReport, await store.fetch("list_endpoints", ENDPOINTS_MAX, COUNTED_MAX))


async def remove_endpoint(store: Rows, endpoint_id: UUID, by: Actor) -> bool:
    """Nothing more is sent there, nor kept. False: there is no such endpoint."""
    return bool(await store.fetch("remove_endpoint", *by.columns, endpoint_id))


async def queue_test(store: Rows, endpoint_id: UUID, by: Actor) -> QueuedTest | None:
    """Queues an event `webhook.test`; None: there is no such endpoint."""
    queued = reports_of(QueuedTest, await store.fetch("queue_test", *by.columns, endpoint_id))
    return queued[0] if queued else None


async def list_deliveries(
    store: Rows,
    limit: int,
    *,
    before: int | None = None,
    endpoint_id: UUID | None = None,
    state: State | None = None,
    delivery_id: int | None = None,
) -> Sequence[DeliveryReport]:
    """Returns the newest. before: only those before this one. delivery_id: only this one."""
    rows = await store.fetch("list_deliveries", before, endpoint_id, state, delivery_id, limit)
    return reports_of(DeliveryReport, rows)


async def retry_deliveries(
    store: Rows, by: Actor, *, delivery_id: int | None = None, endpoint_id: UUID | None = None
) -> int:
    """Has failed deliveries, and those that wait, sent at once, with all their tries; returns how many.

    These are up to `RETRIED_MAX`, of all, or only this one, or only those of an endpoint.
    """
    arguments = (delivery_id, endpoint_id, RETRIED_MAX, CLAIM_SECONDS)
    return len(await store.fetch("retry_deliveries", *by.columns, *arguments))
