"""The agent against a real HTTP endpoint on this machine that streams, stalls, breaks and refuses."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve
from lastcall.agents.agent import (
    AgentFailed,
    CutOff,
    Message,
    Piece,
    Role,
    Tool,
    ToolArguments,
    ToolCall,
    Transcript,
    Turn,
    Usage,
)
from lastcall.agents.openai import OpenAIAgent
from lastcall.agents.openai.openai_agent import ATTEMPTS_MAX
from lastcall.agents.openai.searching import NOTHING, ROUNDS_MAX
from lastcall.memory.by_model.fact_list import ANSWER_CHARS_MAX
from lastcall.memory.extract import extract_memories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

# The SDK leaves its own generators unfinished at the end of every stream; its connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
KEY = "sk-very-secret"
WAIT_SECONDS = 5.0


@dataclass
class Endpoint:
    """A scripted OpenAI-compatible endpoint that records its requests."""

    url: str = ""
    status: int = 200
    code: str | None = None
    pieces: Sequence[str] = ("Hel", "lo ", "Ada")
    deltas: Sequence[dict[str, Any]] = ()  # further ones, after the pieces
    finish: str = "stop"
    usage: dict[str, Any] | None = None
    refuses_usage: bool = False
    then: str = "done"  # done | stall | break | fade (ends without a finish) | noise | error
    too_long_times: int = 0
    answer: str | None = None
    rounds: Sequence[Sequence[dict[str, Any]]] = ()  # the deltas of each request, the last ones for all that follow
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    gone: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        assert scope["type"] == "http"
        self.keys.append(dict(scope["headers"])[b"authorization"].decode())
        self.asked.append(msgspec.json.decode(await _body(receive)))
        if len(self.asked) <= self.too_long_times:
            await self._refuse(send, 400, "context_length_exceeded")
        elif self.refuses_usage and "stream_options" in self.asked[-1]:
            await self._refuse(send, 400, None, "Unknown parameter: stream_options")
        elif self.status != 200:
            await self._refuse(send, self.status, self.code)
        elif self.asked[-1].get("stream"):
            await self._stream(receive, send)
        else:
            message = {"role": "assistant", "content": self.answer}
            await _respond(
                send, 200, {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            )

    def _deltas(self) -> Iterable[dict[str, Any]]:
        if self.rounds:
            return self.rounds[min(len(self.asked), len(self.rounds)) - 1]
        return (*({"content": piece} for piece in self.pieces), *self.deltas)

    async def _refuse(self, send: ASGISendCallable, status: int, code: str | None, why: str = "no") -> None:
        error = {"message": f"{why}: {KEY} at {self.url}", "type": "bad", "code": code}
        await _respond(send, status, {"error": error})

    async def _stream(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await _start(send, 200, b"text/event-stream")
        for delta in self._deltas():
            await _data(send, _chunk(delta, None))
        if self.then == "stall":
            assert (await receive())["type"] == "http.disconnect"
            self.gone.set()
            return
        if self.then == "break":
            raise ConnectionError("told to")
        if self.then == "noise":
            await _data(send, b"{not json")
        if self.then == "error":
            await _data(send, msgspec.json.encode({"error": {"message": KEY, "type": "server_error"}}))
        if self.then == "done":
            await _data(send, _chunk({}, self.finish))
            if self.usage is not None:
                await _data(send, msgspec.json.encode({"id": "c", "choices": [], "usage": self.usage}))
            await _data(send, b"[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _chunk(delta: dict[str, Any], finish: str | None) -> bytes:
    return msgspec.json.encode({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


async def _body(receive: ASGIReceiveCallable) -> bytes:
    body = b""
    while True:
        event = await receive()
        assert event["type"] == "http.request"
        body += event["body"]
        if not event["more_body"]:
            return body


async def _start(send: ASGISendCallable, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


async def _data(send: ASGISendCallable, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


async def _respond(send: ASGISendCallable, status: int, content: object) -> None:
    await _start(send, status, b"application/json")
    await send({"type": "http.response.body", "body": msgspec.json.encode(content), "more_body": False})


@pytest.fixture
async def endpoint(nursery: trio.Nursery) -> Endpoint:
    app = Endpoint()
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    binds = await nursery.start(partial(serve, app, config, mode="asgi"))
    app.url = f"{binds[0]}/v1"
    return app


@pytest.fixture
async def agent(endpoint: Endpoint) -> AsyncIterator[OpenAIAgent]:
    agent = OpenAIAgent(base_url=endpoint.url, api_key=KEY, model="small")
    yield agent
    await agent.aclose()


def turn(*texts: str, instructions: str = "Be brief.", max_output_tokens: int | None = None) -> Turn:
    roles: list[Role] = ["user", "assistant"]
    messages = [Message(roles[n % 2], text, f"item_{n}") for n, text in enumerate(texts)]
    return Turn("ada", "conversation", instructions, messages, max_output_tokens)


async def answer(agent: OpenAIAgent, asked: Turn) -> list[Piece]:
    with trio.fail_after(WAIT_SECONDS):
        async with aclosing(agent.reply(asked)) as pieces:
            return [piece async for piece in pieces]


async def failure(agent: OpenAIAgent, asked: Turn | None = None) -> AgentFailed:
    with pytest.raises(AgentFailed) as caught:
        await answer(agent, asked or turn("Hi"))
    message = str(caught.value)
    assert KEY not in message
    assert "http://" not in message
    assert "\n" not in message
    return caught.value


async def test_an_answer_arrives_in_the_endpoints_pieces(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    assert await answer(agent, turn("Hi", "Hello.", "Who am I?", max_output_tokens=7)) == ["Hel", "lo ", "Ada"]
    assert endpoint.keys == [f"Bearer {KEY}"]
    [request] = endpoint.asked
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Who am I?"},
    ]
    assert (request["model"], request["stream"], request["max_tokens"]) == ("small", True, 7)


async def test_an_empty_conversation_is_answered_too(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    assert await answer(agent, turn(instructions="")) == ["Hel", "lo ", "Ada"]
    assert endpoint.asked[0]["messages"]


async def test_the_agents_own_limit_of_tokens_holds(endpoint: Endpoint) -> None:
    agent = OpenAIAgent(base_url=endpoint.url, api_key=KEY, model="small", output_tokens_max=512)
    await answer(agent, turn("Hi"))
    await answer(agent, turn("Hi", max_output_tokens=9_000))
    await answer(agent, turn("Hi", max_output_tokens=9))
    assert [request["max_tokens"] for request in endpoint.asked] == [512, 512, 9]
    await agent.aclose()


async def test_cancelling_an_answer_closes_the_upstream_connection(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.then = "stall"
    with trio.CancelScope() as scope:
        async with aclosing(agent.reply(turn("Hi"))) as pieces:
            async for piece in pieces:
                if piece == "Ada":
                    scope.cancel()
    with trio.fail_after(WAIT_SECONDS):
        await endpoint.gone.wait()
    assert scope.cancelled_caught


async def test_cancelling_before_the_first_word_closes_the_upstream_connection(
    endpoint: Endpoint, agent: OpenAIAgent, nursery: trio.Nursery
) -> None:
    endpoint.then, endpoint.pieces = "stall", ()
    scope = trio.CancelScope()

    async def ask() -> None:
        with scope:
            await answer(agent, turn("Hi"))

    nursery.start_soon(ask)
    with trio.fail_after(WAIT_SECONDS):
        while not endpoint.asked:
            await trio.testing.wait_all_tasks_blocked(0.01)
        scope.cancel()
        await endpoint.gone.wait()


async def test_leaving_an_answer_early_closes_the_upstream_connection(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.then = "stall"
    async with aclosing(agent.reply(turn("Hi"))) as pieces:
        assert await anext(pieces) == "Hel"
    with trio.fail_after(WAIT_SECONDS):
        await endpoint.gone.wait()


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, "upstream_request_refused", "400"),
        (401, "upstream_key_refused", "LASTCALL_AGENT_KEY"),
        (403, "upstream_key_refused", "LASTCALL_AGENT_KEY"),
        (404, "upstream_model_not_found", "'small'"),
        (429, "upstream_rate_limited", "rate limiting"),
        (500, "upstream_error", "500"),
        (503, "upstream_error", "503"),
    ],
)
async def test_an_http_error_is_reported_in_one_sentence(
    endpoint: Endpoint, agent: OpenAIAgent, status: int, code: str, says: str
) -> None:
    endpoint.status = status
    failed = await failure(agent)
    assert (failed.code, says in str(failed)) == (code, True)
    assert len(endpoint.asked) <= 2


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("break", "upstream_broken"),
        ("fade", "upstream_broken"),
        ("noise", "upstream_broken"),
        ("error", "upstream_error"),
    ],
)
async def test_an_answer_that_breaks_off_is_a_failure(
    endpoint: Endpoint, agent: OpenAIAgent, then: str, code: str
) -> None:
    endpoint.then = then
    heard: list[Piece] = []

    async def listen() -> None:
        async with aclosing(agent.reply(turn("Hi"))) as pieces:
            async for piece in pieces:
                heard.append(piece)  # noqa: PERF401 - what came before the failure counts

    with pytest.raises(AgentFailed) as caught, trio.fail_after(WAIT_SECONDS):
        await listen()
    assert caught.value.code == code
    assert KEY not in str(caught.value)
    assert heard == ["Hel", "lo ", "Ada"]


async def test_a_silent_endpoint_times_out(endpoint: Endpoint) -> None:
    endpoint.then = "stall"
    agent = OpenAIAgent(base_url=endpoint.url, api_key=KEY, model="small", read_seconds=0.05)
    assert (await failure(agent)).code == "upstream_timeout"
    await agent.aclose()


async def test_a_closed_port_is_reported_as_unreachable() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    agent = OpenAIAgent(base_url=f"http://me:{KEY}@127.0.0.1:{port}/v1", api_key=KEY, model="small")
    assert (await failure(agent)).code == "upstream_unreachable"
    await agent.aclose()


async def test_a_loopback_endpoint_is_not_reached_through_a_proxy(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    agent = OpenAIAgent(base_url=endpoint.url, api_key=KEY, model="small")
    assert await answer(agent, turn("Hi"))
    await agent.aclose()


async def test_a_context_that_is_too_long_is_halved_a_few_times(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.too_long_times = 2
    assert await answer(agent, turn("x" * 150_000)) == ["Hel", "lo ", "Ada"]
    sizes = [len(request["messages"][-1]["content"]) for request in endpoint.asked]
    assert sizes[0] == 150_000
    assert sizes[2] < sizes[1] < sizes[0]
    endpoint.asked.clear()
    endpoint.too_long_times = 99
    assert (await failure(agent, turn("x" * 150_000))).code == "context_too_long"
    assert 2 <= len(endpoint.asked) <= ATTEMPTS_MAX


# --- tools


LOOK_UP = Tool("look_up", "Looks a city up.", {"type": "object", "properties": {"city": {"type": "string"}}})
GREET = Tool("greet", "", {})


def piece_of_call(index: int, arguments: str, **named: str) -> dict[str, Any]:
    """A delta of the call with this number."""
    call_id, name = named.get("id"), named.get("name")
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | ({"id": call_id} if call_id else {})]}


async def test_tool_calls_arrive_in_the_endpoints_pieces(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.pieces, endpoint.finish = ("Let me see.",), "tool_calls"
    endpoint.deltas = [
        piece_of_call(0, "", id="call_1", name="look_up"),
        piece_of_call(0, '{"city":'),
        piece_of_call(1, '{"na', id="call_2", name="greet"),
        piece_of_call(0, '"Oslo"}'),
        piece_of_call(1, 'me":"Ada"}'),
    ]
    asked = replace(turn("Hi"), tools=[LOOK_UP, GREET], tool_choice="required", parallel_tool_calls=True)
    assert await answer(agent, asked) == [
        "Let me see.",
        ToolCall("look_up", "", "call_1"),
        ToolArguments('{"city":'),
        ToolArguments('"Oslo"}'),
        ToolCall("greet", '{"name":"Ada"}', "call_2"),
    ]
    [request] = endpoint.asked
    assert request["tools"][0] == {
        "type": "function",
        "function": {"name": "look_up", "description": "Looks a city up.", "parameters": LOOK_UP.parameters},
    }
    assert (request["tool_choice"], request["parallel_tool_calls"]) == ("required", True)


async def test_a_required_tool_is_named_and_no_tools_are_not_mentioned(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    await answer(agent, replace(turn("Hi"), tools=[LOOK_UP], tool_choice=LOOK_UP))
    await answer(agent, turn("Hi"))
    first, second = endpoint.asked
    assert first["tool_choice"] == {"type": "function", "function": {"name": "look_up"}}
    assert "parallel_tool_calls" not in first
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(second)


async def test_a_model_that_cannot_call_tools_is_not_told_of_them(endpoint: Endpoint) -> None:
    agent = OpenAIAgent(base_url=endpoint.url, api_key=KEY, model="small", calls_tools=False)
    await answer(agent, replace(turn("Hi"), tools=[LOOK_UP]))
    assert "tools" not in endpoint.asked[0]
    await agent.aclose()


# --- usage and cut-offs


async def test_usage_is_what_the_endpoint_counted(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    counts = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    endpoint.usage = {**counts, "prompt_tokens_details": {"cached_tokens": 16}}
    assert (await answer(agent, turn("Hi")))[-1] == Usage(30, 4, 16)
    endpoint.usage = counts
    assert (await answer(agent, turn("Hi")))[-1] == Usage(30, 4)
    assert endpoint.asked[0]["stream_options"] == {"include_usage": True}


async def test_an_endpoint_that_reports_no_usage_is_asked_only_once(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.refuses_usage = True
    for _ in range(2):
        assert await answer(agent, turn("Hi")) == ["Hel", "lo ", "Ada"]
    assert ["stream_options" in request for request in endpoint.asked] == [True, False, False]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_the_endpoint_cut_is_marked(
    endpoint: Endpoint, agent: OpenAIAgent, finish: str, reason: str
) -> None:
    endpoint.finish = finish
    last = (await answer(agent, turn("Hi")))[-1]
    assert isinstance(last, CutOff)
    assert last.reason == reason


def chat(*texts: tuple[Role, str]) -> Transcript:
    return Transcript("session", "ada", [Message(role, text, f"item_{n}") for n, (role, text) in enumerate(texts)])


def found(*facts: tuple[str, str, int, str]) -> str:
    rows = [dict(zip(("kind", "content", "item", "quote"), fact, strict=True)) for fact in facts]
    return msgspec.json.encode({"memories": rows}).decode()


CHAT = chat(("assistant", "Do you like tea?"), ("user", "Yes. Ada  is my name, by the way."))


async def test_only_the_models_memories_with_a_quote_of_the_user_are_kept(
    endpoint: Endpoint, agent: OpenAIAgent
) -> None:
    endpoint.answer = found(
        ("name", "The user is called Ada.", 2, "ada is my name"),
        ("place", "Lives in Oslo.", 2, "I live in Oslo"),
        ("like", "Likes tea.", 1, "Do you like tea?"),
        ("like", "Likes tea.", 0, "ada is my name"),
        ("like", "Likes tea.", 3, "ada is my name"),
    )
    [memory] = await extract_memories(agent, CHAT)
    assert (memory.kind, memory.content, memory.item_id, memory.quote) == (
        "name",
        "The user is called Ada.",
        "item_1",
        "Ada  is my name",
    )
    assert endpoint.asked[0]["response_format"]["json_schema"]["strict"] is True


async def test_the_model_reads_only_the_newest_messages(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.answer = found()
    await extract_memories(agent, chat(*(("user", f"{n} " + "x" * 1_000) for n in range(100))))
    sent = msgspec.json.decode(endpoint.asked[0]["messages"][-1]["content"])
    assert sent[-1]["text"].startswith("99 ")
    assert sum(len(row["text"]) for row in sent) <= 24_000


async def test_the_model_is_not_asked_about_a_session_without_user_messages(
    endpoint: Endpoint, agent: OpenAIAgent
) -> None:
    assert await extract_memories(agent, chat(("assistant", "Hello?"))) == []
    assert endpoint.asked == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        '{"memories": 3}',
        '{"memories": [{"kind": "name"}]}',
        "[" * 100_000,
        '{"memories": []' + " " * ANSWER_CHARS_MAX + "}",
    ],
    ids=lambda text: repr(text[:20]),
)
async def test_where_there_is_no_list_the_rules_extract_the_memories(
    endpoint: Endpoint, agent: OpenAIAgent, text: str
) -> None:
    endpoint.answer = text
    assert [memory.quote for memory in await extract_memories(agent, chat(("user", "I like tea.")))] == ["I like tea."]
    assert len(endpoint.asked) == 1


async def test_without_json_schemas_the_rules_extract_the_memories(endpoint: Endpoint, agent: OpenAIAgent) -> None:
    endpoint.status = 400
    assert [memory.quote for memory in await extract_memories(agent, chat(("user", "I like tea.")))] == ["I like tea."]


async def test_a_finished_answer_leaves_nothing_on_the_terminal(endpoint: Endpoint) -> None:
    script = (
        "import trio, gc\n"
        "from contextlib import aclosing\n"
        "from lastcall.agents.agent import Turn\n"
        "from lastcall.agents.openai import OpenAIAgent\n"
        "async def main():\n"
        f"    agent = OpenAIAgent(base_url={endpoint.url!r}, api_key='k', model='m')\n"
        "    async with aclosing(agent.reply(Turn('u', 'c', 'Hi', []))) as pieces:\n"
        "        print(''.join([piece async for piece in pieces]), end='')\n"
        "    await agent.aclose()\n"
        "    gc.collect()\n"
        "trio.run(main)\n"
    )
    with trio.fail_after(30):
        done = await trio.run_process([sys.executable, "-c", script], capture_stdout=True, capture_stderr=True)
    assert (done.stdout, done.stderr) == (b"Hello Ada", b"")


async def test_the_bundled_model_answers_in_pieces() -> None:
    pytest.importorskip("xllamacpp")
    local_model = pytest.importorskip("lastcall.embedded.model")
    from lastcall.agents.select import open_agent
    from lastcall.config import Settings

    if not local_model.available():
        pytest.skip("the bundled model is not installed")
    with trio.fail_after(60):
        async with open_agent(Settings(agent="local")) as agent:
            asked = turn("Tell me about the sea.", max_output_tokens=8)
            async with aclosing(agent.reply(asked)) as pieces:
                assert len([piece async for piece in pieces]) > 1


# --- a model that searches the user's earlier conversations by itself

WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {}})


@dataclass
class Past:
    """What a turn can search."""

    found: str = '{"text":"My boat is called Gannet."}'
    asked: list[str] = field(default_factory=list)

    async def __call__(self, query: str) -> str:
        self.asked.append(query)
        return self.found


def call(name: str, arguments: str, index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": f"call_{name}_{index}", "type": "function", "function": function}]}


def search(query: str, index: int = 0) -> dict[str, Any]:
    return call("memory_search", json.dumps({"query": query}), index)


async def pieces(agent: OpenAIAgent, past: Past | None, **changes: Any) -> list[Piece]:
    asked = replace(turn("What is my boat called?"), search=past, **changes)
    return [piece async for piece in agent.reply(asked)]


def offered(endpoint: Endpoint) -> list[list[str]]:
    """The names of the tools of each request."""
    return [[tool["function"]["name"] for tool in asked.get("tools", ())] for asked in endpoint.asked]


async def test_a_search_is_answered_here_and_the_client_hears_the_answer_only(
    agent: OpenAIAgent, endpoint: Endpoint
) -> None:
    past = Past()
    first = search("boat name")
    arguments = first["tool_calls"][0]["function"]["arguments"]
    first["tool_calls"][0]["function"]["arguments"] = arguments[:5]
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": arguments[5:]}}]}
    endpoint.rounds = [
        [{"content": "Let me look."}, first, rest],
        [{"content": "It is called "}, {"content": "Gannet."}],
    ]
    endpoint.usage = {"prompt_tokens": 10, "completion_tokens": 3}
    assert await pieces(agent, past) == ["Let me look.", "\n\n", "It is called ", "Gannet.", Usage(20, 6)]
    assert past.asked == ["boat name"]
    assert offered(endpoint) == [["memory_search"], ["memory_search"]]
    made, told = endpoint.asked[1]["messages"][-2:]
    assert made["tool_calls"][0]["function"]["name"] == "memory_search"
    assert (told["role"], told["content"]) == ("tool", past.found)
    assert told["tool_call_id"] == made["tool_calls"][0]["id"]


async def test_searches_made_together_are_all_answered_also_with_nothing(
    agent: OpenAIAgent, endpoint: Endpoint
) -> None:
    past = Past(found="")
    endpoint.rounds = [[search("boat"), search("ship", 1)], [{"content": "I do not know."}]]
    assert await pieces(agent, past) == ["I do not know."]
    assert past.asked == ["boat", "ship"]
    assert [each["content"] for each in endpoint.asked[1]["messages"][-2:]] == [NOTHING, NOTHING]


async def test_a_model_that_does_not_stop_searching_is_not_asked_for_ever(
    agent: OpenAIAgent, endpoint: Endpoint
) -> None:
    past = Past()
    endpoint.rounds = [[search("boat")]]
    assert await pieces(agent, past) == []
    assert len(past.asked) == ROUNDS_MAX
    assert offered(endpoint) == [["memory_search"]] * ROUNDS_MAX + [[]]


async def test_a_call_of_the_clients_tool_ends_the_answer(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    past = Past()
    endpoint.rounds = [[search("boat"), call("weather", "{}", 1)], [{"content": "never"}]]
    assert await pieces(agent, past, tools=[WEATHER]) == [ToolCall("weather", "{}", "call_weather_1")]
    assert past.asked == []
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"search": None},
        {"tool_choice": "none", "tools": [WEATHER]},
        {"tool_choice": "required", "tools": [WEATHER]},
        {"tool_choice": WEATHER, "tools": [WEATHER]},
        {"tools": [replace(WEATHER, name="memory_search")]},
    ],
)
async def test_nothing_is_offered_without_a_past_or_against_the_clients_choice(
    agent: OpenAIAgent, endpoint: Endpoint, changes: dict[str, Any]
) -> None:
    past = None if "search" in changes else Past()
    changes = {name: value for name, value in changes.items() if name != "search"}
    names = [tool.name for tool in changes.get("tools", ())]
    endpoint.rounds = [[call("memory_search", "{}")]]
    made = await pieces(agent, past, **changes)
    assert made == [ToolCall("memory_search", "{}", "call_memory_search_0")]
    assert offered(endpoint) == [names]


@pytest.mark.parametrize(
    ("arguments", "query"), [("boat", "boat"), ('"boat"', "boat"), ('{"q": "boat"}', '{"q": "boat"}'), ("", "")]
)
async def test_sloppy_arguments_are_searched_for_as_they_are(
    agent: OpenAIAgent, endpoint: Endpoint, arguments: str, query: str
) -> None:
    past = Past()
    endpoint.rounds = [[call("memory_search", arguments)], [{"content": "Gannet."}]]
    assert await pieces(agent, past) == ["Gannet."]
    assert past.asked == [query]
