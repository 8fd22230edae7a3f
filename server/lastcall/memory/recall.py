"""What a session begins with: the memories of its user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import trio

from ..agents.agent import KnownFact
from ..sessions.registry import Registry
from ..store.records import Recollection, RememberedFact
from ..store.store import Store
from .facts.quoting import quoted_facts
from .facts.redaction import redacted
from .fence import harmless

PENDING_SECONDS_MAX = 0.3  # that a begin waits for memory of the user that is still being finalized
PENDING_POLL_SECONDS = 0.02


async def recall(
    store: Store, registry: Registry, user_id: str, limit: int, begin: Callable[[], Awaitable[Recollection | None]]
) -> Recollection:
    """The user's newest `limit` memories, with what was said in a session that ended a moment ago.

    Where that is still being finalized, on any server, this waits at most `PENDING_SECONDS_MAX` for it.

    Args:
        store: Asked again where there is more to come, and where `begin` cannot tell.
        registry: Of the sessions of this server.
        user_id: The user.
        limit: The number of memories at most.
        begin: Begins the session, and returns what was recalled with it.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    # Asked before the store: an end that is committed in between is pending in the store's answer.
    leaving = registry.is_leaving(user_id)
    found = await begin() or await store.recall(user_id, limit)
    if not (leaving or found.pending):
        return found
    with trio.move_on_after(PENDING_SECONDS_MAX):
        while leaving or found.pending:
            await trio.sleep(PENDING_POLL_SECONDS)
            leaving = registry.is_leaving(user_id)
            found = await store.recall(user_id, limit)
    return found


def known_facts(facts: Sequence[RememberedFact]) -> Sequence[KnownFact]:
    """The facts as agents get them, harmless to show and without secrets."""
    return [KnownFact(redacted(harmless(fact.content)), fact.slot, fact.said_at) for fact in facts]


def briefing(known: Recollection, conversation_id: UUID | None = None) -> str:
    """The part of an agent's instructions that holds what is known of the user; empty for a stranger.

    conversation_id: that the session is in; what it begins with itself is not told again.
    """
    last = known.last if known.last and known.last.conversation_id != conversation_id else None
    return quoted_facts(known.facts, last)
