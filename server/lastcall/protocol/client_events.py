"""What clients send on the wire: its shapes, and what is said of a message that has none of them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .items import ContentPart
from .server_events import ErrorDetail

Tokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class ClientEvent(Struct, tag_field="type", kw_only=True):
    """event_id: the client's own name for this event; echoed in `error.error.event_id` and nowhere else."""

    event_id: str | None = None


class SessionPatch(Struct, kw_only=True):
    """What a client may set; absent fields keep their value, null clears. Everything else is accepted and ignored."""

    type: str = "realtime"
    instructions: str | UnsetType | None = UNSET
    tools: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    max_output_tokens: Tokens | Literal["inf"] | UnsetType | None = UNSET
    tracing: Any = UNSET
    prompt: Any = UNSET
    truncation: Any = UNSET


class SessionUpdate(ClientEvent, tag="session.update"):
    session: SessionPatch


# What an item of each type cannot be without.
_NEEDED = {
    "message": ("role", "content"),
    "function_call": ("name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "item_reference": ("id",),
}


class NewItem(Struct, kw_only=True):
    """An item as a client sends it; one without a type is a message. `item_reference`: only in a response's input."""

    type: Literal["message", "function_call", "function_call_output", "item_reference"] = "message"
    id: str | None = None
    role: Literal["system", "user", "assistant"] | UnsetType = UNSET
    content: list[ContentPart] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    call_id: str | UnsetType | None = UNSET
    output: str | UnsetType = UNSET
    status: Any = None

    def __post_init__(self) -> None:
        for name in _NEEDED[self.type]:
            if getattr(self, name) in (UNSET, None):
                raise ValueError(f"Object missing required field `{name}`")


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """previous_item_id: the item before the new one, `root` for none, or None: at the end."""

    item: NewItem
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent, tag="conversation.item.retrieve"):
    item_id: str


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    item_id: str


class ResponseParams(Struct, kw_only=True):
    """What one response is to differ in. `output_modalities` and `reasoning` are accepted and ignored."""

    instructions: str | None = None
    conversation: str | None = None
    input: list[NewItem] | None = None
    metadata: dict[str, str] | None = None
    max_output_tokens: Tokens | Literal["inf"] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None


class ResponseCreate(ClientEvent, tag="response.create"):
    response: ResponseParams | None = None


class ResponseCancel(ClientEvent, tag="response.cancel"):
    response_id: str | None = None


AnyClientEvent = SessionUpdate | ItemCreate | ItemRetrieve | ItemDelete | ResponseCreate | ResponseCancel

# Events of the public protocol that lastcall knows and does not do.
AUDIO_EVENTS = frozenset(
    {
        "conversation.item.truncate",
        "input_audio_buffer.append",
        "input_audio_buffer.clear",
        "input_audio_buffer.commit",
        "output_audio_buffer.clear",
    }
)
SUPPORTED_EVENTS = (
    "session.update",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
)


# --- parsing --------------------------------------------------------------------------------------------------------


class EventRejected(Exception):
    """A client's event that cannot be handled; `detail` is what the client is told."""

    def __init__(self, detail: ErrorDetail) -> None:
        super().__init__(detail.message)
        self.detail = detail


class _Header(Struct):
    """What is readable of an event that does not fit its shape; as JSON, for a number in it may be too large."""

    type: msgspec.Raw = msgspec.Raw(b"null")
    event_id: msgspec.Raw = msgspec.Raw(b"null")


_decode_event: Callable[[str], AnyClientEvent] = msgspec.json.Decoder(AnyClientEvent).decode
_decode_session = msgspec.json.Decoder(SessionPatch).decode
_decode_header: Callable[[str | bytes], _Header] = msgspec.json.Decoder(_Header).decode
_decode_text = msgspec.json.Decoder(str).decode
_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def parse_event(message: str | bytes) -> AnyClientEvent:
    """Reads one client event. Raises `EventRejected` for anything else, whatever the bytes are."""
    if isinstance(message, bytes):
        raise EventRejected(ErrorDetail(code="invalid_value", message="Send events as text frames, not binary ones."))
    try:
        return _decode_event(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _rejection(message, error) from None


def parsed_or_rejected(message: str | bytes) -> AnyClientEvent | EventRejected:
    """Like `parse_event`, for a queue that keeps what is wrong in its place among what is right."""
    try:
        return parse_event(message)
    except EventRejected as rejection:
        return rejection


def parse_session(text: str | bytes) -> SessionPatch:
    """A session as a client may set it. Raises `ValueError`, with a sentence for the client."""
    try:
        return _decode_session(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"Invalid session: {error}.") from None


def event_id_of(message: str | bytes) -> str | None:
    """The client's own name of an event that is not read any further; None where there is none to be found."""
    try:
        return _text(_decode_header(message).event_id)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _rejection(message: str, error: Exception) -> EventRejected:
    try:
        header = _decode_header(message)
    except msgspec.ValidationError:
        return EventRejected(ErrorDetail(code="invalid_value", message="An event is a JSON object."))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as broken:
        return EventRejected(ErrorDetail(code="invalid_json", message=f"The message is not valid JSON: {broken}"))
    code, text, param = _explain(bytes(header.type), error)
    return EventRejected(ErrorDetail(code=code, message=text, param=param, event_id=_text(header.event_id)))


def _text(value: bytes | msgspec.Raw) -> str | None:
    """The string that a JSON value is, or None."""
    try:
        return _decode_text(value)
    except msgspec.ValidationError:
        return None


def _explain(kind: bytes, error: Exception) -> tuple[str, str, str | None]:
    """Code, message and param for an event that is JSON but does not fit. kind: its type, as JSON."""
    if kind == b"null":
        return "missing_required_parameter", "Missing required parameter: 'type'.", "type"
    name = _text(kind)
    if name in AUDIO_EVENTS:
        return "unsupported_event", f"'{name}' is about audio, and this server speaks text only.", "type"
    if name not in SUPPORTED_EVENTS:
        shown = kind.decode() if name is None else repr(name)
        supported = ", ".join(f"'{name}'" for name in SUPPORTED_EVENTS)
        return "invalid_value", f"Invalid value: {shown:.100}. Supported values are: {supported}.", "type"
    where = _WHERE.search(str(error))
    path = where["path"] if where else ""
    text = _WHERE.sub("", str(error))
    missing = re.match(r"Object missing required field `(\w+)`", text)
    if missing:
        param = f"{path}.{missing[1]}".lstrip(".")
        return "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    return "invalid_value", f"Invalid value at '{path}': {text:.200}.", path or None
