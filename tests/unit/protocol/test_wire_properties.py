"""Properties of the wire protocol: any JSON parses or is rejected, and every event that is sent can be read."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st
from lastcall.protocol import server_events
from lastcall.protocol.client_events import AUDIO_EVENTS, SUPPORTED_EVENTS, AnyClientEvent, EventRejected
from lastcall.protocol.errors import Error, ErrorDetail
from lastcall.protocol.items import FunctionCallItem, FunctionCallOutputItem, InputText, MessageItem, OutputText
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from ...support.examples import examples

STRICT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)  # what strict clients check every event with
ANY_SIZE = JsonBounds(10**9, 10**9)  # the bounds have tests of their own
MESSAGE_CHARS_MAX = 1_000
DEPTH_MAX = 400  # of nesting that is surely read; how much more is, depends on the caller's own depth

# --- JSON as it may be written, not only as json.dumps writes it ------------------------------------------------------

characters = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(["\0", "\x1f", "\x7f", "\u2028", "\ufeff", "\uffff", "😀", "`", "$", "'", '"', "\\", "/"]),
)
# As they stand between quotes: a lone surrogate can only come escaped, and makes the whole message unreadable.
letters = st.one_of(
    characters.map(lambda character: json.dumps(character, ensure_ascii=False)[1:-1]),
    characters.map(lambda character: json.dumps(character)[1:-1]),
    st.sampled_from([r"\/", r"\ud83d\ude00"]),
)
strings = st.lists(letters, max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
digits = st.integers(1, 5_000).map(lambda size: "9" * size)
numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1e308", "1e309", "-1E+400", "1e-400", "0.1", "18446744073709551616"]),
    digits,
    digits.map(lambda text: f"-{text}.{text}e{text[:3]}"),
)
spaces = st.sampled_from(["", "", "", " ", "\n\t\r "])
KEYS = ["type", "event_id", "session", "item", "response", "role", "content", "text", "id", "tools", "metadata"]
keys = st.sampled_from(KEYS).map(json.dumps) | strings


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return "[" + ",".join(draw(st.lists(inner, max_size=4))) + draw(spaces) + "]"


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """Keys may come twice."""
    members = draw(st.lists(st.tuples(keys, spaces, inner), max_size=5))
    return "{" + ",".join(f"{key}{space}:{space}{value}" for key, space, value in members) + "}"


def nested(depth: int, opening: str) -> str:
    closing = "]" if opening == "[" else "}"
    return opening * depth + ("1" if opening != "[" else "") + closing * depth


deep = st.builds(nested, st.integers(1, 3_000), st.sampled_from(["[", '{"a":']))
texts = st.recursive(
    st.sampled_from(["null", "true", "false"]) | numbers | strings,
    lambda inner: arrays(inner) | objects(inner) | deep,
    max_leaves=10,
)
types = st.one_of(st.sampled_from((*SUPPORTED_EVENTS, *sorted(AUDIO_EVENTS), "x.y")).map(json.dumps), texts)


@st.composite
def messages(draw: st.DrawFn) -> str:
    """Something like an event: a type and an event_id among other members, in any order, perhaps twice."""
    some = (
        st.tuples(st.just('"type"'), types),
        st.tuples(st.just('"event_id"'), strings | texts),
        st.tuples(keys, texts),
    )
    members = [draw(some[0]), draw(some[1]), *draw(st.lists(st.one_of(*some), max_size=4))]
    return "{" + ",".join(f"{key}:{value}" for key, value in draw(st.permutations(members))) + "}"


def outcome(message: str | bytes) -> AnyClientEvent | ErrorDetail:
    """The event, or the refusal, which strict clients can read."""
    try:
        event = parse_event(message, ANY_SIZE)
    except EventRejected as rejection:
        detail = rejection.detail
    else:
        assert type(event).__struct_config__.tag in SUPPORTED_EVENTS
        return event
    assert 0 < len(detail.message) <= MESSAGE_CHARS_MAX
    sent = STRICT.validate_json(server_events.encode(Error(error=detail), "event_1"))
    assert (sent.error.event_id, sent.error.message) == (detail.event_id, detail.message)
    return detail


class _Number(str):
    """A number as it is written, which is no string."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def as_another_reader_sees(text: str) -> Any:
    """The JSON value. Raises ValueError where it is none."""
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)


def is_shallow(text: str) -> bool:
    return text.count("[") + text.count("{") <= DEPTH_MAX


# --- what is read ---------------------------------------------------------------------------------------------------


@examples(200)
@given(messages())
def test_whatever_is_wrong_with_an_event_its_refusal_carries_its_event_id(message: str) -> None:
    result = outcome(message)
    note(type(result).__name__ if not isinstance(result, ErrorDetail) else result.code)
    if not is_shallow(message):
        return
    event_id = as_another_reader_sees(message).get("event_id")
    assert result.event_id == (event_id if type(event_id) is str else None)
    assert not isinstance(result, ErrorDetail) or result.code != "invalid_json"


