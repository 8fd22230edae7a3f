"""One response of the agent, from `response.create` to `response.done`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec
import structlog
import trio

from ...agents.agent import (
    Agent,
    AgentFailed,
    CutOff,
    Piece,
    ToolArguments,
    ToolCall,
    Turn,
    Usage,
    contained,
)
from ...config import Settings
from ...limits.memory import MemoryAccount, json_bytes, text_bytes
from ...protocol import server_events
from ...runtime.checkpoints import sparing
from ...store.errors import SessionClosed, StoreError
from ...store.records import StoredResponse
from ..figures import ResponseFigures, tokens_of
from ..sinks import EventSink, ItemSink
from ..timeline import ConversationEntry
from .output import ResponseOutput, encodable

_log = structlog.get_logger(__name__)


class ActiveResponse:
    """A response in progress. It owns its items until `response.done`.

    Created while `response.create` is handled, so that its first item's place is reserved before the next event.

    rates: what is left of the client's event rate.
    texts_bytes: what the texts of the turn's items take in memory.

    Attributes:
        response: As it is announced, and in the end reported.
        figures_stored: Whether its figures were committed with its items.
    """

    def __init__(
        self,
        response: server_events.Response,
        turn: Turn,
        sink: ItemSink,
        outbox: EventSink,
        *,
        settings: Settings,
        rates: Callable[[], server_events.RateLimitsUpdated],
        memory: MemoryAccount,
        texts_bytes: int,
        figures: ResponseFigures,
    ) -> None:
        self.response = response
        self._turn = turn
        self._outbox = outbox
        self._rates = rates
        self._figures = figures
        self._created = trio.current_time()
        self._first: float | None = None  # when the agent's first piece came
        self._ended: float | None = None  # when the agent was done
        self._usage: Usage | None = None
        self.figures_stored = False
        self._cut_off: Literal["max_output_tokens", "content_filter"] | None = None
        self._generation = trio.CancelScope(deadline=self._created + settings.reply_seconds)
        self._cancelled = False
        self._memory = memory
        self._turn_held = _turn_bytes(turn, texts_bytes)
        tools = turn.tools if turn.tool_choice != "none" else ()
        self._output = ResponseOutput(
            response.id,
            sink,
            outbox,
            tools=frozenset(tool.name for tool in tools),
            chars_max=settings.reply_chars_max,
            held=memory.add,
        )
        memory.add(self._turn_held)

    @property
    def failure_code(self) -> str | None:
        """The error code of a response that has failed."""
        details = self.response.status_details
        failure = None if details is None else details.error
        return failure.code if isinstance(failure, server_events.Failure) else None

    def begin(self) -> None:
        """Announces the response."""
        self._outbox.emit(server_events.ResponseCreated(response=self.response))
        self._outbox.emit(self._rates())
        self._output.begin()

    def cancel(self) -> None:
        """Stops the generation; the text so far stays, as `incomplete`. No effect on a finished generation."""
        self._cancelled = True
        self._generation.cancel()

    @property
    def first_piece_seconds(self) -> float | None:
        """From its creation to the agent's first piece; None: there is none so far."""
        return None if self._first is None else self._first - self._created

    @property
    def tokens(self) -> Sequence[int | None]:
        """As `tokens_of` returns them."""
        return tokens_of(self._usage)

    def figures(self) -> StoredResponse:
        """What it took, so far or in the end."""
        ended = trio.current_time() if self._ended is None else self._ended
        return self._figures.row(self.response, self._usage, created=self._created, first=self._first, ended=ended)

    def stop(self) -> Sequence[ConversationEntry]:
        """Ends the response with its session; returns its items, as far as they got."""
        self.cancel()
        return self._output.stop()

    async def run(self, agent: Agent) -> None:
        """Generates, stores and acknowledges the answer. Raises nothing but cancellation and `SessionClosed`."""
        try:
            await self._generate(agent)
        finally:
            self._ended = trio.current_time()
            self._memory.add(-self._turn_held)
        self._output.close_item("completed" if self.response.status == "completed" else "incomplete")
        self.response.output = self._output.items
        if await self._commit():
            self._output.acknowledge()
        self._outbox.emit(server_events.ResponseDone(response=self.response))

    async def _commit(self) -> bool:
        """Whether the items were stored. Where they were not, none is acknowledged by its `done`."""
        try:
            self.figures_stored = await self._output.commit(self.figures())
        except SessionClosed:
            raise
        except StoreError as error:
            _log.warning("response_not_stored", error=str(error))
            self._fail("store_unavailable", "The answer could not be stored. Please try again.")
            self._output.mark_incomplete()
            return False
        return True

    async def _generate(self, agent: Agent) -> None:
        """Streams the agent's answer, and sets the response's status."""
        try:
            with self._generation, contained():
                await sparing(self._stream(agent))
        except AgentFailed as failure:
            self._fail(failure.code, str(failure))
        except Exception:  # noqa: BLE001 - whatever an agent raises is this response's failure
            _log.exception("agent_raised", response_id=self.response.id)
            self._fail("agent_error", "The agent failed to answer.")
        else:
            self._conclude()

    async def _stream(self, agent: Agent) -> None:
        async with aclosing(agent.reply(self._turn)) as pieces:
            async for piece in pieces:
                if self._first is None:
                    self._first = trio.current_time()
                self._take(piece)
                await self._outbox.room()

    def _take(self, piece: Piece) -> None:
        match piece:
            case str():
                self._output.append_text(piece)
            case ToolCall(name=str(), arguments=str()):
                self._output.open_call(piece)
            case ToolArguments(text=str()):
                self._output.append_arguments(piece.text)
            case Usage():
                self.response.usage = _usage_report(piece)
                self._usage = piece
            case CutOff():
                self._cut_off = piece.reason
            case _:  # anybody's agent: what is no text here would end the session where it is sent or stored
                raise TypeError(f"an agent yields str or the other pieces of `Piece`, not {piece!r:.100}")

    def _conclude(self) -> None:
        if self._generation.cancelled_caught:
            if self._cancelled:
                self.response.status = "cancelled"
                self.response.status_details = server_events.StatusDetails(type="cancelled", reason="client_cancelled")
            else:
                self._fail("agent_timeout", "The agent took too long to answer.")
        elif self._cut_off is not None:
            self.response.status = "incomplete"
            self.response.status_details = server_events.StatusDetails(type="incomplete", reason=self._cut_off)
        else:
            self.response.status = "completed"

    def _fail(self, code: str, message: str) -> None:
        self.response.status = "failed"
        failure = server_events.Failure(code=encodable(code), message=encodable(message))
        self.response.status_details = server_events.StatusDetails(type="failed", error=failure)


def _turn_bytes(turn: Turn, texts_bytes: int) -> int:
    """What an agent takes in memory to send this turn to its model, about: the texts twice, in a request.

    The instructions and tools may be this response's own, which nothing else counts.
    """
    texts = texts_bytes + text_bytes(turn.instructions)
    tools = sum(json_bytes(msgspec.json.encode(tool)) for tool in turn.tools)
    return 2 * texts + tools


def _usage_report(usage: Usage) -> server_events.UsageReport:
    cached = usage.cached_tokens or 0
    return server_events.UsageReport(
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        input_token_details=server_events.InputTokenDetails(
            text_tokens=usage.input_tokens,
            cached_tokens=cached,
            cached_tokens_details=server_events.CachedTokensDetails(text_tokens=cached),
        ),
        output_token_details=server_events.OutputTokenDetails(text_tokens=usage.output_tokens),
    )
