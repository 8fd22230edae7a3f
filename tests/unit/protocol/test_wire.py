"""The wire protocol: events that are parsed, rejected and sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.conversation.validation import metadata_problem
from lastcall.protocol import server_events
from lastcall.protocol.client_events import (
    AUDIO_EVENTS,
    SUPPORTED_EVENTS,
    WITHOUT_EFFECT,
    AnyClientEvent,
    EventRejected,
    ItemCreate,
    ItemDelete,
    ResponseCreate,
    ResponseParams,
    SessionPatch,
    SessionUpdate,
)
from lastcall.protocol.errors import Error, ErrorDetail, error_event
from lastcall.protocol.items import (
    ContentPart,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    ItemStatus,
    MessageItem,
    OutputText,
)
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event
from msgspec import UNSET
from openai.types.realtime import RealtimeResponseCreateParams, RealtimeServerEvent, RealtimeSessionCreateRequest
from pydantic import TypeAdapter

ANY_SIZE = JsonBounds(10**9, 10**9)  # the bounds have tests of their own
MESSAGE_CHARS_MAX = 1_000  # of a refusal, however large the refused message is
STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)  # what strict clients check every event with

AGENTS_PY = [
    (
        '{"session":{"type":"realtime","audio":{"input":{"format":{"rate":24000,"type":"audio/pcm"},"transcription":'
        '{"model":"gpt-4o-mini-transcribe"},"turn_detection":null},"output":{"format":{"rate":24000,"type":"audio/pcm"},"voice":"ash"}},'
        '"instructions":"be nice","model":"our-agent","output_modalities":["text"],"tools"'
        ':[{"description":"weather","name":'
        '"get_weather","parameters":{"properties":{"city":{"title":"City","type":"string"}},"required":["city"],"title":'
        '"get_weather_args","type":"object","additionalProperties":false},"type":"function"}]},"type":"session.update"}'
    ),
    (
        '{"item":{"content":[{"text":"hello agents","type":"input_text"}],"role":"user","type":"message"},'
        '"type":"conversation.item.create"}'
    ),
    '{"session":{"type":"realtime","model":"our-agent","tracing":"auto"},"type":"session.update"}',
    '{"type":"response.create","event_id":"agents_py_response_create_1"}',
]
AGENTS_JS = [
    (
        '{"type":"session.update","session":{"type":"realtime","instructions":"be nice","model":"our-agent",'
        '"output_modalities":["text"],"audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"noise_reduction":null,'
        '"transcription":null,"turn_detection":null},"output":{"format":{"type":"audio/pcm","rate":24000},"speed":1}},"tools":'
        '[{"type":"function","name":"get_weather","description":"w","parameters":{"$schema":'
        '"http://json-schema.org/draft-07/schema#","type":"object","properties":{"city":{"type":"string"}},"required":["city"],'
        '"additionalProperties":false}}]}}'
    ),
    (
        '{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text",'
        '"text":"hello agents js"}]}}'
    ),
    '{"type":"response.create","event_id":"agents_js_response_create_1"}',
    '{"type":"session.update","session":{"type":"realtime","tracing":"auto"}}',
]
PCM = {"type": "audio/pcm", "rate": 24000}
# With every option that these frameworks have for a session or a response in the public API's general version.
FRAMEWORKS: list[dict[str, Any]] = [
    {  # pydantic-ai
        "type": "session.update",
        "session": {
            "type": "realtime",
            "instructions": "be nice",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": PCM,
                    "turn_detection": {"type": "server_vad"},
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "noise_reduction": {"type": "near_field"},
                },
                "output": {"format": PCM, "voice": "ash", "speed": 1.1},
            },
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
            "max_output_tokens": 500,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
            "reasoning": {"effort": "none"},
        },
    },
    {  # livekit-agents
        "type": "session.update",
        "event_id": "session_update_1",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["text"],
            "audio": {
                "input": {"format": PCM, "noise_reduction": None, "transcription": None, "turn_detection": None},
                "output": {"format": PCM, "speed": 1.0, "voice": "marin"},
            },
            "max_output_tokens": "inf",
            "tool_choice": "auto",
            "tracing": None,
            "instructions": "be nice",
            "truncation": "auto",
            "reasoning": {"effort": "low"},
        },
    },
    {
        "type": "response.create",
        "event_id": "response_create_1",
        "response": {
            "instructions": "be brief",
            "metadata": {"client_event_id": "response_create_1"},
            "tool_choice": "none",
            "tools": [],
        },
    },
    {  # pipecat
        "type": "session.update",
        "event_id": "e",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["text"],
            "instructions": "be nice",
            "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}, "turn_detection": None}},
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": 1000,
            "tracing": "auto",
            "include": ["item.input_audio_transcription.logprobs"],
            "reasoning": {"effort": "low"},
        },
    },
    {"type": "response.create", "event_id": "e", "response": {"output_modalities": ["audio"]}},
    {"type": "input_audio_buffer.clear", "event_id": "e"},
    {  # the AI SDK
        "type": "session.update",
        "session": {
            "type": "realtime",
            "model": "lastcall",
            "instructions": "be nice",
            "output_modalities": ["text"],
            "audio": {"output": {"voice": "ash"}},
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
            "tool_choice": "auto",
        },
    },
    {
        "type": "response.create",
        "response": {"output_modalities": ["text"], "instructions": "be brief", "metadata": {"turn": "1"}},
    },
]
VALID: list[dict[str, Any]] = [
    *(json.loads(text) for text in AGENTS_PY + AGENTS_JS),
    *FRAMEWORKS,
    {
        "type": "conversation.item.create",
        "event_id": "e1",
        "previous_item_id": "item_0",
        "item": {
            "id": "item_1",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hello"}],
        },
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
    },
    {"type": "response.cancel"},
    {"type": "response.cancel", "response_id": "resp_1", "event_id": "e2"},
    {
        "type": "response.create",
        "response": {"metadata": {"turn": "1"}, "max_output_tokens": 5, "conversation": "auto"},
    },
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "output_modalities": ["text"],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
            "input": [
                {"type": "item_reference", "id": "item_1"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            ],
        },
    },
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "20 C"}},
    {
        "type": "conversation.item.create",
        "previous_item_id": "root",
        "item": {"id": "item_2", "type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
    },
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {"type": "conversation.item.delete", "item_id": "item_1", "event_id": "e3"},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1_500},
    {"type": "input_audio_buffer.clear", "event_id": "e4"},
    {
        "type": "session.update",
        "session": {"type": "realtime", "output_modalities": ["text"], "instructions": "be terse"},
    },
]


def refused(message: str | bytes) -> ErrorDetail:
    with pytest.raises(EventRejected) as caught:
        parse_event(message, ANY_SIZE)
    return caught.value.detail


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", VALID, ids=lambda event: event["type"])
def test_every_event_that_clients_are_known_to_send_is_read(event: dict[str, Any]) -> None:
    parsed = parse_event(json.dumps(event), ANY_SIZE)
    assert parsed.__struct_config__.tag == event["type"]
    assert parsed.event_id == event.get("event_id")


def test_a_session_update_tells_absent_fields_from_cleared_ones() -> None:
    event = parse_event(
        '{"type":"session.update","session":{"type":"realtime","tools":[],"instructions":null}}', ANY_SIZE
    )
    assert isinstance(event, SessionUpdate)
    assert event.session.tools == []
    assert event.session.instructions is None
    assert event.session.tool_choice is UNSET
    assert event.session.tracing is UNSET
    assert event.session.max_output_tokens is UNSET
    partial = parse_event('{"type":"session.update","session":{"type":"realtime","tracing":"auto"}}', ANY_SIZE)
    assert isinstance(partial, SessionUpdate)
    assert partial.session.tools is UNSET
    assert partial.session.instructions is UNSET


def test_an_item_keeps_its_own_id_its_role_and_its_parts() -> None:
    event = parse_event(
        '{"type":"conversation.item.create","previous_item_id":"item_0","item":{"id":"item_1","type":"message",'
        '"status":"completed","role":"system","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]}}',
        ANY_SIZE,
    )
    assert isinstance(event, ItemCreate)
    assert (event.item.id, event.item.role, event.previous_item_id) == ("item_1", "system", "item_0")
    assert event.item.content == [InputText("a"), InputText("b")]


def test_a_responses_own_fields_are_read_also_those_without_effect() -> None:
    event = parse_event(
        '{"type":"response.create","response":{"instructions":"i","conversation":"none","input":[],"metadata":{"a":"b"},'
        '"max_output_tokens":"inf","parallel_tool_calls":true,"reasoning":{"effort":"low"},"output_modalities":["audio"],'
        '"audio":{"output":{"voice":"ash"}}}}',
        ANY_SIZE,
    )
    assert isinstance(event, ResponseCreate)
    assert event.response == ResponseParams(
        instructions="i",
        conversation="none",
        input=[],
        metadata={"a": "b"},
        max_output_tokens="inf",
        parallel_tool_calls=True,
        reasoning={"effort": "low"},
        output_modalities=["audio"],
        audio={"output": {"voice": "ash"}},
    )


def test_the_fields_of_sessions_and_responses_are_those_of_the_public_api() -> None:
    """So that no client of it is refused for a field that it may send."""
    assert {each.name for each in msgspec.structs.fields(SessionPatch)} == set(
        RealtimeSessionCreateRequest.model_fields
    )
    assert {each.name for each in msgspec.structs.fields(ResponseParams)} == set(
        RealtimeResponseCreateParams.model_fields
    )
    assert {*WITHOUT_EFFECT} < {each.name for each in msgspec.structs.fields(SessionPatch)}


def test_a_text_with_nul_parses_unchanged() -> None:
    event = parse_event(
        r'{"type":"conversation.item.create","item":{"role":"user","content":[{"type":"input_text","text":"a\u0000b"}]}}',
        ANY_SIZE,
    )
    assert isinstance(event, ItemCreate)
    assert event.item.content == [InputText("a\0b")]


# --- what is refused ------------------------------------------------------------------------------------------------

_ITEM = '{"type":"conversation.item.create","event_id":"e","item":%s}'
_PARTS = _ITEM % '{"type":"message","role":"user","content":[%s]}'
_PATCH = '{"type":"session.update","event_id":"e","session":%s}'
_MISSING_INDEX = ("missing_required_parameter", "content_index", "e")
_PARAMS = '{"type":"response.create","event_id":"e","response":%s}'


@pytest.mark.parametrize(
    ("message", "code", "param", "event_id"),
    [
        ("", "invalid_json", None, None),
        ("{", "invalid_json", None, None),
        ("hello", "invalid_json", None, None),
        ("NaN", "invalid_json", None, None),
        ('{"type":"response.create"} {}', "invalid_json", None, None),
        ('\ufeff{"type":"response.create"}', "invalid_json", None, None),
        ('{"type":"response.create","x":"\ud800"}', "invalid_json", None, None),
        ('{"type":"response.create","x":' + "[" * 100_000 + "]" * 100_000 + "}", "invalid_json", None, None),
        ("[]", "invalid_value", None, None),
        ("null", "invalid_value", None, None),
        ("1", "invalid_value", None, None),
        ('"response.create"', "invalid_value", None, None),
        (b'{"type":"response.create"}', "invalid_value", None, None),
        (b"\xff", "invalid_value", None, None),
        ("{}", "missing_required_parameter", "type", None),
        ('{"event_id":"e"}', "missing_required_parameter", "type", "e"),
        ('{"type":null,"event_id":"e"}', "missing_required_parameter", "type", "e"),
        ('{"type":7,"event_id":"e"}', "invalid_value", "type", "e"),
        ('{"type":["response.create"],"event_id":"e"}', "invalid_value", "type", "e"),
        ('{"type":"foo.bar","event_id":"e"}', "invalid_value", "type", "e"),
        ('{"type":"foo.bar","event_id":5}', "invalid_value", "type", None),
        ('{"type":"foo.bar","event_id":{"a":[]}}', "invalid_value", "type", None),
        ('{"type":"conversation.item.delete","event_id":"e"}', "missing_required_parameter", "item_id", "e"),
        ('{"type":"conversation.item.retrieve","item_id":5}', "invalid_value", "item_id", None),
        ('{"type":"response.create","event_id":5}', "invalid_value", "event_id", None),
        ('{"type":"session.update","event_id":"e"}', "missing_required_parameter", "session", "e"),
        (_PATCH % "null", "invalid_value", "session", "e"),
        (_PATCH % '{"instructions":5}', "invalid_value", "session.instructions", "e"),
        (_PATCH % '{"tools":"none"}', "invalid_value", "session.tools", "e"),
        (_PATCH % '{"tools":[5]}', "invalid_value", "session.tools[0]", "e"),
        (_PATCH % '{"tool_choice":5}', "invalid_value", "session.tool_choice", "e"),
        (_PATCH % '{"max_output_tokens":"lots"}', "invalid_value", "session.max_output_tokens", "e"),
        (_PATCH % '{"max_output_tokens":1.5}', "invalid_value", "session.max_output_tokens", "e"),
        (_PATCH % '{"type":5}', "invalid_value", "session.type", "e"),
        (_PATCH % '{"tracing":1e400}', "invalid_value", "session.tracing", "e"),
        ('{"type":"conversation.item.create","event_id":"e"}', "missing_required_parameter", "item", "e"),
        (_ITEM % "{}", "missing_required_parameter", "item.role", "e"),
        (_ITEM % '{"type":"message","role":"user"}', "missing_required_parameter", "item.content", "e"),
        (_ITEM % '{"type":"message","role":"bot","content":[]}', "invalid_value", "item.role", "e"),
        (_ITEM % '{"type":"message","role":"user","content":"hi"}', "invalid_value", "item.content", "e"),
        (_ITEM % '{"type":"function_call_output","output":"o"}', "missing_required_parameter", "item.call_id", "e"),
        (_ITEM % '{"type":"function_call_output","call_id":"c"}', "missing_required_parameter", "item.output", "e"),
        (
            _ITEM % '{"type":"function_call_output","call_id":null,"output":""}',
            "missing_required_parameter",
            "item.call_id",
            "e",
        ),
        (_ITEM % '{"type":"function_call","arguments":"{}"}', "missing_required_parameter", "item.name", "e"),
        (_ITEM % '{"type":"function_call","name":"f"}', "missing_required_parameter", "item.arguments", "e"),
        (_ITEM % '{"type":"function_call","name":"f","arguments":{}}', "invalid_value", "item.arguments", "e"),
        (_ITEM % '{"type":"mcp_call"}', "invalid_value", "item.type", "e"),
        (_PARTS % '{"type":"input_text"}', "missing_required_parameter", "item.content[0].text", "e"),
        (_PARTS % '{"text":"hi"}', "missing_required_parameter", "item.content[0].type", "e"),
        (_PARTS % '{"type":"input_audio","audio":"AA"}', "invalid_value", "item.content[0].type", "e"),
        (_PARTS % '{"type":"input_image","image_url":"x"}', "invalid_value", "item.content[0].type", "e"),
        (_PARTS % '{"type":"input_text","text":null}', "invalid_value", "item.content[0].text", "e"),
        (_PARAMS % "5", "invalid_value", "response", "e"),
        (_PARAMS % '{"input":[{"type":"item_reference"}]}', "missing_required_parameter", "response.input[0].id", "e"),
        (_PARAMS % '{"input":[5]}', "invalid_value", "response.input[0]", "e"),
        (_PARAMS % '{"tools":[5]}', "invalid_value", "response.tools[0]", "e"),
        (_PARAMS % '{"tool_choice":5}', "invalid_value", "response.tool_choice", "e"),
        (_PARAMS % '{"parallel_tool_calls":"no"}', "invalid_value", "response.parallel_tool_calls", "e"),
        (_PARAMS % '{"metadata":{"a":1}}', "invalid_value", "response.metadata[...]", "e"),
        (_PARAMS % '{"max_output_tokens":1e999}', "invalid_value", "response.max_output_tokens", "e"),
        (_PARAMS % ('{"max_output_tokens":' + "9" * 5_000 + "}"), "invalid_value", "response.max_output_tokens", "e"),
        ('{"type":"response.cancel","response_id":5,"event_id":"e"}', "invalid_value", "response_id", "e"),
        (_PATCH % '{"foo":1}', "unknown_parameter", "session.foo", "e"),
        (_PATCH % '{"type":"realtime","turn_detection":null}', "unknown_parameter", "session.turn_detection", "e"),
        (_PATCH % '{"a` - at `$.b":1}', "unknown_parameter", "session.a` - at `$.b", "e"),
        (_PATCH % '{"output_modalities":["video"]}', "invalid_value", "session.output_modalities[0]", "e"),
        (_PATCH % '{"parallel_tool_calls":"yes"}', "invalid_value", "session.parallel_tool_calls", "e"),
        (_PARAMS % '{"modalities":["text"]}', "unknown_parameter", "response.modalities", "e"),
        ('{"type":"response.create","event_id":"e","instructions":"i"}', "unknown_parameter", "instructions", "e"),
        ('{"type":"session.update","event_id":"e","session":{},"voice":"x"}', "unknown_parameter", "voice", "e"),
        ('{"type":"conversation.item.truncate","item_id":"i","event_id":"e"}', *_MISSING_INDEX),
    ],
    ids=lambda value: value[:60].encode("ascii", "replace").decode() if isinstance(value, str) else None,
)
def test_an_invalid_message_is_rejected_with_code_param_and_event_id(
    message: str | bytes, code: str, param: str | None, event_id: str | None
) -> None:
    detail = refused(message)
    assert (detail.code, detail.param, detail.event_id) == (code, param, event_id)
    assert detail.type == "invalid_request_error"
    assert detail.message


@pytest.mark.parametrize("name", sorted(AUDIO_EVENTS - {"input_audio_buffer.commit"}))
def test_audio_events_are_refused_as_unsupported(name: str) -> None:
    detail = refused(json.dumps({"type": name, "event_id": "e", "audio": "AAAA", "item_id": "x"}))
    assert (detail.code, detail.param, detail.event_id) == ("unsupported_event", "type", "e")
    assert name in detail.message


def test_a_commit_is_refused_as_that_of_an_empty_buffer() -> None:
    detail = refused('{"type":"input_audio_buffer.commit","event_id":"e"}')
    assert (detail.code, detail.param, detail.event_id) == ("input_audio_buffer_commit_empty", None, "e")
    assert "no audio" in detail.message


def test_the_rejection_of_an_unknown_type_lists_the_supported_ones() -> None:
    message = refused('{"type":"foo.bar"}').message
    assert "'foo.bar'" in message
    assert all(name in message for name in SUPPORTED_EVENTS)


def test_the_supported_events_are_those_that_are_read() -> None:
    assert {event["type"] for event in VALID} == set(SUPPORTED_EVENTS)


def test_half_a_character_is_taken_as_the_replacement_character() -> None:
    event = parse_event(r'{"type":"conversation.item.delete","event_id":"e","item_id":"half \ud83d"}', ANY_SIZE)
    assert isinstance(event, ItemDelete)
    assert (event.event_id, event.item_id) == ("e", "half \ufffd")
    assert refused(r'{"type":"\ud83d","event_id":"e"}').event_id == "e"
    too_deep = r'{"type":"\ud83d","event_id":"e\ud83d","x":' + "[" * 99 + "]" * 99 + "}"
    assert refused(too_deep).event_id == "e\ufffd"


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"' + "z" * 100_000 + '"}',
        _ITEM % ('{"role":"%s","content":[]}' % ("z" * 100_000)),
        _ITEM % ('{"type":"%s","role":"user","content":[]}' % ("z" * 100_000)),
        _PARTS % ('{"type":"%s","text":""}' % ("z" * 100_000)),
        _PATCH % ('{"max_output_tokens":"%s"}' % ("z" * 100_000)),
        _PATCH % ('{"%s":1}' % ("z" * 100_000)),
        '{{"type":[{}]}}'.format(",".join(["1"] * 50_000)),
    ],
    ids=["type", "role", "item type", "part type", "tokens", "name", "type that is a list"],
)
def test_a_rejection_is_short_however_long_the_value_is(message: str) -> None:
    assert len(refused(message).message) <= MESSAGE_CHARS_MAX


def test_a_value_cannot_pass_for_a_missing_field() -> None:
    detail = refused(_ITEM % '{"role":"missing required field `id`","content":[]}')
    assert (detail.code, detail.param) == ("invalid_value", "item.role")


@pytest.mark.parametrize("depth", [10, 100, *range(850, 1_001, 3), 5_000])
def test_nesting_of_any_depth_is_read_or_refused(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    for message in (f'{{"type":{nested}}}', f'{{"type":"x","event_id":{nested}}}', _PATCH % f'{{"tracing":{nested}}}'):
        outcome(message)


# --- whatever comes -------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def outcome(message: str | bytes) -> AnyClientEvent | ErrorDetail:
    """The event, or the refusal; any other exception is a failure of the test that asks."""
    try:
        return parse_event(message, ANY_SIZE)
    except EventRejected as rejection:
        detail = rejection.detail
        assert detail.type == "invalid_request_error"
        assert detail.code in {
            "invalid_json",
            "invalid_value",
            "missing_required_parameter",
            "unknown_parameter",
            "unsupported_event",
            "input_audio_buffer_commit_empty",
        }
        assert detail.message
        assert isinstance(detail.param, str | None)
        STRICT.validate_json(server_events.encode(Error(error=detail), "event_1"))
        return detail


@given(st.text() | st.binary())
def test_any_message_is_an_event_or_a_refusal(message: str | bytes) -> None:
    outcome(message)


@given(json_values)
def test_any_json_value_is_an_event_or_a_refusal(value: object) -> None:
    outcome(json.dumps(value))


@given(st.sampled_from((*SUPPORTED_EVENTS, *sorted(AUDIO_EVENTS))), st.dictionaries(st.text(), json_values))
def test_any_fields_under_a_known_type_are_an_event_or_a_refusal(name: str, fields: dict[str, object]) -> None:
    outcome(json.dumps({**fields, "type": name}))


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value inside another."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


@given(st.data(), st.sampled_from(VALID), st.booleans(), json_values)
def test_any_change_to_a_valid_event_parses_or_is_rejected_with_its_event_id(
    data: st.DataObject, event: dict[str, Any], removed: bool, value: object
) -> None:
    event = {"event_id": "mine", **json.loads(json.dumps(event))}
    wanted = event["event_id"]
    *path, last = data.draw(st.sampled_from(list(places(event))))
    target: Any = event
    for key in path:
        target = target[key]
    if removed:
        del target[last]
    else:
        target[last] = value
    result = outcome(json.dumps(event))
    if [*path, last] != ["event_id"] and not (isinstance(result, ErrorDetail) and result.code == "invalid_json"):
        assert result.event_id == wanted


# --- what is sent ---------------------------------------------------------------------------------------------------

NULL_ALLOWED = {
    "previous_item_id",
    "error.code",
    "error.param",
    "error.event_id",
    "response.status_details",
    "response.usage",
    "response.metadata",
    "response.conversation_id",
}


def session(**changes: Any) -> server_events.RealtimeSession:
    fields = {"id": "sess_1", "model": "lastcall", "instructions": "Be brief.", "conversation_id": "conv_1"}
    return server_events.RealtimeSession(**{**fields, **changes})


def item(status: ItemStatus = "completed", role: str = "assistant", text: str | None = "Hello.") -> MessageItem:
    part = OutputText if role == "assistant" else InputText
    content: list[ContentPart] = [] if text is None else [part(text)]
    return MessageItem(id="item_1", status=status, role=role, content=content)  # type: ignore[arg-type]


def response(**changes: Any) -> server_events.Response:
    return server_events.Response(**{"id": "resp_1", "conversation_id": "conv_1", **changes})


TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
USAGE = server_events.UsageReport(
    total_tokens=30,
    input_tokens=10,
    output_tokens=20,
    input_token_details=server_events.InputTokenDetails(
        text_tokens=10, cached_tokens=4, cached_tokens_details=server_events.CachedTokensDetails(text_tokens=4)
    ),
    output_token_details=server_events.OutputTokenDetails(text_tokens=20),
)
CALL = FunctionCallItem(id="item_2", status="completed", call_id="call_1", name="f", arguments="{}")
OUTPUT = FunctionCallOutputItem(id="item_3", status="completed", call_id="call_1", output="20 C")
FAILED = server_events.StatusDetails(
    type="failed", error=server_events.Failure(code="agent_timeout", message="Too slow.")
)
PART: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1"}

EXAMPLES: list[server_events.ServerEvent] = [
    error_event("invalid_value", "No.", param="type", event_id="e9"),
    error_event("store_unavailable", "Later."),
    server_events.SessionCreated(session=session()),
    server_events.SessionUpdated(
        session=session(
            tools=[TOOL], tool_choice={"type": "function", "name": "f"}, max_output_tokens=5, tracing="auto"
        )
    ),
    server_events.ConversationCreated(conversation=server_events.ConversationRef(id="conv_1")),
    server_events.ItemAdded(previous_item_id=None, item=item(role="user")),
    server_events.ItemAdded(previous_item_id="item_0", item=item("in_progress", text=None)),
    server_events.ItemDone(previous_item_id="item_0", item=item(role="system")),
    server_events.ItemDone(previous_item_id="item_0", item=item("incomplete")),
    server_events.RateLimitsUpdated(
        rate_limits=[server_events.RateLimit(name="requests", limit=60, remaining=59, reset_seconds=0.5)]
    ),
    server_events.ResponseCreated(response=response(metadata={"turn": "1"})),
    server_events.ResponseDone(response=response(status="completed", output=[item()], usage=USAGE)),
    server_events.ResponseDone(
        response=response(
            status="cancelled", status_details=server_events.StatusDetails(type="cancelled", reason="client_cancelled")
        )
    ),
    server_events.ResponseDone(response=response(status="failed", status_details=FAILED, output=[item("incomplete")])),
    server_events.ResponseDone(
        response=response(
            status="incomplete",
            status_details=server_events.StatusDetails(type="incomplete", reason="max_output_tokens"),
        )
    ),
    server_events.OutputItemAdded(response_id="resp_1", item=item("in_progress", text=None)),
    server_events.OutputItemDone(response_id="resp_1", item=item()),
    server_events.ContentPartAdded(**PART, part=server_events.TextPart(text="")),
    server_events.ContentPartDone(**PART, part=server_events.TextPart(text="Hello.")),
    server_events.TextDelta(**PART, delta="Hel\0lo \U0001f600"),
    server_events.TextDone(**PART, text="Hello."),
    server_events.ItemRetrieved(item=OUTPUT),
    server_events.ItemDeleted(item_id="item_1"),
    server_events.ItemAdded(previous_item_id="item_1", item=CALL),
    server_events.ItemDone(previous_item_id="item_2", item=OUTPUT),
    server_events.OutputItemAdded(response_id="resp_1", output_index=1, item=CALL),
    server_events.OutputItemDone(response_id="resp_1", output_index=1, item=CALL),
    server_events.ArgumentsDelta(**PART, output_index=1, call_id="call_1", delta="{"),
    server_events.ArgumentsDone(**PART, output_index=1, call_id="call_1", name="f", arguments="{}"),
    server_events.ResponseDone(response=response(status="completed", conversation_id=None, output=[item(), CALL])),
    server_events.AudioBufferCleared(),
]


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths at which a JSON value is null."""
    if value is None:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from nulls(child, f"{path}.{key}".lstrip("."))


