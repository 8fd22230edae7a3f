"""JSON Schemas of the events and bodies, made from the types that encode and decode them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, get_args

import msgspec
from msgspec import NODEFAULT, Struct, UnsetType

from ..protocol import errors, items, server_events
from ..protocol.client_events import AnyClientEvent, ClientEvent
from . import answers
from .admin import bodies, session_bodies

Schema = dict[str, Any]
PLACE = "#/components/schemas/"
CLIENT_EVENTS: tuple[type[ClientEvent], ...] = get_args(AnyClientEvent)
SERVER_EVENTS: tuple[type[server_events.ServerEvent], ...] = tuple(server_events.ServerEvent.__subclasses__())
ANSWERS: tuple[type[Struct], ...] = (
    errors.ErrorAnswer,
    *(
        each
        for module in (answers, bodies, session_bodies)
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What cannot be derived from a route.

    answers: by status, a type of a body or a media type. body: the JSON Schema of the request's body.
    """

    answers: dict[int, type[Struct] | str]
    parameters: Sequence[dict[str, Any]] = ()
    body: dict[str, Any] | None = None
    summary: str = ""
    refused: dict[int, str] = field(default_factory=dict)


def parameter(name: str, where: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string", **schema},
    }


def received(types: Iterable[type[Struct]]) -> dict[str, Schema]:
    """The schemas of types that clients send, by name, with the types that they refer to."""
    return msgspec.json.schema_components(types, ref_template=PLACE + "{name}")[1]


def sent(types: Iterable[type[Struct]]) -> dict[str, Schema]:
    """The schemas of types that the server sends. Required are all fields that are always sent."""
    schemas = received(types)
    modules = (items, server_events, errors, answers, bodies, session_bodies)
    classes = {name: each for module in modules for name, each in _classes(module).items()}
    return {name: _as_sent(schema, classes[name]) for name, schema in schemas.items()}


def event_type(event: type[Struct]) -> str:
    """The `type` of an event."""
    return str(event.__struct_config__.tag)


def without(key: str, schema: Any) -> Any:
    """The schema without a keyword, at any depth."""
    if isinstance(schema, Mapping):
        return {name: without(key, each) for name, each in schema.items() if name != key}
    return [without(key, each) for each in schema] if isinstance(schema, list) else schema


def _classes(module: ModuleType) -> dict[str, type[Struct]]:
    found = {name: each for name, each in vars(module).items() if isinstance(each, type)}
    return {name: each for name, each in found.items() if issubclass(each, Struct)}


def _as_sent(schema: Schema, struct: type[Struct]) -> Schema:
    tag = struct.__struct_config__.tag_field
    required = ([tag] if tag else []) + [each.encode_name for each in _fields(struct) if _always(struct, each)]
    return {**without("default", schema), "required": required}


def _fields(struct: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def _always(struct: type[Struct], field: msgspec.structs.FieldInfo) -> bool:
    has_default = (field.default, field.default_factory) != (NODEFAULT, NODEFAULT)
    left_out = struct.__struct_config__.omit_defaults and has_default
    return not left_out and UnsetType not in get_args(field.type)