@pytest.mark.parametrize("value", ["1e999", "-" + "9" * 400 + ".0e99", '[{"a":1e400}]'])
def test_a_number_too_large_to_parse_hides_neither_the_event_id_nor_the_error(value: str) -> None:
    detail = outcome(f'{{"event_id":"mine","type":{value}}}')
    assert isinstance(detail, ErrorDetail)
    assert (detail.code, detail.param, detail.event_id) == ("invalid_value", "type", "mine")
    other = outcome(f'{{"event_id":{value},"type":"foo.bar"}}')
    assert isinstance(other, ErrorDetail)
    assert (other.param, other.event_id) == ("type", None)


@examples(200)
@given(texts, st.sampled_from(["", "", ",", "]", "{}", "\ufeff", "\0"]))
def test_json_is_distinguished_from_other_text(text: str, rest: str) -> None:
    result = outcome(text + rest)
    if not is_shallow(text):
        return
    try:
        value = as_another_reader_sees(text + rest)
    except ValueError:
        assert isinstance(result, ErrorDetail)
        assert result.event_id is None
        # what does not even begin like an event is not read to its end
        assert result.code == "invalid_json" or (result.code == "invalid_value" and not text.startswith("{"))
    else:
        assert isinstance(value, dict) or (isinstance(result, ErrorDetail) and result.code == "invalid_value")


@examples(100)
@given(messages(), st.data())
def test_a_message_that_is_cut_or_damaged_is_still_an_event_or_a_refusal(message: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(message)))
    stop = data.draw(st.integers(start, len(message)))
    outcome(message[:start] + data.draw(st.text(max_size=3) | st.just("\ud800")) + message[stop:])
    outcome((message[:start] + message[stop:]).encode())


unicode = st.lists(characters, max_size=20).map("".join)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unicode, inner, max_size=3),
    max_leaves=6,
)
tokens = st.integers(1, 1_000_000) | st.just("inf")
patches = st.fixed_dictionaries(
    {},
    optional={
        "type": unicode,
        "instructions": st.none() | unicode,
        "tools": st.none() | st.lists(st.dictionaries(unicode, json_values, max_size=3), max_size=3),
        "tool_choice": st.none() | unicode | st.dictionaries(unicode, json_values, max_size=2),
        "max_output_tokens": st.none() | tokens,
        "tracing": json_values,
        "prompt": json_values,
        "truncation": json_values,
    },
)
parts = st.fixed_dictionaries({"type": st.sampled_from(["input_text", "output_text"]), "text": unicode})
loose = {"id": st.none() | unicode, "status": json_values}  # what an item may have beside what it needs
items = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.lists(parts),
        },
        optional=loose,
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "name": unicode, "arguments": unicode},
        optional={**loose, "call_id": st.none() | unicode},
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": unicode, "output": unicode}, optional=loose
    ),
)
references = st.fixed_dictionaries({"type": st.just("item_reference"), "id": unicode})
objects_of_any = st.dictionaries(unicode, json_values, max_size=3)
params = st.fixed_dictionaries(
    {},
    optional={
        "instructions": st.none() | unicode,
        "conversation": st.none() | unicode,
        "input": st.none() | st.lists(items | references, max_size=3),
        "metadata": st.none() | st.dictionaries(unicode, unicode, max_size=3),
        "max_output_tokens": st.none() | tokens,
        "tools": st.none() | st.lists(objects_of_any, max_size=3),
        "tool_choice": st.none() | unicode | objects_of_any,
        "parallel_tool_calls": st.none() | st.booleans(),
        "prompt": json_values,
    },
)


