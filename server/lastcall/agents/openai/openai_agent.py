"""The agent behind any OpenAI-compatible endpoint: streams its model's answers, and can ask it for JSON."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import openai
import structlog
import trio

from ..agent import AgentFailed, FunctionCall, ModelUnavailable, RequestUnsupported
from ..trace_context import trace_headers
from .answer import Answer
from .chat import chars_of, request_messages, tool_parameters, unchecked
from .chunks import DONE, StreamRefused, chunks_of, whole
from .dialect import COMPLETION_TOKENS, TOKENS, ContextBudget, Dialect
from .failures import failures, refusal_of
from .searching import Searching
from .whole_answer import words_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    from ..agent import JsonModel, Piece, Turn
    from .dialect import EndpointRefusal

CONTEXT_CHARS_MAX = 200_000  # characters of one request: about 50,000 tokens
ATTEMPTS_MAX = 16  # for one answer, each after a refusal that said what to change
LIMIT_MIN = 64  # tokens of an answer; a limit up to this is not what makes a request too long
CHARS_PER_TOKEN = 3
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0  # without a byte, before the first one and between two
BILL_SECONDS = 2.0  # for the usage, after an answer's end
OUTAGE_SECONDS = 10.0  # after an answer that failed, in which no memories are asked for
CLOSE_SECONDS = 2.0  # for open upstream connections

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_COMPLETION_TOKENS = ("openai.com", "openai.azure.com")  # hosts whose newer models refuse `max_tokens`

_log = structlog.get_logger(__name__)


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
            max_retries=0,  # a request that failed may have been paid for, and a silent endpoint would be silent twice
            timeout=httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS),
        )
        host = self._client.base_url.host
        if host in _LOOPBACK:  # a proxy from the environment would connect to its own loopback
            self._client = self._client.copy(http_client=openai.DefaultAsyncHttpxClient(trust_env=False))
        self.model = model
        self._budget = ContextBudget(context_chars_max)
        self._output_tokens_max = output_tokens_max
        self._temperature = temperature
        self._sampling = sampling
        self._extractor = extractor
        self._calls_tools = calls_tools
        self._outage: tuple[float, ModelUnavailable] | None = None  # since when, and why, answers fail
        self._dialect = Dialect(COMPLETION_TOKENS if host.endswith(_COMPLETION_TOKENS) else TOKENS)
        self.describe = describe or f"openai {model} at {host}"

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        """Streams the model's text and calls, then its usage. Closing the generator closes the upstream connection."""
        searching = Searching(turn, offered=self._calls_tools)
        goes_on = True
        while goes_on:
            asked = searching.turn
            answer = Answer(item.call_id for item in asked.items if isinstance(item, FunctionCall))
            with self._noting_outages(), failures(self.model):
                # Left early without this `async with`, a stream would keep its connection open forever.
                async with self._opened(asked) as chunks:
                    while (chunk := await _next(chunks, answer)) is not None:
                        self._outage = None
                        for piece in searching.pass_on(answer.take(chunk)):
                            yield piece
            for piece in searching.pass_on(answer.remaining()):
                yield piece
            goes_on = await searching.go_on()
        for piece in searching.usage():
            yield piece

    @contextmanager
    def _noting_outages(self) -> Iterator[None]:
        try:
            yield
        except ModelUnavailable as error:
            self._outage = trio.current_time(), error
            raise

    @property
    def extractor(self) -> Literal["rules"] | JsonModel:
        return self if self._extractor == "model" else "rules"

    async def complete_json(
        self, instructions: str, prompt: str, *, schema: Mapping[str, object], max_tokens: int
    ) -> str:
        """See `JsonModel`. Where an answer has just failed, nothing is asked: memory can wait, and silence may cost."""
        if self._outage is not None and trio.current_time() < self._outage[0] + OUTAGE_SECONDS:
            raise ModelUnavailable(self._outage[1].code, str(self._outage[1]))
        parameters = {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
            TOKENS: max_tokens,
        }
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}]
        with failures(self.model):
            for _ in range(ATTEMPTS_MAX):
                request = self._dialect.request(messages, parameters)
                try:
                    return await self._complete(request)
                except (openai.APIStatusError, StreamRefused) as error:
                    refusal = refusal_of(error)
                    if refusal.is_too_long():
                        raise RequestUnsupported("context_too_long", "The chat is too long for the model.") from error
                    self._adapt(refusal, request, error)
        raise AssertionError

    async def aclose(self) -> None:
        """Closes the upstream connections, within `CLOSE_SECONDS`."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._client.close()

    @asynccontextmanager
    async def _opened(self, turn: Turn) -> AsyncIterator[AsyncGenerator[Any, None]]:
        """The chunks of an answer. What the endpoint refuses is changed, where the refusal says how, and sent again."""
        parameters, chars = self._parameters(turn), self._budget.chars(trio.current_time())
        shortened = False
        for _ in range(ATTEMPTS_MAX):
            messages = request_messages(turn.instructions, turn.items or turn.messages, chars)
            request = self._dialect.request(messages, parameters)
            async with AsyncExitStack() as stack:
                try:
                    chunks = await self._send(stack, request)
                except (openai.APIStatusError, StreamRefused) as error:
                    refusal, sent = refusal_of(error), chars_of(messages)
                    smaller = self._budget.smaller(sent) if refusal.is_too_long() else None
                    if refusal.is_too_long() and parameters.get(TOKENS, 0) > max(LIMIT_MIN, sent // CHARS_PER_TOKEN):
                        parameters = _half_limit(parameters)
                    elif smaller is None:
                        parameters = self._changed(refusal, request, parameters, error)
                    else:
                        chars, shortened = smaller, True
                        parameters = _half_limit(parameters)
                        _log.info("context_shortened", model=self.model, chars=chars)
                    continue
                if shortened:
                    self._budget.learn(chars, trio.current_time())
                yield chunks
                return
        raise AgentFailed("context_too_long", "The conversation is too long for the model.")

    async def _complete(self, request: dict[str, Any]) -> str:
        """The words of one request that wants no stream."""
        create = self._client.chat.completions.with_streaming_response.create
        async with create(model=self.model, **unchecked(request)) as response:
            body = await whole(response.http_response)
        return words_of(body)

    async def _send(self, stack: AsyncExitStack, request: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The chunks of one request. Raises `StreamRefused` where the first one is an error."""
        create = self._client.chat.completions.with_streaming_response.create
        request = {**unchecked(request), "extra_headers": trace_headers()}
        response = await stack.enter_async_context(create(model=self.model, stream=True, **request))
        return await stack.enter_async_context(aclosing(await chunks_of(response.http_response)))

    def _parameters(self, turn: Turn) -> dict[str, Any]:
        limits = [limit for limit in (turn.max_output_tokens, self._output_tokens_max) if limit is not None]
        parameters: dict[str, Any] = {"stream_options": {"include_usage": True}}
        if limits:
            parameters[TOKENS] = min(limits)
        if self._temperature is not None:
            parameters["temperature"] = self._temperature
        if self._sampling is not None:
            parameters["extra_body"] = dict(self._sampling)
        return parameters | (tool_parameters(turn) if self._calls_tools else {})

    def _changed(
        self, refusal: EndpointRefusal, request: dict[str, Any], parameters: dict[str, Any], error: Exception
    ) -> dict[str, Any]:
        """The parameters for the next attempt. Raises the error where it does not say what to change."""
        if refusal.is_too_long():
            raise AgentFailed("context_too_long", "The conversation is too long for the model.") from error
        if TOKENS in parameters and parameters[TOKENS] > 1 and refusal.limits_too_much():
            return _half_limit(parameters)
        self._adapt(refusal, request, error)
        return parameters

    def _adapt(self, refusal: EndpointRefusal, request: dict[str, Any], error: Exception) -> None:
        change = self._dialect.adapt(refusal, request)
        if change is None:
            raise error
        _log.info("endpoint_adapted_to", model=self.model, change=change)


async def _next(chunks: AsyncGenerator[Any, None], answer: Answer) -> Any:
    """The next chunk; None after the last. What goes wrong after the answer's end costs its usage, not its words."""
    chunk = None
    try:
        with trio.move_on_after(BILL_SECONDS if answer.finish else inf):
            chunk = await anext(chunks, None)
    except (httpx2.HTTPError, ValueError, StreamRefused):
        if answer.finish is None:
            raise
    if chunk is DONE:
        answer.done()
        return None
    return chunk


def _half_limit(parameters: dict[str, Any]) -> dict[str, Any]:
    limit = parameters.get(TOKENS)
    return parameters if limit is None else {**parameters, TOKENS: max(1, limit // 2)}
