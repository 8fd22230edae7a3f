"""An item of a conversation, and what is needed to store it and to show it to an agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from ...agents.agent import ContextItem, FunctionCall, FunctionOutput, Message
from ...limits.memory import text_bytes
from ...protocol.ids import new_uuid
from ...protocol.items import FunctionCallItem, FunctionCallOutputItem, Item, MessageItem
from ...store.records import StoredItem
from ..rows import row_kind, row_role

ENTRY_BYTES = 1_000  # of an entry without its content: its objects, and its places in the timeline
PART_BYTES = 48  # of a part of a message's content without its text


def text_of(item: Item) -> str:
    """A message's text, a call's arguments, or an output."""
    match item:
        case MessageItem(content=[part]):  # as nearly all items are
            return part.text
        case MessageItem(content=content):
            return "".join(part.text for part in content)
        case FunctionCallItem(arguments=arguments):
            return arguments
        case FunctionCallOutputItem(output=output):
            return output


def bytes_of(item: Item) -> int:
    """What the entry of an item takes in memory, about. A message of many parts also keeps their text in one piece."""
    match item:
        case MessageItem(content=[part]):
            return ENTRY_BYTES + PART_BYTES + text_bytes(part.text)
        case MessageItem(content=[]):  # each answer, until it is complete
            return ENTRY_BYTES
        case MessageItem(content=parts):
            parts_bytes = sum(PART_BYTES + text_bytes(part.text) for part in parts)
            return ENTRY_BYTES + text_bytes(text_of(item)) + parts_bytes
    return ENTRY_BYTES + text_bytes(text_of(item))


@dataclass(eq=False, slots=True)
class ConversationEntry:
    """An item and what is needed to store it. Its `message_id` makes storing it twice harmless.

    known: the client has been told of it; before that it only reserves its place.
    pending: part of a response whose items are not on their way to the store yet.
    deleted: removed from the conversation while it was pending.
    ceiling: from this position on, items that this session has not loaded may stand between it and the next one; None:
        there are none.
    held: what it takes in memory, as it was counted.
    """

    item: Item
    position: int = 0
    previous_item_id: str | None = None
    message_id: UUID = field(default_factory=new_uuid)
    known: bool = False
    pending: bool = False
    deleted: bool = False
    ceiling: int | None = None
    held: int = 0
    shown: ContextItem | None = None  # as the timeline's context has it
    _seen: ContextItem | None = None  # as agents see it, in this status
    _seen_status: str = ""

    @property
    def bytes(self) -> int:
        """What the entry takes in memory, about."""
        return bytes_of(self.item)

    @property
    def text(self) -> str:
        """A message's text, a call's arguments, or an output."""
        return text_of(self.item)

    def context(self) -> ContextItem | None:
        """The item as agents see it; None for an empty message, one in progress, or an incomplete call.

        Made once: every turn of a long conversation asks for thousands. An item changes only with its status.
        """
        if self._seen_status != self.item.status:
            self._seen, self._seen_status = self._as_seen(), self.item.status
        return self._seen

    def _as_seen(self) -> ContextItem | None:
        match self.item:
            case MessageItem(role=role, status="completed" | "incomplete") if text := self.text:
                return Message(role, text, self.item.id)
            case FunctionCallItem(status="completed") as call:
                return FunctionCall(call.name, call.arguments, call.call_id, call.id)
            case FunctionCallOutputItem(call_id=call_id, output=output):
                return FunctionOutput(call_id, output, self.item.id)
        return None

    def stored(self, session_id: UUID, conversation_id: UUID) -> StoredItem:
        """The item as a row."""
        item = self.item
        return StoredItem(
            message_id=self.message_id,
            session_id=session_id,
            conversation_id=conversation_id,
            item_id=item.id,
            position=self.position,
            role=row_role(item),
            content=self.text,
            status="completed" if item.status == "completed" else "incomplete",
            kind=row_kind(item),
            call_id=None if isinstance(item, MessageItem) else item.call_id,
            name=item.name if isinstance(item, FunctionCallItem) else None,
            deleted=self.deleted,
        )
