"""The two API documents: valid, complete, and matching what the server sends and accepts."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from click.testing import CliRunner
from lastcall.cli.entry import lastcall
from lastcall.config import Settings
from lastcall.protocol.client_events import SUPPORTED_EVENTS, EventRejected
from lastcall.protocol.errors import ErrorAnswer
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event
from lastcall.store.postgres import PostgresStore
from lastcall.web import answers
from lastcall.web.app import ROUTES, api_document
from lastcall.web.openapi import OPERATIONS, documented
from lastcall.web.schemas import ANSWERS, SERVER_EVENTS, event_type
from openapi_spec_validator import validate

from tests.support.clients import Event, connect
from tests.support.scripted_agents import Slow
from tests.support.servers import TestServer, open_server

BOUNDS = JsonBounds(Settings().json_values_max, Settings().json_depth_max)
OPENAPI: dict[str, Any] = json.loads(api_document("openapi"))
ASYNCAPI: dict[str, Any] = json.loads(api_document("asyncapi"))
# The schema of AsyncAPI itself, from the npm package @asyncapi/specs.
SPECIFICATION = Path(__file__).parents[2] / "system/node/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"

# The first frames of official clients, as they sent them.
AGENTS_PYTHON = """
{"session":{"type":"realtime","audio":{"input":{"format":{"rate":24000,"type":"audio/pcm"},"turn_detection":null}},\
"instructions":"be nice","model":"our-agent","output_modalities":["text"],"tools":[{"description":"weather",\
"name":"get_weather","parameters":{"properties":{"city":{"type":"string"}}},"type":"function"}]},"type":"session.update"}
{"item":{"content":[{"text":"hello","type":"input_text"}],"role":"user","type":"message"},"type":"conversation.item.create"}
{"session":{"type":"realtime","model":"our-agent","tracing":"auto"},"type":"session.update"}
{"type":"response.create","event_id":"agents_py_response_create_1"}
"""
AGENTS_JAVASCRIPT = """
{"type":"session.update","session":{"type":"realtime","instructions":"be nice","model":"our-agent",\
"output_modalities":["text"],"audio":{"input":{"noise_reduction":null,"transcription":null,"turn_detection":null}}}}
{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}}
{"type":"response.create","event_id":"agents_js_response_create_1"}
{"type":"session.update","session":{"type":"realtime","tracing":"auto"}}
{"type":"response.cancel"}
"""


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(document, dict):
        yield document
    for each in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from nodes(each)


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with objects that have no other fields than those it names."""
    document = copy.deepcopy(document)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def check_event(document: dict[str, Any], event: Event) -> None:
    check(document, resolve(document, f"#/components/messages/{event['type']}")["payload"], event)


# --- the documents themselves


