"""Items as rows of the transcript, and back. Pure."""

from __future__ import annotations

from typing import Literal

from ..protocol.items import FunctionCallItem, FunctionCallOutputItem, InputText, Item, MessageItem, OutputText
from ..store.records import StoredItem


def restored_item(stored: StoredItem) -> Item:
    """The item of a row, as clients see it."""
    item_id, status, call_id = stored.item_id, stored.status, stored.call_id or ""
    if stored.kind == "function_call":
        return FunctionCallItem(
            id=item_id, status=status, call_id=call_id, name=stored.name or "", arguments=stored.content
        )
    if stored.role == "tool":
        return FunctionCallOutputItem(id=item_id, status=status, call_id=call_id, output=stored.content)
    part = OutputText if stored.role == "assistant" else InputText
    return MessageItem(id=item_id, status=status, role=stored.role, content=[part(stored.content)])


def row_role(item: Item) -> Literal["system", "user", "assistant", "tool"]:
    """The role of an item's row."""
    match item:
        case MessageItem(role=role):
            return role
        case FunctionCallItem():
            return "assistant"
        case FunctionCallOutputItem():
            return "tool"


def row_kind(item: Item) -> Literal["message", "function_call", "function_call_output"]:
    """The kind of an item\'s row."""
    match item:
        case MessageItem():
            return "message"
        case FunctionCallItem():
            return "function_call"
        case FunctionCallOutputItem():
            return "function_call_output"
