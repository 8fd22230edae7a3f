"""The output items of a response, and the events about them in their canonical order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import Literal, TypedDict

from ...agents.agent import AgentFailed, ToolCall
from ...protocol import server_events
from ...protocol.ids import new_id
from ...protocol.items import FunctionCallItem, Item, MessageItem, OutputText
from ...store.records import StoredResponse
from ..sinks import EventSink, ItemSink
from ..timeline import ConversationEntry

COUNT_BYTES = 4_096  # of pieces, in one go: to count each would take longer than to keep it
OUTPUT_ITEMS_MAX = 64  # of one response
CALL_ID_CHARS_MAX = 128  # of an agent's own call_id

ClosedStatus = Literal["completed", "incomplete"]


class ResponseOutput:
    """The items of one response, until they are committed.

    The first item's place is reserved at once, before the next client event is handled.

    entries: the items announced so far; the last one may still be open.
    tools: the names of the tools that the agent may call.
    chars_max: characters of all items together.
    held: called with the change of what the pieces of the open item take in memory.
    """

    def __init__(
        self,
        response_id: str,
        sink: ItemSink,
        outbox: EventSink,
        *,
        tools: frozenset[str],
        chars_max: int,
        held: Callable[[int], object] = int,
    ) -> None:
        self.entries: list[ConversationEntry] = []
        self._response_id = response_id
        self._sink = sink
        self._outbox = outbox
        self._tools = tools
        self._chars_max = chars_max
        self._chars_left = chars_max
        self._reserved: ConversationEntry | None = sink.reserve(_empty_message(), None)
        self._open: ConversationEntry | None = None
        self._item_id, self._index = "", 0  # of the open one
        self._pieces: list[str] = []  # of the open item
        self._held = held
        self._pieces_held = self._pieces_uncounted = 0
        self._half = ""  # of a character that the last piece was cut through

    @property
    def items(self) -> list[Item]:
        return [entry.item for entry in self.entries]

    def begin(self) -> None:
        """Announces the message, unless the answer may begin with a tool call."""
        if not self._tools:
            self._open_message()

    def append_text(self, piece: str) -> None:
        """Adds text to the open message, or opens one. Raises `AgentFailed` above a limit."""
        if not piece:
            return
        if self._open is None or not isinstance(self._open.item, MessageItem):
            self.close_item("completed")
            self._open_message()
        piece = self._whole_characters(piece)
        if not piece:
            return
        self._count(piece)
        self._emit_text(piece)

    def open_call(self, call: ToolCall) -> None:
        """Begins a tool call. Raises `AgentFailed` if the tool was not offered, or above a limit."""
        if call.name not in self._tools:
            raise AgentFailed("unknown_tool", f"The agent called a tool that it was not offered: {call.name!r:.100}.")
        self.close_item("completed")
        entry = self._next_entry()
        call_id = encodable(call.call_id or "").replace("\0", "")[:CALL_ID_CHARS_MAX] or new_id("call")
        entry.item = FunctionCallItem(
            id=entry.item.id, status="in_progress", call_id=call_id, name=call.name, arguments=""
        )
        self._announce(entry)
        self.append_arguments(call.arguments)

    def append_arguments(self, piece: str) -> None:
        """Adds to the arguments of the open call. Raises `AgentFailed` without one, or above a limit."""
        if self._open is None or not isinstance(self._open.item, FunctionCallItem):
            raise AgentFailed("agent_error", "The agent sent arguments without a call.")
        piece = self._whole_characters(piece)
        self._count(piece)
        if piece:
            self._emit_arguments(self._open.item.call_id, piece)

    def close_item(self, status: ClosedStatus) -> None:
        """Sends the whole content of the open item. Its `done` follows after the response's commit."""
        self._end_half()
        entry = self._open
        if entry is None:
            return
        if isinstance(entry.item, FunctionCallItem) and status == "completed" and not self._pieces:
            self._emit_arguments(entry.item.call_id, "{}")  # clients parse arguments as JSON
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
        self._drop_pieces()

    def stop(self) -> Sequence[ConversationEntry]:
        """Settles the open item without an event; returns all items, as far as they got."""
        if self._open is not None and self._open.item.status == "in_progress":
            self._settle(self._open, "incomplete")
        return self.entries

    async def commit(self, figures: StoredResponse) -> bool:
        """Stores the items in one commit; whether it had the figures too. Raises `StoreError`."""
        if self._reserved is not None:
            self._sink.release(self._reserved)
        return await self._sink.commit(self.entries, figures)

    def acknowledge(self) -> None:
        """Sends the `done` of each item, after the commit."""
        for index, entry in enumerate(self.entries):
            done = server_events.OutputItemDone(response_id=self._response_id, output_index=index, item=entry.item)
            self._outbox.emit(done)
            self._sink.acknowledge(entry)

    def mark_incomplete(self) -> None:
        """For a commit that failed."""
        for entry in self.entries:
            entry.item.status = "incomplete"

    def _whole_characters(self, piece: str) -> str:
        """The piece as UTF-8 and PostgreSQL's text can hold it.

        A model's JSON cuts through pairs of surrogates: a first half waits for the next piece, and one that stays alone
        is replaced.
        """
        if not self._half and piece.isascii() and "\0" not in piece:
            return piece
        piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return encodable(piece).replace("\0", "")

    def _end_half(self) -> None:
        """Nothing follows the half that waits."""
        half, self._half = self._half, ""
        match self._open.item if half and self._open is not None else None:
            case MessageItem():
                self._emit_text(encodable(half))
            case FunctionCallItem(call_id=call_id):
                self._emit_arguments(call_id, encodable(half))

    def _count(self, piece: str) -> None:
        self._chars_left -= len(piece)
        if self._chars_left < 0:
            raise AgentFailed("answer_too_long", f"The answer exceeded {self._chars_max} characters.")

    def _add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._pieces_uncounted += getsizeof(piece) + 8  # and its place in the list
        if self._pieces_uncounted >= COUNT_BYTES:
            self._held(self._pieces_uncounted)
            self._pieces_held += self._pieces_uncounted
            self._pieces_uncounted = 0

    def _drop_pieces(self) -> None:
        if self._pieces_held:
            self._held(-self._pieces_held)
        self._pieces, self._pieces_held, self._pieces_uncounted = [], 0, 0

    def _emit_text(self, piece: str) -> None:
        self._add(piece)
        self._outbox.emit(
            server_events.TextDelta(
                response_id=self._response_id, item_id=self._item_id, output_index=self._index, delta=piece
            )
        )

    def _emit_arguments(self, call_id: str, piece: str) -> None:
        self._add(piece)
        self._outbox.emit(server_events.ArgumentsDelta(**self._where(), call_id=call_id, delta=piece))

    def _open_message(self) -> None:
        self._announce(self._next_entry())
        self._outbox.emit(server_events.ContentPartAdded(**self._where(), part=server_events.TextPart(text="")))

    def _next_entry(self) -> ConversationEntry:
        if len(self.entries) >= OUTPUT_ITEMS_MAX:
            raise AgentFailed("answer_too_long", f"The answer exceeded {OUTPUT_ITEMS_MAX} items.")
        reserved, self._reserved = self._reserved, None
        return reserved or self._sink.reserve(_empty_message(), self.entries[-1])

    def _announce(self, entry: ConversationEntry) -> None:
        self.entries.append(entry)
        self._open, self._item_id, self._index = entry, entry.item.id, len(self.entries) - 1
        self._drop_pieces()
        self._outbox.emit(
            server_events.OutputItemAdded(response_id=self._response_id, output_index=self._index, item=entry.item)
        )
        self._sink.announce(entry)

    def _settle(self, entry: ConversationEntry, status: ClosedStatus) -> None:
        text = "".join(self._pieces)
        entry.item.status = status
        match entry.item:
            case MessageItem() as message:
                message.content = [OutputText(text)]
            case FunctionCallItem() as call:
                call.arguments = text

    def _where(self) -> _Where:
        return {"response_id": self._response_id, "item_id": self._item_id, "output_index": self._index}


class _Where(TypedDict):
    """The fields that every event about an output item has."""

    response_id: str
    item_id: str
    output_index: int


def encodable(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot encode: a model's JSON has them where it cuts a pair."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _empty_message() -> MessageItem:
    return MessageItem(id=new_id("item"), status="in_progress", role="assistant", content=[])
