"""Extracts the memories of a closed session. The one entry point; which extractor runs is the agent's choice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias

import structlog
import trio

from ..agents.agent import Agent, JsonModel, Memory, RequestUnsupported, Transcript
from .model_extract import memories_by_model

_log = structlog.get_logger(__name__)

RulesExtractor: TypeAlias = Callable[[Transcript], Awaitable[Sequence[Memory]]]
"""Runs the rules on a transcript, wherever that is. Raises `AgentFailed` and `RulesUnavailable`."""


class RulesUnavailable(Exception):
    """The rules cannot run now, whatever the transcript; the server's trouble, not the session's."""


def uses_rules(agent: Agent) -> bool:
    """Whether the rules extract the memories of this agent's sessions."""
    return _finalize(agent) is None and _model(agent) is None


async def rules_in_process(transcript: Transcript) -> Sequence[Memory]:
    """Runs the rules on the event loop: for tests and simulated worlds, which have no long texts."""
    from .rules import memories_by_rules  # not above: its patterns are slow to compile, and the server needs none

    await trio.lowlevel.checkpoint()
    return memories_by_rules(transcript)


async def extract_memories(
    agent: Agent, transcript: Transcript, by_rules: RulesExtractor = rules_in_process
) -> Sequence[Memory]:
    """The memories of a closed session: by the agent itself, by its model, or by the rules.

    Args:
        agent: Its `finalize` is called if it has one; else its `extractor` decides.
        transcript: The session's messages.
        by_rules: Where the rules run.

    Returns:
        The memories, oldest first. Those of the rules and of a model have a quote from the user's own messages.

    Raises:
        AgentFailed: Trying again later may help.
        RulesUnavailable: The rules cannot run now.
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
    return await by_rules(transcript)


def _finalize(agent: Agent) -> Callable[[Transcript], Awaitable[Sequence[Memory]]] | None:
    return getattr(agent, "finalize", None)


def _model(agent: Agent) -> JsonModel | None:
    extractor: Literal["rules"] | JsonModel = getattr(agent, "extractor", "rules")
    return None if extractor == "rules" else extractor
