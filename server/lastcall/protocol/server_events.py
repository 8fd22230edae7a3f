"""Events that the server sends: the text subset of the OpenAI Realtime API (GA). No I/O.

Names and shapes are those of the public API reference. Absent fields are left out, never null, except where the
reference allows null: strict clients drop an event that breaks this.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .items import Item

ResponseStatus = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]


class ServerEvent(Struct, tag_field="type", kw_only=True):
    """event_id is set when the event is sent."""

    event_id: str = ""


class TurnDetection(Struct):
    turn_detection: None = None


class Audio(Struct):
    input: TurnDetection = msgspec.field(default_factory=TurnDetection)


class RealtimeSession(Struct, kw_only=True):
    """The whole session, as it is sent at connect and after every update.

    conversation_id, user: not in the public API. user: whose session it is, whatever name the client asked for.
    """

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    output_modalities: tuple[str, ...] = ("text",)
    instructions: str
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool | UnsetType = UNSET
    max_output_tokens: int | Literal["inf"] = "inf"
    truncation: Any = "auto"
    tracing: Any = None
    prompt: Any = None
    audio: Audio = msgspec.field(default_factory=Audio)
    expires_at: int | UnsetType = UNSET
    conversation_id: str
    user: str | UnsetType = UNSET


class SessionCreated(ServerEvent, tag="session.created"):
    session: RealtimeSession


class SessionUpdated(ServerEvent, tag="session.updated"):
    session: RealtimeSession


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


class AudioBufferCleared(ServerEvent, tag="input_audio_buffer.cleared"):
    pass


class RateLimit(Struct, kw_only=True):
    """limit, remaining: in events. reset_seconds: until `remaining` is back at `limit`."""

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


class UsageReport(Struct, kw_only=True):
    """Tokens of a response. Some clients drop an event in which one of these is not a number."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: InputTokenDetails
    output_token_details: OutputTokenDetails


class Response(Struct, kw_only=True):
    """conversation_id: None for a response outside the conversation. usage: None where the agent does not count."""

    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: ResponseStatus = "in_progress"
    status_details: StatusDetails | None = None
    output: list[Item] = []
    conversation_id: str | None
    output_modalities: tuple[str, ...] = ("text",)
    max_output_tokens: int | Literal["inf"] = "inf"
    metadata: dict[str, str] | None = None
    usage: UsageReport | None = None


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


class TextPart(Struct, tag_field="type", tag="text"):
    """A content part in `response.content_part.*`: its type is `text`, not `output_text` as in items."""

    text: str


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


_encode = msgspec.json.Encoder().encode


def encode(event: ServerEvent, event_id: str) -> bytes:
    """The event as JSON text in UTF-8."""
    event.event_id = event_id
    return _encode(event)
