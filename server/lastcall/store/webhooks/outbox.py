"""The outbox of webhooks as servers work on it: claims with a lease, and what came of each try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal
from uuid import UUID

from ..reports import Rows

ENDPOINTS_MAX = 16
CLAIM_SECONDS = 30.0  # that a claim lasts: longer than a try and its outcome take
TRIES_MAX = 12
AGE_SECONDS_MAX = 3 * 86_400.0  # of a delivery that is tried again
BACKOFF_SECONDS_MIN = 5.0
BACKOFF_SECONDS_MAX = 6 * 3600.0
JITTER = 0.2  # share of a back-off by which it is longer or shorter
DELIVERED_SECONDS = 3 * 86_400.0  # that what was delivered is kept
FAILED_SECONDS = 30 * 86_400.0
DELETED_MAX = 1_000  # of each kind, by one sweep
COUNTED_MAX = 100_000

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """An event that is to be sent. attempts: with this try. claimed_at: Unix seconds, on the database's clock."""

    delivery_id: int
    endpoint_id: UUID
    event_id: UUID
    event: str
    body: str
    attempts: int
    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    claimed_at: float


@dataclass(frozen=True, slots=True)
class DeliveryBacklog:
    """How much is pending and failed, up to `COUNTED_MAX` each. oldest_seconds: None where nothing is pending."""

    pending: int
    failed: int
    oldest_seconds: float | None


async def claim_deliveries(store: Rows, room: int, room_of: Mapping[UUID, int]) -> Sequence[ClaimedDelivery]:
    """Claims up to `room` deliveries for each endpoint, or as many as `room_of` says."""
    rows = await store.fetch(
        "claim_deliveries",
        ENDPOINTS_MAX,
        room,
        list(room_of),
        list(room_of.values()),
        CLAIM_SECONDS,
        BACKOFF_SECONDS_MAX * (1 + JITTER),
    )
    return [ClaimedDelivery(*(row[each.name] for each in fields(ClaimedDelivery))) for row in rows]


async def settle_delivery(
    store: Rows, claim: ClaimedDelivery, *, accepted: bool, status: int | None, error: str | None, retry_after: float
) -> State | None:
    """Stores what came of a try, and returns the state that follows; None: somebody else has settled it.

    retry_after: seconds until it is due again, where it was not accepted.
    """
    rows = await store.fetch(
        "settle_delivery",
        claim.delivery_id,
        claim.attempts,
        accepted,
        status,
        error,
        retry_after,
        TRIES_MAX,
        AGE_SECONDS_MAX,
    )
    state: State | None = rows[0]["state"] if rows else None
    return state


async def release_deliveries(store: Rows, claims: Sequence[ClaimedDelivery]) -> None:
    """Gives claims back: they are due at once, and the try does not count."""
    await store.fetch("release_deliveries", [each.delivery_id for each in claims], [each.attempts for each in claims])


async def has_endpoints(store: Rows) -> bool:
    """Whether there is anything to do: endpoints, or removed ones whose deliveries may still have to be deleted."""
    (row,) = await store.fetch("has_endpoints")
    return bool(row["there"])


async def delete_old_deliveries(store: Rows) -> int:
    """Deletes what was kept for long enough, and what is left of removed endpoints; returns the number."""
    return len(await store.fetch("delete_old_deliveries", DELETED_MAX, DELIVERED_SECONDS, FAILED_SECONDS))


async def read_backlog(store: Rows) -> DeliveryBacklog:
    (row,) = await store.fetch("webhook_backlog", COUNTED_MAX)
    return DeliveryBacklog(row["pending"], row["failed"], row["oldest_seconds"])
