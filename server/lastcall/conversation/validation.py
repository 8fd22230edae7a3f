"""Validates events of the right shape, and converts their items and tools. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from msgspec import UNSET

from ..agents.agent import Tool
from ..protocol.client_events import (
    ClientEvent,
    EventRejected,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    NewItem,
)
from ..protocol.ids import new_id
from ..protocol.items import FunctionCallItem, FunctionCallOutputItem, InputText, Item, MessageItem, OutputText

ID_CHARS_MAX = 128  # of an item's id, a call_id and a function's name
TOOL_NAME_CHARS_MAX = 64
METADATA_PAIRS_MAX = 16
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 512

Choice = Literal["auto", "none", "required"] | Tool


def refusal(event: ClientEvent, code: str, message: str, param: str | None = None) -> EventRejected:
    """The rejection of an event, with the client's id of it."""
    return EventRejected(code, message, param, event.event_id)


def item_exists(event: ClientEvent, item_id: str | None) -> EventRejected:
    message = f"Error adding item: an item with id '{item_id}' already exists."
    return refusal(event, "item_create_duplicate_item_id", message, "item.id")


def item_not_found(event: ClientEvent, item_id: str, param: str) -> EventRejected:
    """With the public API's code and words for this event: clients look for them."""
    item = f"item with id '{item_id:.200}' does not exist."
    match event:
        case ItemCreate():
            message = f"Error adding item: the previous {item}"
            return refusal(event, "item_create_invalid_previous_item_id", message, param)
        case ItemRetrieve():
            return refusal(event, "item_retrieve_invalid_item_id", f"Error retrieving item: the {item}", param)
        case ItemDelete():
            return refusal(event, "item_delete_invalid_item_id", f"Error deleting item: the {item}", param)
        case ItemTruncate():
            return refusal(event, "item_truncate_invalid_item_id", f"Error truncating item: the {item}", param)
        case _:
            return refusal(event, "item_not_found", f"The {item}", param)


# --- items


def new_item(event: ClientEvent, item: NewItem, param: str) -> Item:
    """The item that a client describes, completed. Raises `EventRejected`. param: its place in the event."""
    _check_item(event, item, param)
    item_id = item.id or new_id("item")
    if item.type == "function_call":
        return FunctionCallItem(
            id=item_id,
            status="completed",
            call_id=item.call_id or new_id("call"),
            name=item.name or "",
            arguments=item.arguments or "",
        )
    if item.type == "function_call_output":
        return FunctionCallOutputItem(
            id=item_id, status="completed", call_id=item.call_id or "", output=item.output or ""
        )
    assert item.role is not UNSET
    return MessageItem(id=item_id, status="completed", role=item.role, content=item.content or [])


def _check_item(event: ClientEvent, item: NewItem, param: str) -> None:
    for name, value in (("id", item.id), ("call_id", item.call_id), ("name", item.name)):
        if isinstance(value, str) and not 1 <= len(value) <= ID_CHARS_MAX:
            raise refusal(
                event, "invalid_value", f"{name} must have 1 to {ID_CHARS_MAX} characters.", f"{param}.{name}"
            )
    parts = item.content or []
    texts = [item.id, item.call_id, item.name, item.arguments, item.output, *(part.text for part in parts)]
    if any("\0" in text for text in texts if isinstance(text, str)):
        raise refusal(event, "invalid_value", "Text must not contain the NUL character.", param)
    wanted, allowed = (OutputText, "output_text") if item.role == "assistant" else (InputText, "input_text")
    for index, part in enumerate(parts if item.type == "message" else ()):
        if not isinstance(part, wanted):
            where = f"{param}.content[{index}].type"
            raise refusal(event, "invalid_value", f"Content of role {item.role} must be of type {allowed}.", where)


# --- tools


def offered_tools(event: ClientEvent, tools: Sequence[Mapping[str, Any]], param: str) -> tuple[Tool, ...]:
    """The functions among a client's tools. Tools of other types are ignored: no agent can call them."""
    offered = {}
    for index, tool in enumerate(tools):
        if tool.get("type") == "function":
            made = _function(event, tool, f"{param}[{index}]")
            offered[made.name] = made
    return tuple(offered.values())


def _function(event: ClientEvent, tool: Mapping[str, Any], param: str) -> Tool:
    name, description, parameters = tool.get("name"), tool.get("description") or "", tool.get("parameters") or {}
    if not isinstance(name, str) or not 1 <= len(name) <= TOOL_NAME_CHARS_MAX or "\0" in name:
        message = f"name must have 1 to {TOOL_NAME_CHARS_MAX} characters, none of them NUL."
        raise refusal(event, "invalid_value", message, f"{param}.name")
    if not isinstance(description, str):
        raise refusal(event, "invalid_value", "description must be a string.", f"{param}.description")
    if not isinstance(parameters, dict):
        raise refusal(event, "invalid_value", "parameters must be a JSON schema object.", f"{param}.parameters")
    return Tool(name, description, parameters)


def chosen_tool(event: ClientEvent, choice: str | Mapping[str, Any], tools: Sequence[Tool], param: str) -> Choice:
    """The tool, or the mode, that a `tool_choice` selects. Raises `EventRejected`."""
    known_choice(event, choice, param)
    if isinstance(choice, str):
        return cast("Choice", choice)
    for tool in tools:
        if tool.name == choice["name"]:
            return tool
    raise refusal(event, "invalid_value", f"Unknown tool {choice['name']!r:.100}.", param)


def known_choice(event: ClientEvent, choice: str | Mapping[str, Any], param: str) -> None:
    """Checks the shape of a `tool_choice`, whatever the tools are. Raises `EventRejected`."""
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return
    if isinstance(choice, Mapping) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return
    message = 'tool_choice must be "auto", "none", "required" or {"type": "function", "name": …} with one of the tools.'
    raise refusal(event, "invalid_value", message, param)


# --- metadata


def metadata_problem(metadata: dict[str, str] | None) -> str | None:
    """The reason to reject a response's metadata, or None."""
    if metadata is None:
        return None
    if len(metadata) > METADATA_PAIRS_MAX:
        return f"metadata has more than {METADATA_PAIRS_MAX} pairs"
    if any(len(key) > METADATA_KEY_CHARS_MAX for key in metadata):
        return f"a metadata key is longer than {METADATA_KEY_CHARS_MAX} characters"
    if any(len(value) > METADATA_VALUE_CHARS_MAX for value in metadata.values()):
        return f"a metadata value is longer than {METADATA_VALUE_CHARS_MAX} characters"
    return None
