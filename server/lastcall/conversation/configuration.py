"""The session's configuration: what `session.update` may set, and what an absent or null value means."""

from __future__ import annotations

from msgspec import UNSET

from ..protocol.client_events import SessionPatch, SessionUpdate
from ..protocol.server_events import RealtimeSession
from .turns import with_briefing
from .validation import known_choice, offered_tools, refusal


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
