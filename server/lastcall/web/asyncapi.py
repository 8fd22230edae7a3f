"""The AsyncAPI document of the WebSocket, made from the types of its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from .. import __version__
from ..auth.identity import USER_CHARS_MAX, USER_HEADER, USER_QUERY
from ..protocol.endpoint import AZURE_PATH, MODEL_CHARS_MAX, PATH, REPLAY_ITEMS_MAX
from ..secret_prefixes import API_KEY
from .schemas import CLIENT_EVENTS, PLACE, SERVER_EVENTS, Schema, event_type, received, sent, without

DESCRIPTION = (
    "The text subset of the OpenAI Realtime API, for its official clients and for others. "
    f"For clients of Azure OpenAI the same is served at {AZURE_PATH}. "
    "For acknowledgements, close codes, error codes and limits see docs/protocol.md."
)
CHANNEL = "#/channels/realtime"
QUERY: Schema = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": f"Echoed, cut to {MODEL_CHARS_MAX} characters."},
        "deployment": {"type": "string", "description": "The same, as clients of Azure OpenAI say it."},
        "conversation": {
            "type": "string",
            "description": "The conversation to resume, conv_ and 32 hex digits; without it, a new one begins.",
        },
        "replay": {
            "type": "integer",
            "minimum": 0,
            "maximum": REPLAY_ITEMS_MAX,
            "default": REPLAY_ITEMS_MAX,
            "description": "The number of its newest items that are sent again at the client's first event.",
        },
        USER_QUERY: {"type": "string", "maxLength": USER_CHARS_MAX, "description": "The user of the session."},
    },
}
HEADERS: Schema = {
    "type": "object",
    "properties": {
        "authorization": {"type": "string", "description": "Bearer, then a key, client secret or token."},
        API_KEY: {"type": "string", "description": "The same without Bearer, from clients of Azure OpenAI."},
        USER_HEADER: {"type": "string", "maxLength": USER_CHARS_MAX, "description": "Takes precedence over ?user=."},
    },
}


def asyncapi() -> dict[str, Any]:
    """An AsyncAPI 3.0 document, from the server's side: it receives the client's events and sends its own."""
    events = [*CLIENT_EVENTS, *SERVER_EVENTS]
    names = [event_type(event) for event in events]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "lastcall", "version": __version__, "description": DESCRIPTION, "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "channels": {
            "realtime": {
                "address": PATH,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
                "bindings": {"ws": {"method": "GET", "query": QUERY, "headers": HEADERS, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "receiveClientEvent": _operation("receive", CLIENT_EVENTS),
            "sendServerEvent": _operation("send", SERVER_EVENTS),
        },
        "components": {
            "messages": {event_type(event): _message(event) for event in events},
            # Types of both directions are described as received. AsyncAPI's discriminator is not that of OpenAPI.
            "schemas": without("discriminator", {**sent(SERVER_EVENTS), **received(CLIENT_EVENTS)}),
        },
    }


def _operation(action: str, events: Sequence[type[Struct]]) -> dict[str, Any]:
    messages = [{"$ref": f"{CHANNEL}/messages/{event_type(event)}"} for event in events]
    return {"action": action, "channel": {"$ref": CHANNEL}, "messages": messages}


def _message(event: type[Struct]) -> dict[str, Any]:
    return {"name": event_type(event), "payload": {"$ref": f"{PLACE}{event.__name__}"}}
