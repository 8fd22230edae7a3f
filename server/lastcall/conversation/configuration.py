"""What a conversation starts with, what `session.update` may set of it, and what an absent or null value means."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Struct

from ..protocol.client_events import SessionPatch, SessionUpdate
from ..protocol.ids import public_id
from ..protocol.server_events import RealtimeSession
from ..sessions.session import Session
from ..store.records import Recollection, StoredItem
from .turns import with_briefing
from .validation import known_choice, offered_tools, refusal


class Opening(Struct, frozen=True, kw_only=True):
    """What a conversation starts with.

    known: what is remembered of the user; it stays in the instructions whatever the client sets.
    history: stored items, oldest first, as context for the agent.
    older: how many of them, from the first on, are of role system and from before the newest items.
    replay: how many of the newest history items are sent to the client.
    expires_at: when the session expires, in Unix seconds.
    """

    model: str
    instructions: str
    known: Recollection
    history: Sequence[StoredItem]
    older: int = 0
    replay: int
    expires_at: int

    def loaded_from(self, limit: int) -> int | None:
        """The position from which on all items are in the history of at most `limit`; None: it has all there are."""
        return self.history[self.older].position if len(self.history) - self.older >= limit else None


def config_of(session: Session, opening: Opening, briefing: str) -> RealtimeSession:
    """What the client is told of its session at the start. briefing: see `memory.recall.briefing`."""
    return RealtimeSession(
        id=session.public_id,
        model=opening.model,
        instructions=with_briefing(opening.instructions, briefing),
        expires_at=opening.expires_at,
        conversation_id=public_id("conv", session.conversation_id),
        user=session.user_id,
    )


def check_patch(event: SessionUpdate) -> None:
    """Raises `EventRejected` where the patch has values that are not accepted."""
    patch = event.session
    if patch.type != "realtime":
        message = f"Sessions of type {patch.type!r:.100} are not supported."
        raise refusal(event, "invalid_value", message, "session.type")
    if patch.prompt:
        message = "Stored prompts are not supported; send instructions instead."
        raise refusal(event, "invalid_value", message, "session.prompt")
    if patch.tools:
        offered_tools(event, patch.tools, "session.tools")
    if patch.tool_choice:
        known_choice(event, patch.tool_choice, "session.tool_choice")


def apply_patch(config: RealtimeSession, patch: SessionPatch, *, instructions: str, briefing: str) -> None:
    """Sets the values that are present: null sets the default, and absent ones stay.

    instructions: the default. briefing: what is remembered of the user; it stays whatever the client sets.
    """
    if patch.instructions is not UNSET:
        config.instructions = with_briefing(patch.instructions or instructions, briefing)
    if patch.tools is not UNSET:
        config.tools = patch.tools or []
    if patch.tool_choice is not UNSET:
        config.tool_choice = patch.tool_choice or "auto"
    if patch.parallel_tool_calls is not UNSET:
        config.parallel_tool_calls = UNSET if patch.parallel_tool_calls is None else patch.parallel_tool_calls
    if patch.max_output_tokens is not UNSET:
        config.max_output_tokens = patch.max_output_tokens or "inf"
    if patch.tracing is not UNSET:
        config.tracing = patch.tracing or None
    if patch.truncation is not UNSET:
        config.truncation = patch.truncation or "auto"
