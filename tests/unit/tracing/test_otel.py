"""The spans of sessions and their turns, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import trio
from lastcall.agents.agent import Agent, AgentFailed, CutOff, Piece, ToolCall, Turn, Usage
from lastcall.agents.echo import EchoAgent
from lastcall.agents.trace_context import trace_headers
from lastcall.config import BadSettings, Settings
from lastcall.tracing import traces
from lastcall.tracing.otel import OtelTraces
from lastcall.tracing.traces import Traces, open_traces
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.fake_store import FakeStore
from tests.support.virtual_server import World

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIRST_PIECE_SECONDS = 0.25


class Speaking:
    """Says its pieces after a while. `seen`: the headers that a request of its turn would have."""

    describe = "mine of-somebody"
    model = "small"

    def __init__(self, *pieces: Piece, error: Exception | None = None, hangs: bool = False) -> None:
        self.pieces, self.error, self.hangs = pieces, error, hangs
        self.seen: list[str] = []

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        headers = trace_headers()
        self.seen.append("" if headers is None else headers["traceparent"])
        await trio.sleep(FIRST_PIECE_SECONDS)
        for piece in self.pieces:
            yield piece
        if self.hangs:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error


class Traced(World):
    """A server whose spans are kept in memory."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(FakeStore(), agent)
        self.kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.traces = OtelTraces(provider)
        self.services = replace(self.services, traces=self.traces)

    async def turn(self, *, waits_for: str = "response.done") -> list[ReadableSpan]:
        """One session with one turn; returns its spans: the turns, then the session."""
        async with self.connected() as peer:
            await peer.receive("session.created")
            await peer.say("Hello, my secret is sesame")
            await peer.send(type="response.create")
            await peer.receive(waits_for)
            await peer.ws.aclose()
            await self.over.wait()
        return list(self.kept.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_a_session_and_its_turn_are_spans_with_the_names_of_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    agent = Speaking("Yes, ", "sesame.", Usage(12, 5, 3))
    world = Traced(agent)
    turn, session = await world.turn()
    named = {"session.id": str(world.row.session_id), "gen_ai.conversation.id": str(world.row.conversation_id)}
    assert (session.name, turn.name) == ("session", "chat small")
    assert session.parent is None
    assert turn.parent is not None
    assert session.context is not None
    assert turn.parent.span_id == session.context.span_id
    about_session = attributes(session)
    assert about_session | named == about_session
    assert about_session["lastcall.end_reason"] == "client_closed"
    assert about_session["service.instance.id"] == str(world.lease.instance_id)
    assert session.status.is_unset
    assert attributes(turn) == named | {
        "user.id": about_session["user.id"],
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mine",
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": pytest.approx(FIRST_PIECE_SECONDS),
        "lastcall.turn_status": "answered",
    }
    assert "sesame" not in session.to_json() + turn.to_json()
    assert turn.context is not None
    assert agent.seen == [f"00-{turn.context.trace_id:032x}-{turn.context.span_id:016x}-{turn.context.trace_flags:02x}"]


async def test_a_count_that_the_model_does_not_report_is_no_attribute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turn, _session = await Traced(Speaking("Yes.", Usage(12, 5))).turn()
    assert attributes(turn)["gen_ai.usage.input_tokens"] == 12
    assert "gen_ai.usage.cache_read.input_tokens" not in attributes(turn)


@pytest.mark.parametrize(
    ("agent", "status", "error", "finish"),
    [
        (Speaking("Half", CutOff("max_output_tokens")), "answered", None, ("length",)),
        (Speaking(error=AgentFailed("upstream_timeout", "The secret is sesame.")), "failed", "upstream_timeout", None),
        (Speaking(error=LookupError("sesame")), "failed", "LookupError", None),
        (Speaking("Hm", hangs=True), "cancelled", None, None),
    ],
    ids=["cut off", "agent failed", "agent raised", "session ended"],
)
async def test_how_a_turn_ended_is_told_without_what_was_said(
    autojump_clock: trio.testing.MockClock, agent: Speaking, status: str, error: str | None, finish: object
) -> None:
    world = Traced(agent)
    spans = await world.turn(waits_for="response.output_text.delta" if agent.hangs else "response.done")
    (turn,) = [span for span in spans if span.name == "chat small"]
    about = attributes(turn)
    assert about["lastcall.turn_status"] == status
    assert about.get("error.type") == error
    assert about.get("gen_ai.response.finish_reasons") == finish
    assert turn.status.is_ok is (error is None)
    assert "sesame" not in turn.to_json()


def test_tool_calls_are_a_finish_of_their_own() -> None:
    async def run() -> list[ReadableSpan]:
        world = Traced(Speaking(ToolCall("weather")))
        traced = world.traces.session_began(world.services.agent, lambda: NAMES, None)
        async for _ in traced.reply(Turn("ada", "conv", "", [])):
            pass
        return list(world.kept.get_finished_spans())

    (turn,) = trio.run(run)
    assert attributes(turn)["gen_ai.response.finish_reasons"] == ("tool_calls",)


NAMES = {
    "session_id": "b7ad6b71-6920-4333-8448-eb211c80319c",
    "conversation_id": "c",
    "user_id": "ada",
    "address": "192.0.2.1",
    "instance_id": "i",
}


@pytest.mark.parametrize(
    ("sent", "trace_id"),
    [
        (PARENT, 0x0AF7651916CD43DD8448EB211C80319C),
        ("nonsense", None),
        (PARENT.replace("a", "x"), None),
        (None, None),
    ],
)
async def test_a_session_belongs_to_the_trace_of_its_client(sent: str | None, trace_id: int | None) -> None:
    world = Traced(EchoAgent())
    world.traces.session_began(EchoAgent(), lambda: NAMES, sent)
    for session_id in list(world.traces._sessions):
        world.traces.session_ended(session_id, "server_error")
        world.traces.session_ended(session_id, "again")  # nothing
    (session,) = world.kept.get_finished_spans()
    assert session.context is not None
    assert session.context.trace_id == trace_id if trace_id else session.parent is None
    assert not session.status.is_ok
    assert attributes(session)["lastcall.end_reason"] == "server_error"


async def test_without_the_setting_the_agent_is_the_agent_itself() -> None:
    agent = Speaking("Yes")
    async with open_traces(Settings(), lambda: 1.0) as nothing:
        assert type(nothing) is Traces
        assert nothing.session_began(agent, dict, PARENT) is agent


async def test_without_the_packages_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, f"{traces.__package__}.otel", None)
    with pytest.raises(BadSettings, match=r"pip install 'lastcall\[otel\]'"):
        async with open_traces(Settings(traces=True), lambda: 1.0):
            raise AssertionError
