"""One response of the agent: from `response.create` to `response.done`, in the canonical order of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Literal, Protocol, TypedDict
from uuid import uuid4

import structlog
import trio

from ..agents.agent import Agent, AgentFailed, CutOff, Piece, ToolArguments, ToolCall, Turn, Usage
from ..agents.containment import contained
from ..config import Settings
from ..protocol import server_events
from ..protocol.items import FunctionCallItem, Item, MessageItem, OutputText
from ..store.errors import SessionClosed, StoreError
from .items import ConversationEntry

OUTPUT_ITEMS_MAX = 64  # of one response
CALL_ID_CHARS_MAX = 128  # of an agent's own call_id

_log = structlog.get_logger(__name__)


class EventSink(Protocol):
    """Where events go. `emit` never blocks; `room` waits for a client that lags behind."""

    def emit(self, event: server_events.ServerEvent) -> None: ...

    async def room(self) -> None: ...


class ItemSink(Protocol):
    """Where a response's items go: the conversation, or nowhere."""

    def reserve(self, item: Item, after: ConversationEntry | None) -> ConversationEntry:
        """A place for an item that is still to be made; after the response's item before it."""
        ...

    def announce(self, entry: ConversationEntry) -> None:
        """The item is announced."""
        ...

    def release(self, entry: ConversationEntry) -> None:
        """Gives a place back that no item was announced for."""
        ...

    async def commit(self, entries: Sequence[ConversationEntry]) -> None:
        """Returns once the finished items are committed. Raises `StoreError`."""
        ...

    def acknowledge(self, entry: ConversationEntry) -> None:
        """The item is committed."""
        ...


