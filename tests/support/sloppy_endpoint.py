"""An endpoint that speaks chat completions as sloppily as real ones do, in any combination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import msgspec
import trio
from hypothesis import strategies as st
from lastcall.agents.agent import Piece, ToolArguments, ToolCall

REQUEST_BYTES = 65_536


@dataclass(frozen=True)
class Response:
    """What the endpoint sends, whole."""

    body: bytes
    status: int = 200
    kind: str = "text/event-stream"


@dataclass
class SloppyEndpoint:
    """Answers each request with `respond(request)`, and keeps the requests and their headers."""

    url: str
    respond: Callable[[dict[str, Any]], Response]
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            body = b""
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(REQUEST_BYTES))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.Request):
                    self.headers.append({name.decode(): value.decode() for name, value in event.headers})
                else:
                    return
            self.asked.append(msgspec.json.decode(body))
            response = self.respond(self.asked[-1])
            headers = [("content-type", response.kind), ("connection", "close")]
            await stream.send_all(connection.send(h11.Response(status_code=response.status, headers=headers)) or b"")
            await stream.send_all(connection.send(h11.Data(data=response.body)) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")


@asynccontextmanager
async def sloppy_endpoint(respond: Callable[[dict[str, Any]], Response]) -> AsyncIterator[SloppyEndpoint]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        endpoint = SloppyEndpoint(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1", respond)
        nursery.start_soon(trio.serve_listeners, endpoint.serve, listeners)
        yield endpoint
        nursery.cancel_scope.cancel()


# --- answers


@dataclass(frozen=True)
class Script:
    """An answer as the model meant it, and the bytes in which it comes. calls: names and arguments."""

    words: str
    calls: Sequence[tuple[str, str]]
    response: Response


def event(chunk: object) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def chunk_of(delta: Any = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish} | ({} if delta is None else {"delta": delta})
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


def calls_of(pieces: Iterable[Piece]) -> list[tuple[str, str]]:
    """The calls among an agent's pieces: names, and arguments put together."""
    made: list[list[str]] = []
    for piece in pieces:
        if isinstance(piece, ToolCall):
            made.append([piece.name, piece.arguments])
        elif isinstance(piece, ToolArguments):
            made[-1][1] += piece.text
    return [(name, arguments) for name, arguments in made]


