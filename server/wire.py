"""The wire protocol: the text subset of the OpenAI Realtime API (GA). Pure: parse and encode, no I/O.

Names and shapes are those of the public API reference. Absent fields are left out, never null, except where the
reference allows null: strict clients drop an event that breaks this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]

Tokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

METADATA_PAIRS_MAX = 16
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 512


# --- parts that both directions share -------------------------------------------------------------------------------


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
    """A call of one of the client's tools. arguments: JSON, as the agent wrote it."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(Struct, tag_field="type", tag="function_call_output", kw_only=True):
    """What the client's tool answered to the call of the same `call_id`."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus
    call_id: str
    output: str


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem


class TextPart(Struct, tag_field="type", tag="text"):
    """A content part inside `response.content_part.*`, where text has another type name than inside items."""

    text: str


# --- client to server -----------------------------------------------------------------------------------------------


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


# --- server to client -----------------------------------------------------------------------------------------------


class ServerEvent(Struct, tag_field="type", kw_only=True):
    """event_id is set when the event is sent."""

    event_id: str = ""


class ErrorDetail(Struct, kw_only=True):
    """event_id: that of the client's event which caused it, or None."""

    type: Literal["invalid_request_error", "server_error"] = "invalid_request_error"
    code: str
    message: str
    param: str | None = None
    event_id: str | None = None


class Error(ServerEvent, tag="error"):
    error: ErrorDetail


class TurnDetection(Struct):
    turn_detection: None = None


class Audio(Struct):
    input: TurnDetection = msgspec.field(default_factory=TurnDetection)


class Session(Struct, kw_only=True):
    """The whole session, as it is sent at connect and after every update."""

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    output_modalities: tuple[str, ...] = ("text",)
    instructions: str
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    max_output_tokens: int | Literal["inf"] = "inf"
    truncation: Any = "auto"
    tracing: Any = None
    prompt: Any = None
    audio: Audio = msgspec.field(default_factory=Audio)
    expires_at: int | UnsetType = UNSET
    conversation_id: str


class SessionCreated(ServerEvent, tag="session.created"):
    session: Session


class SessionUpdated(ServerEvent, tag="session.updated"):
    session: Session


class ConversationRef(Struct):
    id: str
    object: Literal["realtime.conversation"] = "realtime.conversation"


class ConversationCreated(ServerEvent, tag="conversation.created"):
    conversation: ConversationRef


class ItemAdded(ServerEvent, tag="conversation.item.added"):
    previous_item_id: str | None
    item: Item


class ItemDone(ServerEvent, tag="conversation.item.done"):
    previous_item_id: str | None
    item: Item


class ItemRetrieved(ServerEvent, tag="conversation.item.retrieved"):
    item: Item


class ItemDeleted(ServerEvent, tag="conversation.item.deleted"):
    item_id: str


class RateLimit(Struct, kw_only=True):
    """limit, remaining: in events. reset_seconds: until all of them are there again."""

    name: Literal["requests"]
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(ServerEvent, tag="rate_limits.updated"):
    rate_limits: list[RateLimit]


class Failure(Struct, kw_only=True):
    type: Literal["server_error"] = "server_error"
    code: str
    message: str


class StatusDetails(Struct, kw_only=True, omit_defaults=True):
    type: Literal["cancelled", "incomplete", "failed"]
    reason: Literal["client_cancelled", "max_output_tokens", "content_filter"] | UnsetType = UNSET
    error: Failure | UnsetType = UNSET


class CachedTokensDetails(Struct, kw_only=True):
    text_tokens: int
    audio_tokens: int = 0
    image_tokens: int = 0


class InputTokenDetails(Struct, kw_only=True):
    text_tokens: int
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int
    cached_tokens_details: CachedTokensDetails


class OutputTokenDetails(Struct, kw_only=True):
    text_tokens: int
    audio_tokens: int = 0


class Usage(Struct, kw_only=True):
    """What a response cost: some clients drop an event in which one of these is not a number."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: InputTokenDetails
    output_token_details: OutputTokenDetails


class Response(Struct, kw_only=True):
    """conversation_id: None for a response outside the conversation. usage: None where nobody counted."""

    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: ResponseStatus = "in_progress"
    status_details: StatusDetails | None = None
    output: list[Item] = []
    conversation_id: str | None
    output_modalities: tuple[str, ...] = ("text",)
    max_output_tokens: int | Literal["inf"] = "inf"
    metadata: dict[str, str] | None = None
    usage: Usage | None = None


class ResponseCreated(ServerEvent, tag="response.created"):
    response: Response


class ResponseDone(ServerEvent, tag="response.done"):
    response: Response


class OutputItemAdded(ServerEvent, tag="response.output_item.added", kw_only=True):
    response_id: str
    output_index: int = 0
    item: Item


class OutputItemDone(ServerEvent, tag="response.output_item.done", kw_only=True):
    response_id: str
    output_index: int = 0
    item: Item


class ContentPartAdded(ServerEvent, tag="response.content_part.added", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: TextPart


class ContentPartDone(ServerEvent, tag="response.content_part.done", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: TextPart


class TextDelta(ServerEvent, tag="response.output_text.delta", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str


class TextDone(ServerEvent, tag="response.output_text.done", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str


class ArgumentsDelta(ServerEvent, tag="response.function_call_arguments.delta", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    call_id: str
    delta: str


class ArgumentsDone(ServerEvent, tag="response.function_call_arguments.done", kw_only=True):
    response_id: str
    item_id: str
    output_index: int = 0
    call_id: str
    name: str
    arguments: str


# --- parsing and encoding -------------------------------------------------------------------------------------------


class Rejected(Exception):
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
_encode = msgspec.json.Encoder().encode
_WHERE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def encode(event: ServerEvent, event_id: str) -> bytes:
    """The event as JSON text in UTF-8."""
    event.event_id = event_id
    return _encode(event)


def parse(message: str | bytes) -> AnyClientEvent:
    """Reads one client event. Raises `Rejected` for anything else, whatever the bytes are."""
    if isinstance(message, bytes):
        raise Rejected(ErrorDetail(code="invalid_value", message="Send events as text frames, not binary ones."))
    try:
        return _decode_event(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _rejection(message, error) from None


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


def _rejection(message: str, error: Exception) -> Rejected:
    try:
        header = _decode_header(message)
    except msgspec.ValidationError:
        return Rejected(ErrorDetail(code="invalid_value", message="An event is a JSON object."))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as broken:
        return Rejected(ErrorDetail(code="invalid_json", message=f"The message is not valid JSON: {broken}"))
    code, text, param = _explain(bytes(header.type), error)
    return Rejected(ErrorDetail(code=code, message=text, param=param, event_id=_text(header.event_id)))


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


def metadata_problem(metadata: dict[str, str] | None) -> str | None:
    """Why a response's metadata is refused, or None."""
    if metadata is None:
        return None
    if len(metadata) > METADATA_PAIRS_MAX:
        return f"metadata has more than {METADATA_PAIRS_MAX} pairs"
    if any(len(key) > METADATA_KEY_CHARS_MAX for key in metadata):
        return f"a metadata key is longer than {METADATA_KEY_CHARS_MAX} characters"
    if any(len(value) > METADATA_VALUE_CHARS_MAX for value in metadata.values()):
        return f"a metadata value is longer than {METADATA_VALUE_CHARS_MAX} characters"
    return None
