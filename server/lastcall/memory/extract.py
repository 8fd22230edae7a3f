"""Extracts the memories of a closed session. The one entry point; which extractor runs is the agent's choice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Literal, TypeAlias

import structlog
import trio

from ..agents.agent import (
    Agent,
    AgentFailed,
    JsonModel,
    Memory,
    ModelUnavailable,
    RequestUnsupported,
    Transcript,
)
from ..store.people.memories import StoredMemory
from .by_model.model_extract import ListUnusable, answers, memories_by_model

_log = structlog.get_logger(__name__)

RulesExtractor: TypeAlias = Callable[[Transcript], Awaitable[Sequence[Memory]]]
"""Runs the rules on a transcript, wherever that is. Raises `AgentFailed` and `RulesUnavailable`."""


class SessionRefused(AgentFailed):
    """The model fails on this session, and answers others. Once, that may also be an outage that has just ended."""


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


KnownMemories: TypeAlias = Callable[[], Awaitable[Sequence[StoredMemory]]]
"""Loads what is known of the transcript's user, newest first. Raises `StoreError`."""


async def nothing_known() -> Sequence[StoredMemory]:
    """Of a user who is a stranger."""
    await trio.lowlevel.checkpoint()
    return ()


async def extract_memories(
    agent: Agent,
    transcript: Transcript,
    by_rules: RulesExtractor = rules_in_process,
    *,
    known: KnownMemories = nothing_known,
    model_seconds: float = inf,
    without_model: bool = False,
) -> Sequence[Memory]:
    """The memories of a closed session: by the agent itself, by its model, or by the rules.

    The rules also remember what the model refuses to read, and where it gives no list that can be used.

    Args:
        agent: Its `finalize` is called if it has one; else its `extractor` decides.
        transcript: The session's messages.
        by_rules: Where the rules run.
        known: What is known of the user; a model is told of it.
        model_seconds: How long the model may take.
        without_model: Use the rules in place of the model.

    Returns:
        The memories, oldest first. Those of the rules and of a model have a quote from the user's own messages.

    Raises:
        ModelUnavailable: The model is away, whatever the transcript.
        SessionRefused: The model is there, but fails on this transcript.
        AgentFailed: Trying again later may help.
        RulesUnavailable: The rules cannot run now.
        StoreError: What is known could not be loaded.
        Exception: Whatever the agent's own `finalize` or model raises.
    """
    finalize = _finalize(agent)
    if finalize is not None:
        return await finalize(transcript)
    model = _model(agent)
    if model is not None and not without_model:
        try:
            return await _by_model(model, transcript, await known(), model_seconds)
        except RequestUnsupported as error:
            _log.warning("memory_model_refused", session_id=transcript.session_id, reason=str(error))
        except ListUnusable as error:
            _log.warning("memory_list_unusable", session_id=transcript.session_id, reason=str(error))
    return await by_rules(transcript)


async def _by_model(
    model: JsonModel, transcript: Transcript, known: Sequence[StoredMemory], seconds: float
) -> Sequence[Memory]:
    """Asks the model; where it fails, finds out whether that is an outage or about this transcript."""
    try:
        try:
            with trio.fail_after(seconds):
                return await memories_by_model(model, transcript, known)
        except trio.TooSlowError:
            sentence = f"The model took longer than {seconds:g} s."
            raise ModelUnavailable("upstream_timeout", sentence, certain=False) from None
    except ModelUnavailable as error:
        if error.certain or not await answers(model):
            raise
        raise SessionRefused(error.code, str(error)) from error


def _finalize(agent: Agent) -> Callable[[Transcript], Awaitable[Sequence[Memory]]] | None:
    return getattr(agent, "finalize", None)


def _model(agent: Agent) -> JsonModel | None:
    extractor: Literal["rules"] | JsonModel = getattr(agent, "extractor", "rules")
    return None if extractor == "rules" else extractor
