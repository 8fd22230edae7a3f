"""What operators do with what is stored of a person."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ..operators.acts import Actor
from ..reports import Rows

EXPORT_PAGE_ROWS = 200
POSITION_BEFORE_ALL = -(2**63)


@dataclass(frozen=True, slots=True)
class ErasedReport:
    """How much was stored of a user who is erased."""

    user_id: str
    sessions: int
    messages: int
    memories: int


async def edit_memory(store: Rows, user: str, memory_id: int, content: str, words: Sequence[str]) -> bool:
    """Changes what a memory says. False: the user has no such memory."""
    return bool(await store.fetch("edit_memory", user, memory_id, content, list(words)))


async def erase_user(store: Rows, user: str, by: Actor) -> ErasedReport:
    """Deletes everything that is stored of a user, and closes their sessions, in one transaction."""
    (row,) = await store.fetch("erase_user", *by.columns, user)
    erased: dict[str, int] = json.loads(row["erased"])
    return ErasedReport(user, erased["sessions"], erased["messages"], erased["memories"])


async def export_user(store: Rows, user: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Everything that is stored of a user, one record at a time: what it is, and its columns."""
    for row in await store.fetch("export_memories", user):
        yield "memories", dict(row)
    for row in await store.fetch("export_sessions", user):
        yield "sessions", dict(row)
    async for response in _responses(store, user):
        yield "responses", response
    for row in await store.fetch("export_conversations", user):
        yield "conversations", dict(row)
        async for message in _messages(store, row["conversation_id"], user):
            yield "messages", message
    for row in await store.fetch("export_deliveries", user):
        yield "webhook_deliveries", dict(row)


async def export_lines(store: Rows, user: str) -> AsyncIterator[str]:
    """Everything that is stored of a user, as JSON: a line for each record, whose `type` says what it is."""
    async for kind, record in export_user(store, user):
        yield json.dumps({"type": kind, **record}, default=_plain, ensure_ascii=False)


def _plain(value: object) -> str:
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)


async def _messages(store: Rows, conversation_id: UUID, user: str) -> AsyncIterator[dict[str, Any]]:
    behind = (POSITION_BEFORE_ALL, UUID(int=0))
    while page := await store.fetch("export_messages", conversation_id, user, *behind, EXPORT_PAGE_ROWS):
        for row in page:
            yield {**dict(row), "conversation_id": conversation_id}
        behind = (page[-1]["position"], page[-1]["message_id"])


async def _responses(store: Rows, user: str) -> AsyncIterator[dict[str, Any]]:
    behind = (UUID(int=0), UUID(int=0))
    while page := await store.fetch("export_responses", user, *behind, EXPORT_PAGE_ROWS):
        for row in page:
            yield dict(row)
        behind = (page[-1]["session_id"], page[-1]["response_id"])
