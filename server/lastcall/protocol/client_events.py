"""Events that clients send, and how one is rejected. `parsing.py` reads them. No I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .errors import Error, ErrorDetail, error_event
from .items import ContentPart

Tokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Modalities = list[Literal["text", "audio"]]


class ClientEvent(Struct, tag_field="type", kw_only=True):
    """event_id: chosen by the client; echoed in `error.error.event_id` and nowhere else."""

    event_id: str | None = None


class SessionPatch(Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of a session in the public API: absent ones keep their value, null clears.

    Those that are only about audio or about the choice of a model are accepted without effect: clients send them
    unasked, and `session.updated` shows what holds.
    """

    type: str = "realtime"
    instructions: str | UnsetType | None = UNSET
    tools: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_output_tokens: Tokens | Literal["inf"] | UnsetType | None = UNSET
    tracing: Any = UNSET
    prompt: Any = UNSET
    truncation: Any = UNSET
    # Without effect.
    audio: dict[str, Any] | UnsetType | None = UNSET
    include: list[str] | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    output_modalities: Modalities | UnsetType | None = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET


WITHOUT_EFFECT = ("audio", "include", "model", "output_modalities", "reasoning")


class SessionUpdate(ClientEvent, tag="session.update", forbid_unknown_fields=True):
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


class ItemTruncate(ClientEvent, tag="conversation.item.truncate"):
    """Cuts the audio of an answer, which no item here has."""

    item_id: str
    content_index: int
    audio_end_ms: int


class AudioBufferClear(ClientEvent, tag="input_audio_buffer.clear"):
    """Empties the buffer of the client's audio, which is always empty here."""


class ResponseParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Overrides for one response. `audio`, `output_modalities` and `reasoning` are accepted without effect."""

    instructions: str | None = None
    conversation: str | None = None
    input: list[NewItem] | None = None
    metadata: dict[str, str] | None = None
    max_output_tokens: Tokens | Literal["inf"] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Any = None
    # Without effect.
    audio: dict[str, Any] | None = None
    output_modalities: Modalities | None = None
    reasoning: dict[str, Any] | None = None


class ResponseCreate(ClientEvent, tag="response.create", forbid_unknown_fields=True):
    response: ResponseParams | None = None


class ResponseCancel(ClientEvent, tag="response.cancel"):
    response_id: str | None = None


AnyClientEvent = (
    SessionUpdate
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | AudioBufferClear
    | ResponseCreate
    | ResponseCancel
)
SUPPORTED_EVENTS: tuple[str, ...] = tuple(str(each.__struct_config__.tag) for each in get_args(AnyClientEvent))

# Events of the public API that this server does not support.
AUDIO_EVENTS = frozenset({"input_audio_buffer.append", "input_audio_buffer.commit", "output_audio_buffer.clear"})


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
