"""The user's own agent, from `--agent module:factory`."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextlib import asynccontextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import trio

from .agent import AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .agent import Agent

CLOSE_SECONDS = 2.0  # for the agent's own clean-up

_log = structlog.get_logger(__name__)


class FactoryAgent:
    """The user's agent, described by the setting that names it."""

    def __init__(self, describe: str, agent: Agent) -> None:
        self.describe = describe
        self.reply = agent.reply
        self._agent = agent
        self.finalize = getattr(agent, "finalize", None)
        self.extractor = getattr(agent, "extractor", "rules")
        self.reads_past = bool(getattr(agent, "reads_past", True))

    @property
    def model(self) -> object:
        """Whatever the user's agent says now: it may choose another one for each answer."""
        return getattr(self._agent, "model", None)


@asynccontextmanager
async def open_factory_agent(spec: str) -> AsyncIterator[Agent]:
    """The agent of `module:factory`, until the block is left. Raises `AgentUnavailable`."""
    agent = _made(spec)
    try:
        yield FactoryAgent(spec, agent)
    finally:
        await _close(agent, spec)


async def _close(agent: Agent, spec: str) -> None:
    """Errors are only logged: the server is shutting down."""
    close = getattr(agent, "aclose", None)
    if close is None:
        return
    with trio.move_on_after(CLOSE_SECONDS, shield=True):
        try:
            await close()
        except Exception:  # noqa: BLE001 - it is the user's code
            _log.exception("agent_close_failed", agent=spec)


def _made(spec: str) -> Agent:
    """Calls the factory, and checks that it returns an agent."""
    factory = _imported(spec)
    if not callable(factory) or inspect.iscoroutinefunction(factory):
        raise AgentUnavailable(
            f"--agent {spec}: the factory must be a plain function or class, called without arguments."
        )
    try:
        agent = factory()
    except Exception as error:
        raise AgentUnavailable(f"--agent {spec}: the factory failed: {_one_line(error)}") from error
    if not callable(getattr(agent, "reply", None)):
        raise AgentUnavailable(f"--agent {spec}: the object that the factory returned has no reply() method.")
    if inspect.iscoroutinefunction(agent.reply):
        raise AgentUnavailable(f"--agent {spec}: reply() must be an async generator that yields text.")
    extractor = getattr(agent, "extractor", "rules")
    if extractor != "rules" and not callable(getattr(extractor, "complete_json", None)):
        raise AgentUnavailable(f'--agent {spec}: extractor must be "rules" or have a complete_json() method.')
    made: Agent = agent
    return made


def _imported(spec: str) -> Any:
    module, _, attribute = spec.partition(":")
    if not module or not attribute:
        raise AgentUnavailable(f"--agent must be like module:factory, not {spec!r}.")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # a console script's path starts in the script's folder
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        raise AgentUnavailable(f"--agent {spec}: cannot import {module!r}: {_one_line(error)}") from error
    try:
        return attrgetter(attribute)(imported)
    except AttributeError:
        raise AgentUnavailable(f"--agent {spec}: module {module!r} has no {attribute!r}.") from None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