class ActiveResponse:
    """A response under way. It owns its items until `response.done`; entries: those announced so far.

    Created in the handler of `response.create`, it takes the place of its first item before the next event is read.
    rates: what is left of the client's rate of events.
    """

    def __init__(
        self,
        response: server_events.Response,
        sink: ItemSink,
        outbox: EventSink,
        rates: Callable[[], server_events.RateLimitsUpdated],
    ) -> None:
        self.response = response
        self.entries: list[ConversationEntry] = []
        self._sink = sink
        self._outbox = outbox
        self._rates = rates
        self._place: ConversationEntry | None = sink.reserve(_blank(), None)
        self._open: ConversationEntry | None = None
        self._pieces: list[str] = []  # of the open item
        self._chars_left = 0
        self._tools: frozenset[str] = frozenset()
        self._cut_off: Literal["max_output_tokens", "content_filter"] | None = None
        self._generation = trio.CancelScope()
        self._cancelled = False

    def begin(self, turn: Turn) -> None:
        """Announces the response, and its message too, unless the answer may begin with the call of a tool."""
        if turn.tool_choice != "none":
            self._tools = frozenset(tool.name for tool in turn.tools)
        self._outbox.emit(server_events.ResponseCreated(response=self.response))
        self._outbox.emit(self._rates())
        if not self._tools:
            self._open_message()

    def cancel(self) -> None:
        """Ends the generation; what was said so far stays, as `incomplete`. A finished generation is not touched."""
        self._cancelled = True
        self._generation.cancel()

    def cut(self) -> Sequence[ConversationEntry]:
        """Ends the response with its session; returns its items, as far as they got."""
        self.cancel()
        if self._open is not None and self._open.item.status == "in_progress":
            self._settle(self._open, "incomplete")
        return self.entries

    async def run(self, agent: Agent, turn: Turn, settings: Settings) -> None:
        """The whole response. Raises nothing but cancellation and `SessionClosed`."""
        await self._generate(agent, turn, settings)
        self._close_item("completed" if self.response.status == "completed" else "incomplete")
        self.response.output = [entry.item for entry in self.entries]
        if await self._keep():
            for index, entry in enumerate(self.entries):
                done = server_events.OutputItemDone(response_id=self.response.id, output_index=index, item=entry.item)
                self._outbox.emit(done)
                self._sink.acknowledge(entry)
        self._outbox.emit(server_events.ResponseDone(response=self.response))

    async def _keep(self) -> bool:
        """Stores the items, in one commit: where it fails, none is acknowledged by its `done`."""
        if self._place is not None:
            self._sink.release(self._place)
        try:
            await self._sink.commit(self.entries)
        except SessionClosed:
            raise
        except StoreError as error:
            _log.warning("response_not_stored", error=str(error))
            self._fail("store_unavailable", "The answer could not be stored. Please try again.")
            for entry in self.entries:
                entry.item.status = "incomplete"
            return False
        return True

    # --- generation

    async def _generate(self, agent: Agent, turn: Turn, settings: Settings) -> None:
        """Streams the agent's answer and leaves the outcome in `response.status`."""
        self._chars_left = settings.reply_chars_max
        try:
            with self._generation:
                self._generation.deadline = trio.current_time() + settings.reply_seconds
                with contained():
                    await self._stream(agent, turn, settings.reply_chars_max)
        except AgentFailed as failure:
            self._fail(failure.code, str(failure))
        except Exception:  # noqa: BLE001 - whatever an agent raises is this response's failure
            _log.exception("agent_raised", response_id=self.response.id)
            self._fail("agent_error", "The agent failed to answer.")
        else:
            self._conclude()

    async def _stream(self, agent: Agent, turn: Turn, chars_max: int) -> None:
        async with aclosing(agent.reply(turn)) as pieces:
            async for piece in pieces:
                self._take(piece)
                if self._chars_left < 0:
                    raise AgentFailed("answer_too_long", f"The answer exceeded {chars_max} characters.")
                await self._outbox.room()

    def _take(self, piece: Piece) -> None:
        match piece:
            case ToolCall():
                self._open_call(piece)
            case ToolArguments():
                self._append_arguments(_encodable(piece.text))
            case Usage():
                self.response.usage = _usage(piece)
            case CutOff():
                self._cut_off = piece.reason
            case _:
                self._append_text(_encodable(piece))

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
        failure = server_events.Failure(code=_encodable(code), message=_encodable(message))
        self.response.status_details = server_events.StatusDetails(type="failed", error=failure)

    # --- its items

    def _append_text(self, piece: str) -> None:
        if not piece:
            return
        if self._open is None or not isinstance(self._open.item, MessageItem):
            self._close_item("completed")
            self._open_message()
        self._chars_left -= len(piece)
        if self._chars_left < 0:
            return
        self._pieces.append(piece)
        self._outbox.emit(server_events.TextDelta(**self._where(), delta=piece))

    def _open_message(self) -> None:
        entry = self._next_place()
        self._announce(entry)
        self._outbox.emit(server_events.ContentPartAdded(**self._where(), part=server_events.TextPart(text="")))

    def _open_call(self, call: ToolCall) -> None:
        if call.name not in self._tools:
            raise AgentFailed("unknown_tool", f"The agent called a tool that it was not offered: {call.name!r:.100}.")
        self._close_item("completed")
        entry = self._next_place()
        call_id = _encodable(call.call_id or "").replace("\0", "")[:CALL_ID_CHARS_MAX] or f"call_{uuid4().hex}"
        entry.item = FunctionCallItem(
            id=entry.item.id, status="in_progress", call_id=call_id, name=call.name, arguments=""
        )
        self._announce(entry)
        self._append_arguments(_encodable(call.arguments))

    def _append_arguments(self, piece: str) -> None:
        if self._open is None or not isinstance(self._open.item, FunctionCallItem):
            raise AgentFailed("agent_error", "The agent sent arguments without a call.")
        self._chars_left -= len(piece)
        if piece and self._chars_left >= 0:
            self._pieces.append(piece)
            self._outbox.emit(
                server_events.ArgumentsDelta(**self._where(), call_id=self._open.item.call_id, delta=piece)
            )

    def _next_place(self) -> ConversationEntry:
        if len(self.entries) >= OUTPUT_ITEMS_MAX:
            raise AgentFailed("answer_too_long", f"The answer exceeded {OUTPUT_ITEMS_MAX} items.")
        place, self._place = self._place, None
        return place or self._sink.reserve(_blank(), self.entries[-1])

    def _announce(self, entry: ConversationEntry) -> None:
        self.entries.append(entry)
        self._open, self._pieces = entry, []
        index = len(self.entries) - 1
        self._outbox.emit(
            server_events.OutputItemAdded(response_id=self.response.id, output_index=index, item=entry.item)
        )
        self._sink.announce(entry)

    def _close_item(self, status: Literal["completed", "incomplete"]) -> None:
        """Says how the open item reads as a whole. Its `done` comes after the response's commit."""
        entry = self._open
        if entry is None:
            return
        if isinstance(entry.item, FunctionCallItem) and status == "completed" and not self._pieces:
            self._append_arguments("{}")  # clients read arguments as JSON, and nothing is none
        self._settle(entry, status)
        match entry.item:
            case MessageItem():
                self._outbox.emit(server_events.TextDone(**self._where(), text=entry.text))
                self._outbox.emit(
                    server_events.ContentPartDone(**self._where(), part=server_events.TextPart(text=entry.text))
                )
            case FunctionCallItem(call_id=call_id, name=name, arguments=arguments):
                self._outbox.emit(
                    server_events.ArgumentsDone(**self._where(), call_id=call_id, name=name, arguments=arguments)
                )
        self._open = None

    def _settle(self, entry: ConversationEntry, status: Literal["completed", "incomplete"]) -> None:
        # PostgreSQL's text holds every character but NUL.
        text = "".join(self._pieces).replace("\0", "")
        entry.item.status = status
        match entry.item:
            case MessageItem() as message:
                message.content = [OutputText(text)]
            case FunctionCallItem() as call:
                call.arguments = text

    def _where(self) -> _Where:
        return {
            "response_id": self.response.id,
            "item_id": self.entries[-1].item.id,
            "output_index": len(self.entries) - 1,
        }


class _Where(TypedDict):
    """What every event about an item of a response names."""

    response_id: str
    item_id: str
    output_index: int


def _blank() -> MessageItem:
    return MessageItem(id=f"item_{uuid4().hex}", status="in_progress", role="assistant", content=[])


def _usage(usage: Usage) -> server_events.UsageReport:
    cached = usage.cached_tokens
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


def _encodable(text: str) -> str:
    """Half a surrogate pair, which JSON from a model's server may hold where it cuts a character, fits no UTF-8."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
