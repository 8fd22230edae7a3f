"""Events that clients send, and their parser. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .errors import Error, ErrorDetail, error_event
from .half_characters import without_half_characters
from .items import ContentPart
from .json_bounds import JsonBounds

Tokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class ClientEvent(Struct, tag_field="type", kw_only=True):
    """event_id: chosen by the client; echoed in `error.error.event_id` and nowhere else."""

    event_id: str | None = None


class SessionPatch(Struct, kw_only=True):
    """The fields that a client may set: absent ones keep their value, null clears. All others are ignored."""

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


# The required fields of an item, by type.
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
    """Overrides for one response. `output_modalities` and `reasoning` are accepted and ignored."""

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

# Events of the public API that this server does not support.
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
    """A client's event that is not handled. error: the event that tells the client why."""

    def __init__(self, code: str, message: str, param: str | None = None, event_id: str | None = None) -> None:
        super().__init__(message)
        self.error: Error = error_event(code, message, param=param, event_id=event_id)

    @property
    def detail(self) -> ErrorDetail:
        return self.error.error

    @property
    def event_id(self) -> str | None:
        """The client's id of the rejected event, like `ClientEvent.event_id`."""
        return self.detail.event_id


class TooComplex(EventRejected):
    """An event that exceeds the bounds of JSON and was not parsed."""


class _Header(Struct):
    """The header of an event of any shape. As raw JSON, because a number in it may be too large to decode."""

    type: msgspec.Raw = msgspec.Raw(b"null")
    event_id: msgspec.Raw = msgspec.Raw(b"null")


_decode_event: Callable[[str], AnyClientEvent] = msgspec.json.Decoder(AnyClientEvent).decode
_decode_session = msgspec.json.Decoder(SessionPatch).decode
_decode_header: Callable[[str | bytes], _Header] = msgspec.json.Decoder(_Header).decode
_decode_text = msgspec.json.Decoder(str).decode
_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def parse_event(message: str | bytes, bounds: JsonBounds) -> AnyClientEvent:
    """Parses one client event. Raises `EventRejected` for anything else, whatever the bytes are."""
    if isinstance(message, bytes):
        raise EventRejected("invalid_value", "Events must be sent as text frames, not as binary frames.")
    problem = bounds.problem(message)
    if problem is not None:
        raise TooComplex("invalid_value", problem, event_id=event_id_of(message))
    try:
        return _decode_event(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        whole = without_half_characters(message)
        if whole != message:
            return parse_event(whole, bounds)
        raise _rejection(message, error) from None


def parse_session(text: str | bytes) -> SessionPatch:
    """Parses the fields of a session that a client may set. Raises `ValueError`, with a sentence for the client."""
    try:
        return _decode_session(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"Invalid session: {error}.") from None


def event_id_of(message: str | bytes) -> str | None:
    """The event_id of a message that is not parsed any further; None where it has none."""
    try:
        return _text(_decode_header(message).event_id)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _rejection(message: str, error: Exception) -> EventRejected:
    try:
        header = _decode_header(message)
    except msgspec.ValidationError:
        return EventRejected("invalid_value", "An event must be a JSON object.")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as broken:
        return EventRejected("invalid_json", f"The message is not valid JSON: {broken}")
    event_id = _text(header.event_id)
    return _unknown_event(bytes(header.type), event_id) or _misshapen_event(error, event_id)


def _text(value: bytes | msgspec.Raw) -> str | None:
    """The value of a JSON string; None for other JSON."""
    try:
        return _decode_text(value)
    except msgspec.ValidationError:
        return None


def _unknown_event(kind: bytes, event_id: str | None) -> EventRejected | None:
    """The rejection of an event whose type is not supported; None where it is. kind: the type, as JSON."""
    if kind == b"null":
        return EventRejected("missing_required_parameter", "Missing required parameter: 'type'.", "type", event_id)
    name = _text(kind)
    if name in AUDIO_EVENTS:
        message = f"'{name}' is not supported: this server handles text only, no audio."
        return EventRejected("unsupported_event", message, "type", event_id)
    if name in SUPPORTED_EVENTS:
        return None
    shown = kind.decode() if name is None else repr(name)
    supported = ", ".join(f"'{name}'" for name in SUPPORTED_EVENTS)
    message = f"Invalid value: {shown:.100}. Supported values are: {supported}."
    return EventRejected("invalid_value", message, "type", event_id)


def _misshapen_event(error: Exception, event_id: str | None) -> EventRejected:
    """The rejection of an event of a supported type that does not have its shape."""
    where = _WHERE.search(str(error))
    path = where["path"] if where else ""
    text = _WHERE.sub("", str(error))
    missing = re.match(r"Object missing required field `(\w+)`", text)
    if missing:
        param = f"{path}.{missing[1]}".lstrip(".")
        message = f"Missing required parameter: '{param}'."
        return EventRejected("missing_required_parameter", message, param, event_id)
    return EventRejected("invalid_value", f"Invalid value at '{path}': {text:.200}.", path or None, event_id)