def test_the_openapi_document_is_valid() -> None:
    validate(OPENAPI)


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="npm's @asyncapi/specs is not installed in tests/system/node")
def test_the_asyncapi_document_is_valid() -> None:
    jsonschema.Draft7Validator(json.loads(SPECIFICATION.read_text())).validate(ASYNCAPI)


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere_and_every_schema_is_a_schema(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        resolve(document, reference)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    used = {reference.rpartition("/")[2] for reference in references}
    assert set(document["components"]["schemas"]) - used <= {each.__name__ for each in ANSWERS}


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    routes = {(method, path) for method, path, _ in documented(ROUTES)}
    assert routes == set(OPERATIONS)
    assert routes == {(method.upper(), path) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert all(operation["summary"] for path in OPENAPI["paths"].values() for operation in path.values())


def test_every_event_is_a_message_of_one_operation() -> None:
    def names(operation: str) -> list[str]:
        return [each["$ref"].rpartition("/")[2] for each in ASYNCAPI["operations"][operation]["messages"]]

    assert tuple(names("receiveClientEvent")) == SUPPORTED_EVENTS
    assert names("sendServerEvent") == [event_type(event) for event in SERVER_EVENTS]
    known = {*names("receiveClientEvent"), *names("sendServerEvent")}
    assert set(ASYNCAPI["channels"]["realtime"]["messages"]) == set(ASYNCAPI["components"]["messages"]) == known


def test_fields_are_required_exactly_where_they_are_always_sent() -> None:
    schemas = ASYNCAPI["components"]["schemas"]
    assert set(schemas["SessionCreated"]["required"]) == {"type", "event_id", "session"}
    assert "usage" in schemas["Response"]["required"]
    assert schemas["StatusDetails"]["required"] == ["type"]
    assert schemas["ResponseCreate"]["required"] == ["type"]


# --- how one gets them


async def test_the_server_serves_both(server: TestServer) -> None:
    async with httpx2.AsyncClient() as http:
        for name, document in (("openapi", OPENAPI), ("asyncapi", ASYNCAPI)):
            answer = await http.get(f"{server.url}/{name}.json")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.json() == document


@pytest.mark.parametrize(("name", "document"), [("openapi", OPENAPI), ("asyncapi", ASYNCAPI)])
def test_a_command_prints_them(name: str, document: dict[str, Any]) -> None:
    assert json.loads(CliRunner().invoke(lastcall, ["api-docs", name]).output) == document


# --- what they say is so


@pytest.fixture
async def frames(postgres_store: PostgresStore) -> AsyncIterator[list[Event]]:
    """The frames of a session with a response, a tool call, a cancelled response, an error and a replay."""
    async with open_server(postgres_store) as server, connect(server.url, user="ada") as client:
        session = {"instructions": "Be terse.", "tracing": "auto", "tools": [{"type": "function", "name": "look_up"}]}
        await client.send({"type": "session.update", "session": session})
        await client.ask("Hello")
        (call,) = (await client.ask('call look_up {"city": "Oslo"}'))["response"]["output"]
        output = {"type": "function_call_output", "id": "rain", "call_id": call["call_id"], "output": "rain"}
        await client.send({"type": "conversation.item.create", "item": output})
        await client.send({"type": "conversation.item.retrieve", "item_id": "rain"})
        await client.until("conversation.item.retrieved")
        await client.say("Forget this", "forgotten")
        await client.send({"type": "conversation.item.delete", "item_id": "forgotten"})
        await client.until("conversation.item.deleted")
        await client.send({"type": "input_audio_buffer.clear"})
        await client.send({"type": "response.cancel", "event_id": "none"})
        await client.until("error")
        seen, conversation = client.events, client.conversation_id
    async with open_server(postgres_store, Slow()) as server:
        async with connect(server.url, user="ada", conversation=conversation) as client:
            await client.say("Hello again")
            await client.send({"type": "response.create", "response": {"metadata": {"turn": "2"}}})
            await client.until("response.output_text.delta")
            await client.send({"type": "response.cancel"})
            await client.until("response.done")
        yield seen + client.events


async def test_every_frame_of_a_session_matches_the_document_exactly(frames: list[Event]) -> None:
    document = closed(ASYNCAPI)
    for frame in frames:
        check_event(document, frame)
    assert {frame["type"] for frame in frames} == {event_type(event) for event in SERVER_EVENTS}


async def test_a_frame_that_breaks_the_document_is_noticed(frames: list[Event]) -> None:
    document = closed(ASYNCAPI)
    created = next(frame for frame in frames if frame["type"] == "response.created")
    for broken in (
        {**created, "event_id": None},
        {**created, "more": 1},
        {name: value for name, value in created.items() if name != "event_id"},
        {**created, "response": {**created["response"], "status": "done"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check_event(document, broken)


@pytest.mark.parametrize("line", [*AGENTS_PYTHON.split("\n")[1:-1], *AGENTS_JAVASCRIPT.split("\n")[1:-1]])
def test_first_frames_of_official_clients_match_the_document(line: str) -> None:
    check_event(ASYNCAPI, json.loads(line))
    parse_event(line, BOUNDS)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.create"},
        {"type": "conversation.item.create", "item": {"type": "message", "role": "nobody", "content": []}},
        {"type": "response.create", "response": {"max_output_tokens": 0}},
        {"type": "response.cancel", "event_id": 7},
    ],
)
def test_events_that_the_server_rejects_do_not_match_the_document(event: Event) -> None:
    with pytest.raises(EventRejected):
        parse_event(json.dumps(event), BOUNDS)
    with pytest.raises(jsonschema.ValidationError):
        check_event(ASYNCAPI, event)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/healthz", 200, answers.Health),
        ("/readyz", 200, answers.Readiness),
        ("/v1/memories", 200, answers.MemoryList),
        ("/v1/conversations", 200, answers.ConversationList),
        ("/v1/conversations/{conversation_id}/items", 200, answers.ItemList),
        ("/v1/conversations/none/items", 404, ErrorAnswer),
        ("/v1/conversations?limit=0", 400, ErrorAnswer),
    ],
)
async def test_http_responses_match_the_document(path: str, status: int, body: type[Any], server: TestServer) -> None:
    async with connect(server.url, user="ada") as client, httpx2.AsyncClient() as http:
        await client.send({"type": "session.update", "session": {"tools": [{"type": "function", "name": "look_up"}]}})
        (call,) = (await client.ask("call look_up"))["response"]["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        await client.send({"type": "conversation.item.create", "item": output})
        await client.ask("Hello")
        url = server.url + path.replace("{conversation_id}", client.conversation_id)
        answer = await http.get(url, headers={"OpenAI-Safety-Identifier": "ada"})
    assert answer.status_code == status
    check(closed(OPENAPI), {"$ref": f"#/components/schemas/{body.__name__}"}, answer.json())
