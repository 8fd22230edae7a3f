"""Error bodies, over HTTP and on the WebSocket: one table of codes, and the only code that builds a body. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Struct

from .server_events import ServerEvent

ErrorType = Literal["invalid_request_error", "server_error"]
WEBSOCKET_VERSION = "13"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """status: sent over HTTP; on the WebSocket it only decides the type. when: for docs/protocol.md."""

    status: int
    when: str


CODES: Mapping[str, ErrorCode] = {
    # events
    "invalid_json": ErrorCode(400, "the message is not JSON"),
    "invalid_value": ErrorCode(400, "a value does not fit; `param` says which"),
    "missing_required_parameter": ErrorCode(400, "a field is missing; `param` says which"),
    "unknown_parameter": ErrorCode(400, "a session or response has no such field; `param` says which"),
    "unsupported_event": ErrorCode(400, "an event of the public API that this server does not support"),
    "unsupported_content_type": ErrorCode(400, "only audio can be truncated, and no item has any"),
    "input_audio_buffer_commit_empty": ErrorCode(400, "there is no audio to commit"),
    "item_create_duplicate_item_id": ErrorCode(409, "the conversation has an item with this id"),
    "item_create_invalid_previous_item_id": ErrorCode(404, "the conversation has no item with this `previous_item_id`"),
    "item_retrieve_invalid_item_id": ErrorCode(404, "the conversation has no item with this id"),
    "item_delete_invalid_item_id": ErrorCode(404, "the conversation has no item with this id"),
    "item_truncate_invalid_item_id": ErrorCode(404, "the conversation has no item with this id"),
    "item_not_found": ErrorCode(404, "the conversation has no item that the `input` of a response refers to"),
    "no_room": ErrorCode(409, "no further item fits between these two items"),
    "conversation_full": ErrorCode(
        400, "the session has reached its limit of items or characters, or its share of the server's memory"
    ),
    "too_many_events": ErrorCode(429, "too many events are waiting; this one was dropped"),
    "too_many_responses": ErrorCode(429, "too many responses are running outside the conversation"),
    "conversation_already_has_active_response": ErrorCode(409, "a response is already running"),
    "response_cancel_not_active": ErrorCode(409, "there is no running response to cancel"),
    "session_expired": ErrorCode(400, "the session reached its maximum duration; close 1001 follows"),
    "session_idle": ErrorCode(400, "the client sent nothing for too long; close 1001 follows"),
    "server_shutting_down": ErrorCode(503, "the server is restarting and starts no new responses; reconnect"),
    # events, handshakes and HTTP
    "rate_limit_exceeded": ErrorCode(429, "too many events, requests or connections; wait and try again"),
    "memory_not_found": ErrorCode(404, "the user has no such memory"),
    "conversation_not_found": ErrorCode(404, "the user has no such conversation; on the WebSocket, close 1008 follows"),
    "session_not_found": ErrorCode(404, "there is no such session, or it is not the user's"),
    "key_not_found": ErrorCode(404, "there is no such key or client secret"),
    "webhook_not_found": ErrorCode(404, "there is no such webhook"),
    "missing_api_key": ErrorCode(401, "no key, client secret or token was sent"),
    "invalid_api_key": ErrorCode(401, "the key, client secret or token is wrong, expired or revoked"),
    "provider_unavailable": ErrorCode(503, "the identity provider does not answer as it should; try again later"),
    "store_unavailable": ErrorCode(503, "the database is unavailable; nothing was acknowledged, try again"),
    "overloaded": ErrorCode(503, "the server has too many HTTP connections or too little memory; try again later"),
    # handshakes and HTTP
    "beta_api_shape_disabled": ErrorCode(
        400, "the client speaks the retired beta of the API; on the WebSocket, close 4000 follows"
    ),
    "forbidden": ErrorCode(403, "this credential does not allow the request"),
    "forbidden_host": ErrorCode(403, "without keys, the Host header must name this machine"),
    "forbidden_proxy": ErrorCode(403, "without keys, the request must not come through a proxy"),
    "forbidden_origin": ErrorCode(403, "the page's origin is not allowed (`--allow-origin`)"),
    "not_found": ErrorCode(404, "nothing is served at this path"),
    "method_not_allowed": ErrorCode(405, "the path does not support this method"),
    "request_timeout": ErrorCode(408, "the request took too long to arrive"),
    "body_too_large": ErrorCode(413, "the request's body is too large"),
    "http_error": ErrorCode(400, "any other HTTP error; its status is that of the reply"),
    "internal_error": ErrorCode(500, "the server failed; its log has the error"),
    "timeout": ErrorCode(503, "the server took too long to reply"),
    # failed responses: `response.status_details.error`
    "agent_error": ErrorCode(500, "the agent failed"),
    "agent_timeout": ErrorCode(504, "the agent took too long"),
    "answer_too_long": ErrorCode(500, "the agent's answer has too many characters or items"),
    "context_too_long": ErrorCode(500, "the conversation does not fit the model's context"),
    "unknown_tool": ErrorCode(500, "the agent called a tool that it was not offered"),
    "upstream_broken": ErrorCode(502, "the connection to the model's endpoint broke"),
    "upstream_error": ErrorCode(502, "the model's endpoint failed"),
    "upstream_key_refused": ErrorCode(502, "the model's endpoint rejected the server's key"),
    "upstream_model_not_found": ErrorCode(502, "the model's endpoint does not know the model"),
    "upstream_rate_limited": ErrorCode(502, "the model's endpoint rejected the request for its rate"),
    "upstream_request_refused": ErrorCode(502, "the model's endpoint rejected the request"),
    "upstream_timeout": ErrorCode(504, "the model's endpoint did not reply in time"),
    "upstream_unreachable": ErrorCode(502, "the model's endpoint cannot be reached"),
    # failed memory: shown by `lastcall memories`
    "extraction_failed": ErrorCode(500, "a session's memories could not be extracted (`lastcall memories` only)"),
}

# Codes of responses that fail here; agents of other people may have their own.
RESPONSE_FAILURES = (
    "store_unavailable",
    "agent_error",
    "agent_timeout",
    "answer_too_long",
    "context_too_long",
    "unknown_tool",
    "upstream_broken",
    "upstream_error",
    "upstream_key_refused",
    "upstream_model_not_found",
    "upstream_rate_limited",
    "upstream_request_refused",
    "upstream_timeout",
    "upstream_unreachable",
)

MEMORY_FULL = "The server is short of memory, and this session holds more than its share; it can hold no more."


def error_type(status: int) -> ErrorType:
    return "server_error" if status >= 500 else "invalid_request_error"


# --- WebSocket


class ErrorDetail(Struct, kw_only=True):
    """event_id: that of the client's event which caused the error, or None."""

    type: ErrorType
    code: str
    message: str
    param: str | None
    event_id: str | None


class Error(ServerEvent, tag="error"):
    error: ErrorDetail


def error_event(code: str, message: str, *, param: str | None = None, event_id: str | None = None) -> Error:
    """An `error` event. event_id: of the client's event that it replies to."""
    kind = error_type(CODES[code].status)
    return Error(error=ErrorDetail(type=kind, code=code, message=message, param=param, event_id=event_id))


# --- HTTP


class ErrorBody(Struct, kw_only=True):
    message: str
    type: ErrorType
    param: str | None
    code: str


class ErrorAnswer(Struct):
    error: ErrorBody


class RequestRefused(Exception):
    """An HTTP request or handshake that is answered with an error.

    retry_after: in whole seconds. status: only where it is not that of the code.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        retry_after: int | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = CODES[code].status if status is None else status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def type(self) -> ErrorType:
        return error_type(self.status)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the reply, with names in lower case."""
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status == 426:
            headers["sec-websocket-version"] = WEBSOCKET_VERSION
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers

    @property
    def body(self) -> bytes:
        """The JSON of the reply, in the shape of the public API."""
        error = ErrorBody(message=self.message, type=self.type, param=self.param, code=self.code)
        return msgspec.json.encode(ErrorAnswer(error))
