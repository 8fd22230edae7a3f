"""The agent behind any OpenAI-compatible endpoint: streams its model's answers, and can ask it for JSON."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import openai
import trio

from .agent import AgentFailed, RequestUnsupported
from .chat import Answer, request_messages, tool_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from .agent import JsonModel, Piece, Turn

CONTEXT_CHARS_MAX = 200_000  # characters of one request: about 50,000 tokens
CONTEXT_HALVINGS_MAX = 3  # retries, each with half the context, while the endpoint reports that it is too long
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0  # without a byte, before the first one and between two
RETRIES_MAX = 1  # by the SDK, before the first byte of an answer
CLOSE_SECONDS = 2.0  # for open upstream connections

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_COMPLETION_TOKENS = ("openai.com", "openai.azure.com")  # hosts whose newer models refuse `max_tokens`
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error"})


class OpenAIAgent:
    """Answers with the model of an OpenAI-compatible endpoint.

    base_url: None for the SDK's own (`OPENAI_BASE_URL` if set, else OpenAI's).
    context_chars_max: instructions and newest messages of one request, in characters.
    output_tokens_max: limit of every answer, in tokens, also where the client sets none or a higher one.
    temperature: of the answers; None for the endpoint's own.
    sampling: further parameters of an answer that only this endpoint knows.
    read_seconds: how long the endpoint may send nothing.
    extractor: whether memories come from the model or from the user's own sentences.
    calls_tools: whether the model is told of the client's tools.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str,
        model: str,
        describe: str | None = None,
        context_chars_max: int = CONTEXT_CHARS_MAX,
        output_tokens_max: int | None = None,
        temperature: float | None = None,
        sampling: Mapping[str, float] | None = None,
        read_seconds: float = READ_SECONDS,
        extractor: Literal["rules", "model"] = "model",
        calls_tools: bool = True,
    ) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=RETRIES_MAX,
            timeout=httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS),
        )
        host = self._client.base_url.host
        if host in _LOOPBACK:  # a proxy from the environment would connect to its own loopback
            self._client = self._client.copy(http_client=openai.DefaultAsyncHttpxClient(trust_env=False))
        self._model = model
        self._context_chars_max = context_chars_max
        self._output_tokens_max = output_tokens_max
        self._temperature = temperature
        self._sampling = sampling
        self._extractor = extractor
        self._calls_tools = calls_tools
        self._reports_usage = True  # until the endpoint refuses to
        self._tokens_key = "max_completion_tokens" if host.endswith(_COMPLETION_TOKENS) else "max_tokens"
        self.describe = describe or f"openai {model} at {host}"

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        """Streams the model's text and calls, then its usage. Closing the generator closes the upstream connection."""
        with _failures(self._model):
            # Left early without this `async with`, a stream would keep its connection open forever.
            async with await self._open(turn) as stream:
                answer = Answer()
                async for chunk in stream:
                    for piece in answer.take(chunk):
                        yield piece
        for piece in answer.finish():
            yield piece

    @property
    def extractor(self) -> Literal["rules"] | JsonModel:
        return self if self._extractor == "model" else "rules"

    async def complete_json(
        self, instructions: str, prompt: str, *, schema: Mapping[str, object], max_tokens: int
    ) -> str:
        """See `JsonModel`."""
        with _failures(self._model):
            completion = await self._create(
                messages=[{"role": "system", "content": instructions}, {"role": "user", "content": prompt}],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": schema},
                },
                **{self._tokens_key: max_tokens},
            )
        return (completion.choices[0].message.content if completion.choices else None) or ""

    async def aclose(self) -> None:
        """Closes the upstream connections, within `CLOSE_SECONDS`."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._client.close()

    async def _open(self, turn: Turn) -> Any:
        """Begins an answer. If the context is too long for the model, retries a few times with half of it."""
        limits = [limit for limit in (turn.max_output_tokens, self._output_tokens_max) if limit is not None]
        extra: dict[str, Any] = {self._tokens_key: min(limits)} if limits else {}
        if self._temperature is not None:
            extra["temperature"] = self._temperature
        if self._sampling is not None:
            extra["extra_body"] = dict(self._sampling)
        if self._calls_tools:
            extra |= tool_parameters(turn)
        for halvings in range(CONTEXT_HALVINGS_MAX + 1):
            chars_max = self._context_chars_max >> halvings
            messages = request_messages(turn.instructions, turn.items or turn.messages, chars_max)
            try:
                return await self._stream(messages=messages, **extra)
            except openai.BadRequestError as error:
                if not _is_too_long(error):
                    raise
        raise AgentFailed("context_too_long", "The conversation is too long for the model.")

    async def _stream(self, **request: Any) -> Any:
        """Asks for the usage too, unless the endpoint does not know that parameter."""
        if self._reports_usage:
            try:
                return await self._create(stream=True, stream_options={"include_usage": True}, **request)
            except openai.BadRequestError as error:
                if "stream_options" not in f"{error.param} {error.message}":
                    raise
                self._reports_usage = False
        return await self._create(stream=True, **request)

    async def _create(self, *, messages: Any, **request: Any) -> Any:
        """Returns a stream or a whole answer, as requested; the SDK's types cannot tell which."""
        # Not as the parameter `messages`: checking each against its types, the SDK would hold up the event loop for
        # 0.3 ms a message. A long conversation has thousands.
        body = {**request.pop("extra_body", {}), "messages": messages}
        return await self._client.chat.completions.create(model=self._model, messages=[], extra_body=body, **request)


