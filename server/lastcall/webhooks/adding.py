"""Adds endpoints, each with a secret of its own, which is shown once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ..store.operators.acts import Actor
from ..store.reports import Rows
from ..store.webhooks.endpoints import EVENTS, NewEndpoint, add_endpoint
from ..store.webhooks.outbox import ENDPOINTS_MAX
from .signing import new_secret, secret_text
from .urls import check_url


class EndpointRefused(Exception):
    """An endpoint cannot be added; the message says why. param: what is wrong: `url`, `events`, or None."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class AddedEndpoint:
    """secret: shown once."""

    endpoint_id: UUID
    url: str
    events: Sequence[str]
    secret: str = field(repr=False)


async def add_webhook(
    store: Rows, url: str, by: Actor, *, events: Sequence[str] = EVENTS, allow_http: bool = False
) -> AddedEndpoint:
    """Adds an endpoint that is sent these events from now on. Raises `EndpointRefused`."""
    try:
        check_url(url, allow_http=allow_http)
    except ValueError as error:
        raise EndpointRefused(str(error), "url") from None
    wanted = [each for each in EVENTS if each in events]
    if not wanted or not set(events) <= set(EVENTS):
        raise EndpointRefused(f"events must be some of {', '.join(EVENTS)}", "events")
    endpoint = NewEndpoint(url, wanted, new_secret())
    if not await add_endpoint(store, endpoint, by):
        raise EndpointRefused(f"there are {ENDPOINTS_MAX} webhooks already, which is the most")
    return AddedEndpoint(endpoint.endpoint_id, url, wanted, secret_text(endpoint.secret))