NOISE = (
    b": keep-alive\n\n",
    b"data:\n\n",
    b"data: ping\n\n",
    b'event: ping\ndata: {"type": "ping"}\n\n',
    event({"choices": None}),
    event({"choices": [], "usage": None}),
    event({"choices": [None]}),
    event({"error": None, "choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
    event(
        {"choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}]}
    ),
    event(chunk_of({"role": "assistant", "content": ""})),
    event(chunk_of({"content": None, "tool_calls": None, "refusal": None})),
    event(chunk_of({"reasoning_content": "hm", "content": None})),
    event(chunk_of({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})),
    event(chunk_of({"content": {"type": "reasoning", "text": "hm"}}, finish="null")),
    b'data: {"choices": [{"delta": null, "logprobs": NaN}]}\n\n',
    b"data: {torn\n\n",
)
BILLS: tuple[Any, ...] = (
    None,
    {},
    {"total_tokens": 7},
    {"prompt_tokens": None, "completion_tokens": 2},
    {"prompt_tokens": "three", "completion_tokens": -1},
    {"prompt_tokens": 3.0, "completion_tokens": 2, "prompt_tokens_details": None},
    {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}},
    [1],
)
_noise = st.lists(st.sampled_from(NOISE), max_size=2).map(b"".join)
_word = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
_arguments = st.fixed_dictionaries({"city": _word}).map(lambda value: msgspec.json.encode(value).decode())
_call = st.tuples(st.sampled_from(("look_up", "greet")), _arguments)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Any answer in any of the endpoints' manners."""
    words = draw(st.lists(_word, min_size=1, max_size=4))
    calls = draw(st.lists(_call, max_size=3))
    usage = draw(st.sampled_from(BILLS))
    if draw(st.integers(0, 5)) == 0:
        return Script("".join(words), calls, _document(words, calls, usage))
    parts = [_text_chunk(word, draw(st.sampled_from(TEXT_FORMS))) for word in words] + draw(_call_chunks(calls))
    body = b"".join(draw(_noise) + event(part) for part in parts)
    return Script("".join(words), calls, Response(body + draw(_ending(usage)), kind=draw(st.sampled_from(KINDS))))


KINDS = ("text/event-stream", "text/event-stream; charset=utf-8", "text/plain", "application/json", "image/x-icon")
TEXT_FORMS: tuple[Callable[[str], object], ...] = (
    lambda word: word,
    lambda word: [{"type": "text", "text": word}],
    lambda word: [word[:1], word[1:]],
    lambda word: {"type": "output_text", "text": {"value": word}},
)


def _text_chunk(word: str, form: Callable[[str], object]) -> dict[str, Any]:
    return chunk_of({"content": form(word)})


def _document(words: Sequence[str], calls: Sequence[tuple[str, str]], usage: object) -> Response:
    """A whole answer where a stream was asked for."""
    made = [_named(f"call_{n}", *call, index=None) for n, call in enumerate(calls)]
    message = {"role": "assistant", "content": "".join(words), "tool_calls": made or None}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return Response(msgspec.json.encode({"id": "c", "choices": [choice], "usage": usage}), kind="application/json")


def _named(call_id: str, name: str, arguments: object, *, index: int | None) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return call if index is None else {"index": index, **call}


@st.composite
def _call_chunks(draw: st.DrawFn, calls: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    manner = draw(st.sampled_from(("pieces", "all at index 0", "no index", "objects", "interleaved")))
    chunks: list[dict[str, Any]] = []
    tails: list[dict[str, Any]] = []
    for n, (name, arguments) in enumerate(calls):
        if manner in ("pieces", "interleaved"):
            cut = draw(st.integers(0, len(arguments)))
            chunks.append(_named(f"call_{n}", name, arguments[:cut], index=n))
            tail = {"index": n, "function": {"arguments": arguments[cut:]}}
            (tails if manner == "interleaved" else chunks).append(tail)
        elif manner == "objects":
            chunks.append(_named(f"call_{n}", name, msgspec.json.decode(arguments), index=n))
        else:
            chunks.append(_named(f"call_{n}", name, arguments, index=0 if manner == "all at index 0" else None))
    return [chunk_of({"tool_calls": [each]}) for each in chunks + tails]


@st.composite
def _ending(draw: st.DrawFn, usage: object) -> bytes:
    """The answer is over: by a finish reason, by [DONE], or by both; then anything may follow."""
    finish = draw(st.sampled_from(("stop", "tool_calls", "eos", None)))
    bill = [] if usage is None else [{"choices": draw(st.sampled_from(([], None))), "usage": usage}]
    ended = [] if finish is None else [chunk_of({} if draw(st.booleans()) else None, finish=finish)]
    last = b"".join(event(chunk) + draw(_noise) for chunk in [*ended, *bill])
    if finish is None or draw(st.booleans()):
        return last + b"data: [DONE]\n\n"
    return last + draw(st.sampled_from((b"", b"data: {torn", b"data: {torn\n\n", event({"error": "the bill is lost"}))))


# --- lists of memories


@dataclass(frozen=True)
class ListScript:
    """The facts that the model lists, with the user's messages that they quote, and the answer in which they come."""

    said: Sequence[str]
    facts: Sequence[tuple[str, str]]  # content and quote
    response: Response


KEYS = ("memories", "facts", "items", "result")
BEFORE = ("", "Here is the list:\n", "Sure! I found [some] {things}:\n\n", "- [ ] `a`\n", '"So "it" is: ')
AFTER = ("", "\nAnything else?", "\n\n[1] as the user said.", "\n// done", "\n</answer>")
REASONING = (
    "",
    "<think>The user says {name}.</think>\n",
    '<think>\nFirst draft: {"memories": [{"kind": "note", "content": "draft", "quote": "draft"}]}\n</think>\n\n',
    "The template began this, [so] it only ends.</think>",
    "[THINK]Hm.[/THINK]",
    "<|channel|>analysis<|message|>A list?<|end|><|start|>assistant<|channel|>final<|message|>",
)
_plain_word = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=3, max_size=12)
_quirks = st.text("{}[],/*# \\'\"`\n", max_size=6)


@st.composite
def list_scripts(draw: st.DrawFn) -> ListScript:
    """A list of memories in any of the manners of models that are not held to a schema."""
    words = draw(st.lists(_plain_word, min_size=1, max_size=3, unique_by=str.casefold))
    said = [f"I like {word} {draw(_quirks)} {n}." for n, word in enumerate(words)]
    facts = [(f"Likes {word}.", text) for word, text in zip(words, said, strict=True)]
    rows = [_row(draw, n, *fact) for n, fact in enumerate(facts, 1)]
    text = draw(st.sampled_from(REASONING)) + draw(st.sampled_from(BEFORE)) + _listed(draw, rows)
    return ListScript(said, facts, _answer(draw, text + draw(st.sampled_from(AFTER))))


def _row(draw: st.DrawFn, number: int, content: str, quote: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": draw(st.sampled_from(("like", "Like", None))), "content": content}
    row |= {"item": draw(st.sampled_from((number, float(number), str(number), f"item {number}", None))), "quote": quote}
    return {key: value for key, value in row.items() if value is not None or draw(st.booleans())}


def _listed(draw: st.DrawFn, rows: Sequence[dict[str, Any]]) -> str:
    manner = draw(st.sampled_from(("object", "wrapped twice", "bare", "lines", "one each", "cut off", "by number")))
    broken = draw(st.sampled_from(("", ",", ", // the last one\n", ' /* that\'s "all" */ ,')))
    written = [msgspec.json.encode(row).decode() for row in rows]
    loose = [row[:-1] + broken + "}" for row in written]
    text = {
        "object": f'{{"{draw(st.sampled_from(KEYS))}": [{", ".join(loose)}{broken}]}}',
        "wrapped twice": f'{{"result": {{"memories": [{", ".join(loose)}]}}, "count": {len(rows)}}}',
        "bare": f"[{','.join(loose)}{broken}]",
        "lines": "\n".join(loose),
        "one each": "\n".join(f'{{"memories": [{row}]}}' for row in written),
        "cut off": f'{{"memories": [{", ".join(written)}, {{"kind": "li',
        "by number": msgspec.json.encode({str(n): row for n, row in enumerate(rows, 1)}).decode(),
    }[manner]
    before, after = draw(st.sampled_from((("", ""), ("```json\n", "\n```"), ("```\n", "\n```"), ("```json\n", ""))))
    return before + text + after


def _answer(draw: st.DrawFn, text: str) -> Response:
    """A whole completion under any type, or the stream that nobody asked for."""
    if draw(st.booleans()):
        kind = draw(st.sampled_from(("application/json", "text/plain", "application/octet-stream")))
        return Response(_document([text], [], draw(st.sampled_from(BILLS))).body, kind=kind)
    half = len(text) // 2
    parts = [_text_chunk(part, draw(st.sampled_from(TEXT_FORMS))) for part in (text[:half], text[half:])]
    return Response(b"".join(draw(_noise) + event(part) for part in parts) + draw(_ending(None)))
