"""The items of a conversation as clients see them. No I/O."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(Struct, tag_field="type", tag="input_text"):
    text: str


class OutputText(Struct, tag_field="type", tag="output_text"):
    text: str


ContentPart = InputText | OutputText


class MessageItem(Struct, tag_field="type", tag="message", kw_only=True):
    """An item as the server sends it."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus
    role: Literal["system", "user", "assistant"]
    content: list[ContentPart]


class FunctionCallItem(Struct, tag_field="type", tag="function_call", kw_only=True):
    """A call to one of the client's tools. arguments: JSON, as the agent wrote it."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(Struct, tag_field="type", tag="function_call_output", kw_only=True):
    """The output of the client's tool for the call with the same `call_id`."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus
    call_id: str
    output: str


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem
