"""The OpenAPI document of the HTTP API, made from the routes and the types of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..auth.identity import USER_CHARS_MAX, USER_HEADER, USER_QUERY
from ..memory.search.recalling import QUESTION_CHARS_MAX
from ..protocol.errors import ErrorAnswer
from ..store.conversations.seam import SEARCHED_CONVERSATIONS_MAX
from . import answers
from .admin.operations import ADMIN_OPERATIONS
from .admin.session_bodies import SessionEnding
from .conversations import PAGE_DEFAULT, PAGE_MAX, SEARCH_CHARS_MAX, TITLE_CHARS_MAX
from .schemas import ANSWERS, PLACE, Operation, Schema, parameter, sent
from .sign_in.operations import SIGN_IN_OPERATIONS

DESCRIPTION = (
    "The HTTP side of lastcall. The WebSocket at /v1/realtime is described in /asyncapi.json. "
    "For clients of Azure OpenAI everything under /v1 is served under /openai/v1 too."
)
HTML, JAVASCRIPT, JSON, TEXT = "text/html", "text/javascript", "application/json", "text/plain"


USER = (
    parameter(USER_HEADER, "header", "The user; else `?user=`, else anonymous.", maxLength=USER_CHARS_MAX),
    parameter(USER_QUERY, "query", "The user, where no header names one.", maxLength=USER_CHARS_MAX),
)
LIMIT = parameter(
    "limit",
    "query",
    "The most entries.",
    type="integer",
    minimum=1,
    maximum=PAGE_MAX,
    default=PAGE_DEFAULT,
)
PAGE = (
    LIMIT,
    parameter("after", "query", "The page begins after this id, in the order of the list."),
    parameter("before", "query", "The page ends before this id. Not allowed together with `after`."),
    parameter("order", "query", "Oldest or newest first.", enum=["asc", "desc"], default="desc"),
)
CONVERSATION = parameter("conversation_id", "path", "conv_ and 32 hex digits.")
MEMORY = parameter("memory_id", "path", "mem_ and a number.")
TIMES = parameter(
    "times", "query", "Whether to say when each item was stored.", enum=["false", "true"], default="false"
)
NO_CONVERSATION = "The user has no such conversation."
ONE_CONVERSATION = "The client secret is for one conversation only."
BAD_PARAMETER = "A parameter is not valid; `error.param` names it."
NO_DATABASE = "The database is unavailable."
NO_KEY = "There is no valid key, client secret or token."

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(answers={200: HTML}, summary="The chat page."),
    ("GET", "/c/{conversation_id}"): Operation(
        answers={200: HTML}, summary="The chat page, in this conversation.", parameters=[CONVERSATION]
    ),
    ("GET", "/embed"): Operation(answers={200: HTML}, refused={404: "No other site may show it (`--embed-origin`)."}),
    **SIGN_IN_OPERATIONS,
    ("GET", "/console"): Operation(answers={200: HTML}, summary="The console."),
    **ADMIN_OPERATIONS,
    ("GET", "/v1/sessions/{session_id}"): Operation(
        answers={200: SessionEnding},
        refused={401: NO_KEY, 404: "The user has no such session.", 503: NO_DATABASE},
        parameters=(parameter("session_id", "path", "sess_ and 32 hex digits."), *USER),
    ),
    ("GET", "/static/{path}"): Operation(
        answers={200: JAVASCRIPT},
        refused={404: "The file does not exist."},
        summary="The chat page's files.",
        parameters=[parameter("path", "path", "A file's name.")],
    ),
    ("GET", "/healthz"): Operation(answers={200: answers.Health}),
    ("GET", "/readyz"): Operation(
        answers={200: answers.Readiness, 503: answers.Readiness}, summary="Whether the server accepts sessions."
    ),
    ("GET", "/metrics"): Operation(answers={200: TEXT}),
    ("GET", "/v1/memories"): Operation(
        answers={200: answers.MemoryList}, refused={400: BAD_PARAMETER, 401: NO_KEY, 503: NO_DATABASE}, parameters=USER
    ),
    ("GET", "/v1/memories/recalled"): Operation(
        answers={200: answers.RecallExplanation},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 403: ONE_CONVERSATION, 503: NO_DATABASE},
        parameters=(*USER, parameter("query", "query", "The message.", minLength=1, maxLength=QUESTION_CHARS_MAX)),
    ),
    ("PATCH", "/v1/memories/{memory_id}"): Operation(
        answers={200: answers.MemoryBody},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 404: "The user has no such memory.", 503: NO_DATABASE},
        parameters=(MEMORY, *USER),
    ),
    ("DELETE", "/v1/memories/{memory_id}"): Operation(
        answers={200: answers.DeletedMemory},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 404: "The user has no such memory.", 503: NO_DATABASE},
        parameters=(MEMORY, *USER),
    ),
    ("POST", "/v1/realtime/client_secrets"): Operation(
        answers={200: JSON},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 403: "The key does not allow this.", 503: NO_DATABASE},
        summary="A client secret, for a browser.",
        parameters=USER,
    ),
    ("GET", "/v1/conversations"): Operation(
        answers={200: answers.ConversationList},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 503: NO_DATABASE},
        parameters=(
            *USER,
            LIMIT,
            parameter("after", "query", "The page begins after this conversation."),
            parameter(
                "search",
                "query",
                "Only conversations whose title or messages contain this, among the user's newest"
                f" {SEARCHED_CONVERSATIONS_MAX}.",
                minLength=1,
                maxLength=SEARCH_CHARS_MAX,
            ),
        ),
    ),
    ("POST", "/v1/conversations/{conversation_id}"): Operation(
        answers={200: answers.ConversationRenamed},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 404: NO_CONVERSATION, 503: NO_DATABASE},
        parameters=(CONVERSATION, *USER),
        body={
            "type": "object",
            "properties": {"title": {"type": ["string", "null"], "minLength": 1, "maxLength": TITLE_CHARS_MAX}},
            "required": ["title"],
            "additionalProperties": False,
        },
    ),
    ("DELETE", "/v1/conversations/{conversation_id}"): Operation(
        answers={200: answers.ConversationDeleted},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 404: NO_CONVERSATION, 503: NO_DATABASE},
        parameters=(CONVERSATION, *USER),
    ),
    ("GET", "/v1/conversations/{conversation_id}/items"): Operation(
        answers={200: answers.ItemList},
        refused={400: BAD_PARAMETER, 401: NO_KEY, 404: NO_CONVERSATION, 503: NO_DATABASE},
        parameters=(CONVERSATION, *USER, *PAGE, TIMES),
    ),
    ("GET", "/openapi.json"): Operation(answers={200: JSON}),
    ("GET", "/asyncapi.json"): Operation(answers={200: JSON}),
}


def openapi(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, sentence in documented(routes):
        operation = OPERATIONS.get((method, path), Operation(answers={200: JSON}))
        paths.setdefault(path, {})[method.lower()] = _describe(operation, sentence)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lastcall",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": sent(ANSWERS)},
    }


def documented(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str, str]]:
    """Method, path and first sentence of every route, without HEAD."""
    for route in routes:
        if isinstance(route, Route):
            sentence = (route.endpoint.__doc__ or "").strip().split("\n")[0]
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path, sentence


def _describe(operation: Operation, sentence: str) -> dict[str, Any]:
    found = {str(status): _answer(status, body) for status, body in operation.answers.items()}
    refused = {str(status): _error(text) for status, text in operation.refused.items()}
    described: dict[str, Any] = {"summary": operation.summary or sentence, "responses": {**found, **refused}}
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    return described


def _answer(status: int, body: type[Struct] | str) -> dict[str, Any]:
    description = {200: "Success.", 303: "The browser goes on to the page."}.get(status, "Not ready.")
    if isinstance(body, str):
        return {"description": description, "content": {body: {}}}
    return {"description": description, "content": {JSON: {"schema": _ref(body)}}}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": _ref(ErrorAnswer)}}}


def _ref(body: type[Struct]) -> Schema:
    return {"$ref": f"{PLACE}{body.__name__}"}
