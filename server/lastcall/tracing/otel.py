"""Traces by OpenTelemetry. The SDK's own variables (`OTEL_…`) say where to, how many, and of which service.

Spans carry ids, names, numbers and reasons, but nothing of what was said.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from uuid import UUID

import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..agents.agent import Agent, AgentFailed, CutOff, Piece, ToolCall, Turn, Usage
from ..agents.trace_context import TRACEPARENT, continue_trace
from ..config import BadSettings
from .traces import Traces

SERVICE = "lastcall"
FAILED_REASONS = frozenset({"server_error", "overloaded", "owner_died"})  # ends that are errors of the server
# The log's names of a session, as OpenTelemetry calls them.
ATTRIBUTES = {
    "session_id": "session.id",
    "conversation_id": "gen_ai.conversation.id",
    "user_id": "user.id",
    "address": "client.address",
    "instance_id": "service.instance.id",
    "key_id": "lastcall.key_id",
}
OF_TURNS = ("session_id", "conversation_id", "user_id")

_propagator = TraceContextTextMapPropagator()


class OtelTraces(Traces):
    """A span for each session, from its begin to its end, and below it one for each turn."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(SERVICE, __version__)
        self._sessions: dict[UUID, Span] = {}

    def session_began(self, agent: Agent, names: Callable[[], Mapping[str, object]], parent: str | None) -> Agent:
        # What is no traceparent begins a trace of its own.
        above = _propagator.extract({} if parent is None else {TRACEPARENT: parent}, Context())
        named = {each: str(value) for each, value in names().items()}
        span = self._tracer.start_span(
            "session", above, SpanKind.SERVER, {ATTRIBUTES[each]: value for each, value in named.items()}
        )
        self._sessions[UUID(named["session_id"])] = span
        of_turns = {ATTRIBUTES[each]: named[each] for each in OF_TURNS}
        return TracedAgent(agent, self._tracer, set_span_in_context(span, above), of_turns)

    def session_ended(self, session_id: UUID, reason: str) -> None:
        span = self._sessions.pop(session_id, None)
        if span is not None:
            span.set_attribute("lastcall.end_reason", reason)
            if reason in FAILED_REASONS:
                span.set_status(StatusCode.ERROR, reason)
            span.end()


class TracedAgent:
    """An agent of one session, with a span for each of its turns.

    Args:
        agent: The agent itself.
        tracer: Makes the spans.
        session: The context of the session's span.
        attributes: What all turns have.
    """

    def __init__(self, agent: Agent, tracer: Tracer, session: Context, attributes: Mapping[str, str]) -> None:
        self._agent = agent
        self._tracer = tracer
        self._session = session
        self.describe = agent.describe
        provider, model = self.describe.partition(" ")[0], getattr(agent, "model", None)
        self._name = f"chat {model}" if isinstance(model, str) else "chat"
        self._attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, **attributes}
        if isinstance(model, str):
            self._attributes["gen_ai.request.model"] = model

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        """The agent's own answer."""
        span = self._tracer.start_span(self._name, self._session, SpanKind.CLIENT, self._attributes)
        if turn.max_output_tokens is not None:
            span.set_attribute("gen_ai.request.max_tokens", turn.max_output_tokens)
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(span, self._session))
        if TRACEPARENT in carrier:  # not where OTEL_SDK_DISABLED is set
            continue_trace(carrier[TRACEPARENT])
        status = "cancelled"
        try:
            async with aclosing(self._agent.reply(turn)) as pieces:
                async for piece in _noted(pieces, span):
                    yield piece
            status = "answered"
        except AgentFailed as failure:
            status = "failed"
            _fail(span, failure.code)
            raise
        except Exception as error:
            status = "failed"
            _fail(span, type(error).__name__)
            raise
        finally:
            span.set_attribute("lastcall.turn_status", status)
            span.end()


async def _noted(pieces: AsyncIterator[Piece], span: Span) -> AsyncIterator[Piece]:
    """Notes when the first piece came, what the answer cost, and how it finished."""
    asked, finish = trio.current_time(), "stop"
    is_first = True
    async for piece in pieces:
        if is_first:
            span.set_attribute("gen_ai.response.time_to_first_chunk", trio.current_time() - asked)
            is_first = False
        match piece:
            case Usage():
                span.set_attribute("gen_ai.usage.input_tokens", piece.input_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", piece.output_tokens)
                if piece.cached_tokens is not None:
                    span.set_attribute("gen_ai.usage.cache_read.input_tokens", piece.cached_tokens)
            case CutOff():
                finish = "length" if piece.reason == "max_output_tokens" else piece.reason
            case ToolCall():
                finish = "tool_calls"
        yield piece
    span.set_attribute("gen_ai.response.finish_reasons", [finish])


def _fail(span: Span, kind: str) -> None:
    """Not the message of an exception: it may repeat what was said."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, kind)


def open_otel(flush_seconds: Callable[[], float]) -> AbstractAsyncContextManager[OtelTraces]:
    """Exports spans by OTLP over HTTP, from a thread of the SDK's: its queue is bounded, and drops the oldest.

    flush_seconds: what the end may take; what is not exported by then is lost. Raises `BadSettings`.
    """
    try:
        return _open(_provider(), flush_seconds)
    except ValueError as error:
        raise BadSettings(f"--traces: an OTEL_… variable cannot be used: {error}") from error


@asynccontextmanager
async def _open(provider: TracerProvider, flush_seconds: Callable[[], float]) -> AsyncIterator[OtelTraces]:
    try:
        yield OtelTraces(provider)
    finally:
        with trio.move_on_after(flush_seconds(), shield=True):
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


def _provider() -> TracerProvider:
    named = Resource.create()
    if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: SERVICE}))
    named = named.merge(Resource({SERVICE_VERSION: __version__}))
    provider = TracerProvider(resource=named, shutdown_on_exit=False)  # which would wait for a silent collector
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