def kind(name: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fixed = {"type": st.just(name), **required}
    return st.fixed_dictionaries(fixed, optional={"event_id": st.none() | unicode, **optional})


valid_events = st.one_of(
    kind("session.update", {"session": patches}, {}),
    kind("conversation.item.create", {"item": items}, {"previous_item_id": st.none() | unicode}),
    kind("conversation.item.retrieve", {"item_id": unicode}, {}),
    kind("conversation.item.delete", {"item_id": unicode}, {}),
    kind("response.create", {}, {"response": st.none() | params}),
    kind("response.cancel", {}, {"response_id": st.none() | unicode}),
)


def is_kept(sent: Any, read: Any) -> bool:
    """Whether everything sent was read; defaults may be added."""
    if isinstance(sent, dict) and isinstance(read, dict):
        return all(key in read and is_kept(value, read[key]) for key, value in sent.items())
    if isinstance(sent, list) and isinstance(read, list):
        return len(sent) == len(read) and all(map(is_kept, sent, read))
    return bool(sent == read)


@examples(200)
@given(valid_events, st.booleans())
def test_a_valid_event_parses_completely_and_round_trips(event: dict[str, Any], ascii_only: bool) -> None:
    parsed = parse_event(json.dumps(event, ensure_ascii=ascii_only), ANY_SIZE)
    again = msgspec.json.encode(parsed).decode()
    assert is_kept(event, json.loads(again))
    assert parse_event(again, ANY_SIZE) == parsed


# --- what is sent ---------------------------------------------------------------------------------------------------

message_items = st.builds(
    MessageItem,
    id=unicode,
    status=st.sampled_from(["in_progress", "completed", "incomplete"]),
    role=st.just("assistant"),
    content=st.lists(st.builds(OutputText, unicode), max_size=3),
) | st.builds(
    MessageItem,
    id=unicode,
    status=st.just("completed"),
    role=st.sampled_from(["system", "user"]),
    content=st.lists(st.builds(InputText, unicode), max_size=3),
)
counts = st.integers(0, 2**40)
usages = st.builds(
    server_events.UsageReport,
    total_tokens=counts,
    input_tokens=counts,
    output_tokens=counts,
    input_token_details=st.builds(
        server_events.InputTokenDetails,
        text_tokens=counts,
        cached_tokens=counts,
        cached_tokens_details=st.builds(server_events.CachedTokensDetails, text_tokens=counts),
    ),
    output_token_details=st.builds(server_events.OutputTokenDetails, text_tokens=counts),
)
statuses = st.sampled_from(["in_progress", "completed", "incomplete"])
sent_items = st.one_of(
    message_items,
    st.builds(FunctionCallItem, id=unicode, status=statuses, call_id=unicode, name=unicode, arguments=unicode),
    st.builds(FunctionCallOutputItem, id=unicode, status=statuses, call_id=unicode, output=unicode),
)
details = st.none() | st.one_of(
    st.just(server_events.StatusDetails(type="cancelled", reason="client_cancelled")),
    st.builds(
        server_events.StatusDetails,
        type=st.just("incomplete"),
        reason=st.sampled_from(["max_output_tokens", "content_filter"]),
    ),
    st.builds(
        server_events.StatusDetails,
        type=st.just("failed"),
        error=st.builds(server_events.Failure, code=unicode, message=unicode),
    ),
)
responses = st.builds(
    server_events.Response,
    id=unicode,
    conversation_id=st.none() | unicode,
    status=st.sampled_from(["in_progress", "completed", "cancelled", "failed", "incomplete"]),
    status_details=details,
    output=st.lists(sent_items, max_size=2),
    usage=st.none() | usages,
    max_output_tokens=tokens,
    metadata=st.none() | st.dictionaries(unicode, unicode, max_size=3),
)
tools = st.fixed_dictionaries(
    {"type": st.just("function"), "name": unicode},
    optional={"description": unicode, "parameters": st.dictionaries(unicode, json_values, max_size=2)},
)
sessions = st.builds(
    server_events.RealtimeSession,
    id=unicode,
    model=unicode,
    instructions=unicode,
    tools=st.lists(tools, max_size=2),
    tool_choice=st.sampled_from(["auto", "none", "required"]),
    max_output_tokens=tokens,
    conversation_id=unicode,
)
error_details = st.builds(
    ErrorDetail,
    type=st.sampled_from(["invalid_request_error", "server_error"]),
    code=unicode,
    message=unicode,
    param=st.none() | unicode,
    event_id=st.none() | unicode,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "error": error_details,
    "session": sessions,
    "conversation": st.builds(server_events.ConversationRef, id=unicode),
    "previous_item_id": st.none() | unicode,
    "item": sent_items,
    "response": responses,
    "response_id": unicode,
    "item_id": unicode,
    "call_id": unicode,
    "name": unicode,
    "arguments": unicode,
    "part": st.builds(server_events.TextPart, text=unicode),
    "delta": unicode,
    "text": unicode,
    "output_index": st.integers(0, 5),
    "content_index": st.integers(0, 5),
    "rate_limits": st.lists(
        st.builds(
            server_events.RateLimit,
            name=st.just("requests"),
            limit=st.integers(0, 10**9),
            remaining=st.integers(0, 10**9),
            reset_seconds=st.floats(0, 1e9),
        ),
        max_size=3,
    ),
}
EVENTS = server_events.ServerEvent.__subclasses__()


def events_of(kind: type[server_events.ServerEvent]) -> st.SearchStrategy[server_events.ServerEvent]:
    return st.builds(kind, **{name: FIELDS[name] for name in kind.__struct_fields__ if name != "event_id"})


@examples(25)
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data(), event_id=unicode)
def test_every_server_event_can_be_read_by_the_official_types(
    kind: type[server_events.ServerEvent], data: st.DataObject, event_id: str
) -> None:
    event = data.draw(events_of(kind))
    encoded = server_events.encode(event, event_id)
    sent = json.loads(encoded)
    assert (sent["type"], sent["event_id"]) == (kind.__struct_config__.tag, event_id)
    assert msgspec.json.decode(encoded, type=kind) == event
    read = STRICT.validate_json(encoded)
    assert is_kept(sent, read.model_dump(mode="json", exclude_unset=True))
