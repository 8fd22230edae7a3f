"""`/v1/admin/webhooks`: endpoints, what was sent to them, and what is sent again."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ...protocol.errors import RequestRefused
from ...protocol.ids import public_id
from ...store.webhooks import endpoints
from ...store.webhooks.endpoints import EVENTS, STATES, DeliveryReport
from ...webhooks import adding
from ..access import actor_of, overseer_of, services_of
from ..answers import answer
from ..conversations import invalid_value, limit_of
from .bodies import (
    DeliveriesRetried,
    DeliveryPage,
    DeliveryRow,
    WebhookAdded,
    WebhookPage,
    WebhookRemoved,
    WebhookRow,
    WebhookTested,
)
from .parameters import before_of, body_of, page_of, unix

BIGINT_MAX = 2**63 - 1


class _WebhookWanted(Struct, forbid_unknown_fields=True):
    url: str
    events: tuple[str, ...] = EVENTS
    allow_http: bool = False


class _RetryDeliveries(Struct, forbid_unknown_fields=True):
    delivery_id: Annotated[int, Meta(ge=1, le=BIGINT_MAX)] | None = None
    webhook_id: str | None = None


async def list_webhooks(request: Request) -> Response:
    """The endpoints, without their secrets."""
    await overseer_of(request)
    rows = [
        WebhookRow(
            id=str(each.endpoint_id),
            url=each.url,
            events=list(each.events),
            created_at=each.created_at.timestamp(),
            pending=each.pending,
            failed=each.failed,
        )
        for each in await endpoints.list_endpoints(services_of(request).store)
    ]
    return answer(WebhookPage(data=rows))


async def add_webhook(request: Request) -> Response:
    """Sends events to a URL from now on."""
    actor, wanted = await actor_of(request), await body_of(request, _WebhookWanted)
    try:
        added = await adding.add_webhook(
            services_of(request).store, wanted.url, actor, events=wanted.events, allow_http=wanted.allow_http
        )
    except adding.EndpointRefused as refused:
        message = str(refused)
        raise RequestRefused("invalid_value", f"{message[0].upper()}{message[1:]}.", refused.param) from None
    return answer(
        WebhookAdded(id=str(added.endpoint_id), url=added.url, events=list(added.events), secret=added.secret)
    )


async def remove_webhook(request: Request) -> Response:
    """Sends nothing more to an endpoint, and deletes what waits for it."""
    actor, webhook_id = await actor_of(request), _webhook_id_of(request)
    if not await endpoints.remove_endpoint(services_of(request).store, webhook_id, actor):
        raise _no_webhook()
    return answer(WebhookRemoved(id=str(webhook_id)))


async def test_webhook(request: Request) -> Response:
    """Sends an event `webhook.test` to an endpoint; its delivery says what came of it."""
    actor, webhook_id = await actor_of(request), _webhook_id_of(request)
    queued = await endpoints.queue_test(services_of(request).store, webhook_id, actor)
    if queued is None:
        raise _no_webhook()
    return answer(WebhookTested(delivery_id=queued.delivery_id, event_id=public_id("msg", queued.event_id)))


async def list_deliveries(request: Request) -> Response:
    """A page of deliveries, newest first."""
    await overseer_of(request)
    limit, text = limit_of(request), request.query_params.get("state")
    state = next((each for each in STATES if each == text), None)
    if text is not None and state is None:
        raise invalid_value(f"state must be one of {', '.join(STATES)}.", "state")
    found = await endpoints.list_deliveries(
        services_of(request).store,
        limit + 1,
        before=before_of(request),
        endpoint_id=_uuid(request.query_params.get("webhook_id")),
        state=state,
    )
    page, last = page_of(found, limit)
    return answer(DeliveryPage(data=[_row(each) for each in page], next=last.delivery_id if last else None))


async def retry_deliveries(request: Request) -> Response:
    """Sends what has failed, or waits to be tried again, at once: one, those of an endpoint, or up to 10,000 of all."""
    actor, wanted = await actor_of(request), await body_of(request, _RetryDeliveries)
    count = await endpoints.retry_deliveries(
        services_of(request).store, actor, delivery_id=wanted.delivery_id, endpoint_id=_uuid(wanted.webhook_id)
    )
    return answer(DeliveriesRetried(deliveries=count))


def _row(each: DeliveryReport) -> DeliveryRow:
    return DeliveryRow(
        id=each.delivery_id,
        webhook_id=str(each.endpoint_id),
        url=each.url,
        event_id=public_id("msg", each.event_id),
        event=each.event,
        session_id=None if each.session_id is None else public_id("sess", each.session_id),
        user=each.user_id,
        state=each.state,
        attempts=each.attempts,
        created_at=each.created_at.timestamp(),
        due_at=unix(each.due_at) if each.state == "pending" else None,
        finished_at=unix(each.finished_at),
        status=each.status,
        error=each.error,
    )


def _webhook_id_of(request: Request) -> UUID:
    try:
        return UUID(request.path_params["webhook_id"])
    except ValueError:
        raise _no_webhook() from None


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise invalid_value("webhook_id must be the id of a webhook.", "webhook_id") from None


def _no_webhook() -> RequestRefused:
    return RequestRefused("webhook_not_found", "There is no such webhook.")