def test_every_server_event_has_an_example_here() -> None:
    assert {type(event) for event in EXAMPLES} == set(server_events.ServerEvent.__subclasses__())


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_server_event_passes_the_strict_clients_validation(event: server_events.ServerEvent) -> None:
    encoded = server_events.encode(event, "event_7")
    validated = STRICT.validate_json(encoded)
    assert validated.type == event.__struct_config__.tag
    assert validated.event_id == "event_7"


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_nothing_is_null_but_what_the_reference_allows(event: server_events.ServerEvent) -> None:
    found = {
        path for path in nulls(json.loads(server_events.encode(event, "event_7"))) if not path.startswith("session.")
    }
    assert found <= NULL_ALLOWED


def test_errors_and_sessions_have_their_optional_fields_even_if_null() -> None:
    error = json.loads(server_events.encode(EXAMPLES[1], "event_1"))["error"]
    assert error["event_id"] is None
    assert error["param"] is None
    sent = json.loads(server_events.encode(server_events.SessionCreated(session=session()), "event_1"))["session"]
    assert sent["output_modalities"] == ["text"]
    assert sent["audio"] == {"input": {"turn_detection": None}}


@given(json_values, st.integers() | st.just("inf"))
def test_whatever_a_session_update_may_set_can_be_sent_back(value: object, tokens: int | str) -> None:
    event = outcome(
        json.dumps(
            {
                "type": "session.update",
                "session": {
                    "tracing": value,
                    "truncation": value,
                    "tools": [{"a": value}],
                    "max_output_tokens": tokens,
                },
            }
        )
    )
    if isinstance(event, SessionUpdate):
        patch = event.session
        kept = session(tracing=patch.tracing, truncation=patch.truncation, tools=patch.tools)
        sent = json.loads(server_events.encode(server_events.SessionUpdated(session=kept), "event_1"))
        assert sent["session"]["tracing"] == patch.tracing


# --- metadata -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {f"k{number}": "v" for number in range(16)}, {"k" * 64: "v" * 512}],
    ids=["none", "empty", "16 pairs", "longest"],
)
def test_metadata_within_the_limits_is_no_problem(metadata: dict[str, str] | None) -> None:
    assert metadata_problem(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "limit"),
    [({f"k{number}": "v" for number in range(17)}, "16"), ({"k" * 65: "v"}, "64"), ({"k": "v" * 513}, "512")],
    ids=["pairs", "key", "value"],
)
def test_metadata_beyond_a_limit_is_refused_with_that_limit(metadata: dict[str, str], limit: str) -> None:
    assert limit in (metadata_problem(metadata) or "")
