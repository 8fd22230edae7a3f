"""Endpoints that are not OpenAI's own, over real connections: the words arrive, and the conversation lives on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given
from lastcall.agents.agent import AgentFailed, Message, ModelUnavailable, Piece, Transcript, Turn
from lastcall.agents.openai import OpenAIAgent
from lastcall.agents.openai.chat import chars_of
from lastcall.memory.extract import extract_memories

from tests.support.examples import examples
from tests.support.sloppy_endpoint import (
    ListScript,
    Response,
    Script,
    SloppyEndpoint,
    calls_of,
    chunk_of,
    event,
    list_scripts,
    scripts,
    sloppy_endpoint,
)

# The HTTP client leaves its own generators unfinished at the end of a stream; its connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
ANSWER_SECONDS = 10.0
FINE = Response(event(chunk_of({"content": "Fine."})) + event(chunk_of({}, finish="stop")) + b"data: [DONE]\n\n")


@asynccontextmanager
async def asking(respond: Callable[[dict[str, Any]], Response]) -> AsyncIterator[tuple[SloppyEndpoint, OpenAIAgent]]:
    async with sloppy_endpoint(respond) as endpoint:
        agent = OpenAIAgent(base_url=endpoint.url, api_key="sk-of-nobody", model="m", read_seconds=ANSWER_SECONDS)
        async with aclosing(agent):
            yield endpoint, agent


async def answer(agent: OpenAIAgent, *texts: str, **more: Any) -> list[Piece]:
    said = [Message("user", text, f"item_{n}") for n, text in enumerate(texts)]
    with trio.fail_after(ANSWER_SECONDS):
        async with aclosing(agent.reply(Turn("ada", "conv", "Be brief.", said, items=said, **more))) as pieces:
            return [piece async for piece in pieces]


def refused(status: int, error: object) -> Response:
    return Response(msgspec.json.encode(error), status, "application/json")


@given(script=scripts())
@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_words_and_the_calls_survive_any_sloppiness(script: Script) -> None:
    async with asking(lambda _: script.response) as (_, agent):
        pieces = await answer(agent, "Hi")
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == script.words
    parsed = [(name, msgspec.json.decode(arguments)) for name, arguments in calls_of(pieces)]
    assert parsed == [(name, msgspec.json.decode(arguments)) for name, arguments in script.calls]


WORDS = [chunk_of({"content": "Hel"}), chunk_of({"content": "lo"}), chunk_of({}, finish="stop")]
STREAM = b"".join(map(event, WORDS)) + b"data: [DONE]\n\n"
WHOLE = msgspec.json.encode({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]})
LINES = b"\n".join(map(msgspec.json.encode, WORDS))
BODIES = {
    "a stream that says it is JSON": Response(STREAM, kind="application/json"),
    "a document that says it is a stream": Response(WHOLE),
    "an indented document": Response(msgspec.json.format(WHOLE, indent=2), kind="text/plain"),
    "a document with a byte order mark": Response(b"\xef\xbb\xbf" + WHOLE, kind="application/json"),
    "a stream with a byte order mark": Response(b"\xef\xbb\xbf" + STREAM),
    "a list of chunks": Response(b"[" + b",".join(map(msgspec.json.encode, WORDS)) + b"]", kind="application/json"),
    "a chunk a line": Response(LINES, kind="application/x-ndjson"),
    "other line ends": Response(STREAM.replace(b"\n", b"\r\n")),
    "one newline after each event": Response(STREAM.replace(b"\n\n", b"\n")),
    "no newline at the end": Response(b"".join(map(event, WORDS[:2])) + b"data: [DONE]"),
    "another way to say done": Response(b"".join(map(event, WORDS[:2])) + b'data: "[done]"\n\n'),
    "NaN and raw control characters": Response(STREAM.replace(b'"index":0', b'"logprobs":NaN,"user":"\t"')),
    "an unreadable chunk": Response(b"data: {torn\n\n" + STREAM),
}


@pytest.mark.parametrize("body", BODIES)
async def test_the_words_are_read_from_any_body(body: str) -> None:
    async with asking(lambda _: BODIES[body]) as (_, agent):
        assert "".join(str(piece) for piece in await answer(agent, "Hi")) == "Hello"


NO_ANSWERS = {
    "an error as an object": Response(event({"object": "error", "message": "no", "code": 400}) + b"data: [DONE]\n\n"),
    "an error by its type": Response(event({"type": "error", "message": "no"}) + b"data: [DONE]\n\n"),
    "an event of its own": Response(b'event: error\ndata: {"message": "no"}\n\ndata: [DONE]\n\n'),
    "a word": Response(b"event: error\ndata: overloaded\n\ndata: [DONE]\n\n"),
    "a detail": Response(b'{"detail": "overloaded"}', kind="application/json"),
    "a code and a message": Response(b'{"code": 500, "message": "no"}', kind="application/json"),
    "a list": Response(b'[{"error": {"message": "no"}}]', kind="application/json"),
    "nothing": Response(b"", kind="application/json"),
    "null": Response(b"null", kind="application/json"),
    "an empty object": Response(b"{}", kind="application/json"),
    "no choice": Response(b'{"choices": []}', kind="application/json"),
}


@pytest.mark.parametrize("body", NO_ANSWERS)
async def test_what_is_no_answer_is_a_failure_also_with_status_200(body: str) -> None:
    async with asking(lambda _: NO_ANSWERS[body]) as (_, agent):
        with pytest.raises(AgentFailed):
            await answer(agent, "Hi")


async def test_a_limit_of_tokens_that_does_not_fit_costs_no_words_of_the_chat() -> None:
    def respond(request: dict[str, Any]) -> Response:
        said = (
            "This model's maximum context length is 2048 tokens. However, you requested 4100 (4096 in the completion)."
        )
        return refused(400, {"error": {"message": said}}) if request["max_tokens"] > 2_000 else FINE

    async with asking(respond) as (endpoint, agent):
        for texts in (["Hi"], ["word " * 200, "Hi"]):
            assert await answer(agent, *texts, max_output_tokens=4_096) == ["Fine."]
            assert [message["content"] for message in endpoint.asked[-1]["messages"][1:]] == texts


CHARS_THAT_FIT = 6_000
TOO_LONG = {
    "vllm": refused(400, {"object": "error", "message": "maximum context length is 1500 tokens", "code": 400}),
    "gemini": refused(400, [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum"}}]),
    "a gateway": refused(413, {"error": "no"}),
    "a proxy": Response(b"<html>Request Entity Too Large</html>", 413, "text/html"),
    "in the stream": Response(event({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}})),
}


@pytest.mark.parametrize("wording", TOO_LONG)
async def test_a_conversation_that_grew_too_long_goes_on_with_its_newest_part(wording: str) -> None:
    def respond(request: dict[str, Any]) -> Response:
        return TOO_LONG[wording] if chars_of(request["messages"]) > CHARS_THAT_FIT else FINE

    async with asking(respond) as (endpoint, agent):
        texts = [f"{n} " + "word " * 200 for n in range(20)]
        assert await answer(agent, *texts) == ["Fine."]
        assert endpoint.asked[-1]["messages"][-1]["content"] == texts[-1], "the newest is there"
        refusals = len(endpoint.asked) - 1
        assert await answer(agent, *texts) == ["Fine."]
        assert len(endpoint.asked) == refusals + 2, "what fits is remembered"


async def test_a_limit_of_tokens_that_is_too_high_is_lowered() -> None:
    def respond(request: dict[str, Any]) -> Response:
        too_high = refused(400, {"error": {"message": "max_tokens is too large: the model supports at most 500"}})
        return too_high if request["max_tokens"] > 500 else FINE

    async with asking(respond) as (_, agent):
        assert await answer(agent, "Hi", max_output_tokens=4_000) == ["Fine."]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 429, 500, 502, 503])
async def test_a_failing_request_is_not_sent_twice(status: int) -> None:
    async with asking(lambda _: refused(status, {"error": {"message": "no"}})) as (endpoint, agent):
        with pytest.raises(AgentFailed):
            await answer(agent, "Hi")
    assert len(endpoint.asked) == 1


async def test_an_endpoint_that_wants_roles_to_alternate_is_asked_so_from_then_on() -> None:
    def respond(request: dict[str, Any]) -> Response:
        roles = [message["role"] for message in request["messages"] if message["role"] != "system"]
        alternate = roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
        return FINE if alternate else refused(400, {"message": "Conversation roles must alternate user/assistant/..."})

    async with asking(respond) as (endpoint, agent):
        for _ in range(2):
            assert await answer(agent, "Hi", "Are you there?") == ["Fine."]
    assert len(endpoint.asked) == 3


# --- memories


def transcript(*texts: str) -> Transcript:
    return Transcript("session", "ada", [Message("user", text, f"item_{n}") for n, text in enumerate(texts)])


CHAT = transcript("I like tea.")
LISTED = msgspec.json.encode(
    {"choices": [{"message": {"content": '[{"content": "Likes tea.", "item": 1, "quote": "like tea"}]'}}]}
)
LIST = Response(LISTED, kind="application/json")


async def remembered(agent: OpenAIAgent, chat: Transcript = CHAT, **more: Any) -> list[str]:
    with trio.fail_after(ANSWER_SECONDS):
        return [memory.content for memory in await extract_memories(agent, chat, **more)]


@pytest.mark.slow
@given(script=list_scripts())
@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_memories_survive_any_sloppiness(script: ListScript) -> None:
    async with asking(lambda _: script.response) as (_, agent):
        memories = await extract_memories(agent, transcript(*script.said))
    assert [(memory.content, memory.quote) for memory in memories] == script.facts
    assert [memory.item_id for memory in memories] == [f"item_{n}" for n in range(len(script.said))]


@pytest.mark.parametrize(
    "wording", ["response_format is not supported", "Unknown field: response_format", "response_format: json_schema"]
)
@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_an_endpoint_without_schemas_is_asked_without_one_from_then_on(status: int, wording: str) -> None:
    def respond(request: dict[str, Any]) -> Response:
        return refused(status, {"error": {"message": wording}}) if "response_format" in request else LIST

    async with asking(respond) as (endpoint, agent):
        for _ in range(2):
            assert await remembered(agent) == ["Likes tea."]
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("wording", TOO_LONG)
async def test_what_is_too_long_for_the_model_is_left_to_the_rules(wording: str) -> None:
    async with asking(lambda _: TOO_LONG[wording]) as (_, agent):
        assert await remembered(agent) == ["I like tea."]


OUTAGES = {
    **{str(status): refused(status, {"error": {"message": "no"}}) for status in (401, 402, 403, 404, 408, 429)},
    **{str(status): refused(status, {"error": {"message": "no"}}) for status in (500, 502, 503, 504, 529)},
    "an error with status 200": Response(b'{"error": {"message": "no", "code": 502}}', kind="application/json"),
    "an error without code": Response(b'{"error": "overloaded"}', kind="application/json"),
    "an error in a stream": Response(event({"error": {"message": "no", "code": "rate_limited"}})),
    "a page": Response(b"<html>Bad gateway</html>", kind="text/html"),
    "half an answer": Response(LISTED[:-9], kind="application/json"),
    "half a stream": Response(event(chunk_of({"content": "[{"}))),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_is_told_from_a_failure(outage: str) -> None:
    async with asking(lambda _: OUTAGES[outage]) as (_, agent):
        with pytest.raises(ModelUnavailable):
            await remembered(agent)


async def test_an_endpoint_that_is_not_there_is_an_outage() -> None:
    async with asking(lambda _: LIST) as (endpoint, _):
        url = endpoint.url
    async with aclosing(OpenAIAgent(base_url=url, api_key="sk-of-nobody", model="m")) as agent:
        with pytest.raises(ModelUnavailable) as caught:
            await remembered(agent)
    assert caught.value.certain


@pytest.mark.parametrize("failing", [refused(500, {"error": "no"}), Response(b"", kind="text/html")])
async def test_what_fails_one_session_while_others_are_answered_is_no_outage(failing: Response) -> None:
    def respond(request: dict[str, Any]) -> Response:
        return failing if "tea" in request["messages"][-1]["content"] else LIST

    async with asking(respond) as (_, agent):
        with pytest.raises(AgentFailed) as caught:
            await remembered(agent)
    assert not isinstance(caught.value, ModelUnavailable)


@pytest.mark.parametrize("error", [{"message": "no", "code": 400}, {"message": "no", "code": "422"}])
async def test_a_refusal_with_status_200_is_one(error: object) -> None:
    body = msgspec.json.encode({"error": error})
    async with asking(lambda _: Response(body, kind="application/json")) as (_, agent):
        assert await remembered(agent) == ["I like tea."]


async def test_a_silent_endpoint_is_an_outage() -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        await trio.sleep_forever()

    asked: list[bytes | bytearray] = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with aclosing(OpenAIAgent(base_url=url, api_key="k", model="m", read_seconds=0.05)) as agent:
            with pytest.raises(ModelUnavailable):
                await remembered(agent)
        nursery.cancel_scope.cancel()
    assert len(asked) == 2, "once, and once to see whether it answers anything"


async def test_no_memory_is_asked_for_where_an_answer_has_just_failed() -> None:
    down = True

    def respond(request: dict[str, Any]) -> Response:
        return refused(503, {"error": "no"}) if down else LIST if "response_format" in request else FINE

    async with asking(respond) as (endpoint, agent):
        with pytest.raises(AgentFailed):
            await answer(agent, "Hi")
        with pytest.raises(ModelUnavailable):
            await remembered(agent)
        assert len(endpoint.asked) == 1
        down = False
        await answer(agent, "Hi")
        assert await remembered(agent) == ["Likes tea."]
