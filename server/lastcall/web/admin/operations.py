"""What the OpenAPI document says of `/v1/admin/…` beyond the routes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ...auth.identity import USER_CHARS_MAX
from ...store.operators.acts import REASON_CHARS_MAX
from ...store.records import EndReason
from ...store.webhooks.endpoints import EVENTS, STATES
from ...webhooks.urls import URL_CHARS_MAX
from ..answers import DeletedMemory, MemoryList
from ..conversations import PAGE_DEFAULT, PAGE_MAX
from ..schemas import Operation, parameter
from . import bodies, session_bodies
from .overview import SECONDS, SECONDS_MAX, SECONDS_MIN, STATUSES

READS = "This needs a key of scope admin or reader."
ACTS = "This needs a key of scope admin."
BAD, NO_KEY, NO_DATABASE = "A parameter is not valid.", "There is no valid key.", "The database is unavailable."
LIMIT = parameter(
    "limit", "query", "The most entries.", type="integer", minimum=1, maximum=PAGE_MAX, default=PAGE_DEFAULT
)
AFTER = parameter("after", "query", "The `next` of the page before.")
SESSION = parameter("session_id", "path", "sess_ and 32 hex digits.")
OF_USER = parameter("user_id", "query", "Only of this user.", maxLength=USER_CHARS_MAX)
WEBHOOK = parameter("webhook_id", "path", "The id of the endpoint.", format="uuid")
NO_WEBHOOK = "There is no such webhook."
HOW_FAR = parameter(
    "seconds", "query", "How far back.", type="integer", minimum=SECONDS_MIN, maximum=SECONDS_MAX, default=SECONDS
)
NO_SESSION = "There is no such session."


def _reads(body: type[Struct] | str, *parameters: dict[str, Any], missing: str = "") -> Operation:
    refused = {400: BAD, 401: NO_KEY, 403: READS, **({404: missing} if missing else {}), 503: NO_DATABASE}
    return Operation(answers={200: body}, refused=refused, parameters=parameters)


def _acts(
    body: type[Struct] | str, *parameters: dict[str, Any], missing: str = "", sent: dict[str, Any] | None = None
) -> Operation:
    refused = {400: BAD, 401: NO_KEY, 403: ACTS, **({404: missing} if missing else {}), 503: NO_DATABASE}
    return Operation(answers={200: body}, refused=refused, parameters=parameters, body=sent)


def _object(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_NAME = {"type": "string", "minLength": 1, "maxLength": USER_CHARS_MAX}

ADMIN_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/admin/truth"): _reads(bodies.Truth),
    ("GET", "/v1/admin/chart"): _reads(bodies.Chart, HOW_FAR),
    ("GET", "/v1/admin/usage"): _reads(
        session_bodies.UsagePage,
        LIMIT,
        parameter("by", "query", "What it is summed up by: some of day, user and key.", default="day"),
        parameter("since", "query", "The first day, in UTC; without it a week before the last.", format="date"),
        parameter("until", "query", "The last day, in UTC; without it today.", format="date"),
        parameter("after", "query", "The `next` of the page before.", type="integer"),
    ),
    ("GET", "/v1/admin/usage/chart"): _reads(session_bodies.AnswerChart, HOW_FAR),
    ("GET", "/v1/admin/sessions"): _reads(
        session_bodies.SessionPage,
        LIMIT,
        AFTER,
        OF_USER,
        parameter("active", "query", "Only active sessions.", enum=["true", "false"], default="false"),
        parameter("end_reason", "query", "Only with this reason.", enum=[each.value for each in EndReason]),
    ),
    ("GET", "/v1/admin/sessions/{session_id}"): _reads(session_bodies.SessionDetail, SESSION, missing=NO_SESSION),
    ("GET", "/v1/admin/sessions/{session_id}/items"): _reads(
        session_bodies.SessionItemPage, SESSION, LIMIT, AFTER, missing=NO_SESSION
    ),
    ("GET", "/v1/admin/sessions/{session_id}/responses"): _reads(
        session_bodies.ResponsePage, SESSION, LIMIT, AFTER, missing=NO_SESSION
    ),
    ("POST", "/v1/admin/sessions/{session_id}/close"): _acts(
        session_bodies.ClosedSession,
        SESSION,
        missing=NO_SESSION,
        sent=_object(reason={"type": ["string", "null"], "maxLength": REASON_CHARS_MAX}),
    ),
    ("GET", "/v1/admin/memory"): _reads(
        session_bodies.SessionPage,
        LIMIT,
        AFTER,
        parameter("status", "query", "Of the memory.", enum=list(STATUSES), default=STATUSES[0]),
    ),
    ("POST", "/v1/admin/memory/retry"): _acts(
        bodies.Retried, sent=_object(session_id={"type": ["string", "null"]}, user={"type": ["string", "null"]})
    ),
    ("GET", "/v1/admin/memories"): _reads(MemoryList, OF_USER),
    ("DELETE", "/v1/admin/memories/{memory_id}"): _acts(
        DeletedMemory, parameter("memory_id", "path", "The id of the memory."), missing="There is no such memory."
    ),
    ("GET", "/v1/admin/keys"): _reads(bodies.KeyPage, LIMIT),
    ("POST", "/v1/admin/keys"): _acts(
        bodies.KeyCreated,
        sent=_object("subject", subject=_NAME, scope={"enum": ["user", "service", "admin", "reader"]}),
    ),
    ("DELETE", "/v1/admin/keys/{key_id}"): _acts(
        bodies.KeyRevoked,
        parameter("key_id", "path", "The id of the key or client secret.", format="uuid"),
        missing="There is no such key or client secret.",
    ),
    ("GET", "/v1/admin/users"): _reads(
        bodies.UserPage, LIMIT, AFTER, parameter("begins_with", "query", "The beginning of the name.")
    ),
    ("GET", "/v1/admin/users/export"): _acts("application/x-ndjson", OF_USER),
    ("POST", "/v1/admin/users/erase"): _acts(
        bodies.UserErased, sent=_object("user", "confirm", user=_NAME, confirm=_NAME)
    ),
    ("GET", "/v1/admin/webhooks"): _reads(bodies.WebhookPage),
    ("POST", "/v1/admin/webhooks"): _acts(
        bodies.WebhookAdded,
        sent=_object(
            "url",
            url={"type": "string", "maxLength": URL_CHARS_MAX},
            events={"type": "array", "items": {"enum": list(EVENTS)}, "minItems": 1},
            allow_http={"type": "boolean"},
        ),
    ),
    ("GET", "/v1/admin/webhooks/deliveries"): _reads(
        bodies.DeliveryPage,
        LIMIT,
        parameter("before", "query", "The `next` of the page before.", type="integer"),
        parameter("webhook_id", "query", "Only of this endpoint.", format="uuid"),
        parameter("state", "query", "Only in this state.", enum=list(STATES)),
    ),
    ("POST", "/v1/admin/webhooks/deliveries/retry"): _acts(
        bodies.DeliveriesRetried,
        sent=_object(
            delivery_id={"type": ["integer", "null"], "minimum": 1},
            webhook_id={"type": ["string", "null"], "format": "uuid"},
        ),
    ),
    ("DELETE", "/v1/admin/webhooks/{webhook_id}"): _acts(bodies.WebhookRemoved, WEBHOOK, missing=NO_WEBHOOK),
    ("POST", "/v1/admin/webhooks/{webhook_id}/test"): _acts(bodies.WebhookTested, WEBHOOK, missing=NO_WEBHOOK),
    ("GET", "/v1/admin/audit"): _reads(
        bodies.AuditPage,
        LIMIT,
        OF_USER,
        parameter("before", "query", "The `next` of the page before.", type="integer"),
        parameter("action", "query", "Only this action, such as `session.close`."),
        parameter("target", "query", "Only about this session or key."),
    ),
    ("GET", "/v1/admin/audit.csv"): _reads("text/csv"),
}