def _is_too_long(error: openai.BadRequestError) -> bool:
    return error.code in _TOO_LONG or error.type in _TOO_LONG


@contextmanager
def _failures(model: str) -> Iterator[None]:
    """Turns the SDK's exceptions into `AgentFailed`, with messages of our own: the SDK's may contain keys and URLs."""
    try:
        yield
    except openai.APITimeoutError as error:
        raise AgentFailed("upstream_timeout", "The model's endpoint did not answer in time.") from error
    except openai.APIStatusError as error:
        raise _status_failure(error, model) from error
    except openai.APIConnectionError as error:
        raise _connection_failure(error) from error
    except httpx2.TimeoutException as error:
        raise AgentFailed("upstream_timeout", "The model's endpoint did not answer in time.") from error
    except httpx2.HTTPError as error:
        raise AgentFailed("upstream_broken", "The connection to the model's endpoint broke in mid-answer.") from error
    except (openai.OpenAIError, ValueError) as error:  # an error event in the stream, or invalid JSON
        raise AgentFailed("upstream_error", "The model's endpoint reported an error.") from error


def _connection_failure(error: openai.APIConnectionError) -> AgentFailed:
    if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.UnsupportedProtocol)):
        return AgentFailed("upstream_unreachable", "The model's endpoint cannot be reached.")
    return AgentFailed("upstream_broken", "The connection to the model's endpoint broke.")


def _status_failure(error: openai.APIStatusError, model: str) -> AgentFailed:
    status = error.status_code
    if status in (401, 403):
        sentence = "The model's endpoint refused the key; set LASTCALL_AGENT_KEY or OPENAI_API_KEY to a valid one."
        return AgentFailed("upstream_key_refused", sentence)
    if status == 404:
        sentence = f"The endpoint has no model {model!r}; check --model and --agent-url."
        return AgentFailed("upstream_model_not_found", sentence)
    if status == 429:
        return AgentFailed("upstream_rate_limited", "The model's endpoint is rate limiting requests.")
    if status in (400, 422):
        return RequestUnsupported(
            "upstream_request_refused", f"The model's endpoint refused the request (HTTP {status})."
        )
    return AgentFailed("upstream_error", f"The model's endpoint failed (HTTP {status}).")
