"""Extracts the memories of a closed session. The one entry point; which extractor runs is the agent's choice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import structlog

from ..agents.agent import Agent, JsonModel, Memory, RequestUnsupported, Transcript
from .model_extract import memories_by_model

_log = structlog.get_logger(__name__)


def prepare_extraction(agent: Agent) -> None:
    """Imports the rules if the agent uses them: the first session to end must not stall the server for that long."""
    if _finalize(agent) is None and _model(agent) is None:
        from . import rules  # noqa: F401


async def extract_memories(agent: Agent, transcript: Transcript) -> Sequence[Memory]:
    """The memories of a closed session: by the agent itself, by its model, or by the rules.

    Args:
        agent: Its `finalize` is called if it has one; else its `extractor` decides.
        transcript: The session's messages.

    Returns:
        The memories, oldest first. Those of the rules and of a model have a quote from the user's own messages.

    Raises:
        AgentFailed: Trying again later may help.
        Exception: Whatever the agent's own `finalize` raises.
    """
    finalize = _finalize(agent)
    if finalize is not None:
        return await finalize(transcript)
    model = _model(agent)
    if model is not None:
        try:
            return await memories_by_model(model, transcript)
        except RequestUnsupported:
            _log.warning("memory_model_refused", session_id=transcript.session_id)
    from .rules import memories_by_rules  # not above: its patterns are slow to compile, and a model needs none

    return memories_by_rules(transcript)


def _finalize(agent: Agent) -> Callable[[Transcript], Awaitable[Sequence[Memory]]] | None:
    return getattr(agent, "finalize", None)


def _model(agent: Agent) -> JsonModel | None:
    extractor: Literal["rules"] | JsonModel = getattr(agent, "extractor", "rules")
    return None if extractor == "rules" else extractor
