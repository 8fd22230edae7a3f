"""Opens the agent that the settings name: local, openai, echo or the user's own."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..runtime.conditions import Conditions
from . import local
from .agent import AgentUnavailable
from .custom import open_factory_agent
from .echo import EchoAgent

if TYPE_CHECKING:
    from ..config import Settings
    from .agent import Agent

NO_KEY = "none"  # the SDK requires a key; endpoints of one's own often do not


def open_agent(settings: Settings, conditions: Conditions | None = None) -> AbstractAsyncContextManager[Agent]:
    """The configured agent, for as long as the `async with` lasts.

    conditions: tell when it is away. Raises `AgentUnavailable`.
    """
    name = settings.agent or ("local" if local.available() else "echo")
    if name == "echo":
        return nullcontext(EchoAgent())
    if name == "local":
        return local.open_local_agent(conditions or Conditions())
    if name == "openai":
        return _openai(settings)
    if ":" in name:
        return open_factory_agent(name)
    raise AgentUnavailable(f"--agent must be local, openai, echo or module:factory, not {name!r}.")


def _openai(settings: Settings) -> AbstractAsyncContextManager[Agent]:
    url = settings.agent_url or os.environ.get("OPENAI_BASE_URL") or None
    key = os.environ.get("LASTCALL_AGENT_KEY") or os.environ.get("OPENAI_API_KEY")
    if not settings.model:
        raise AgentUnavailable("--agent openai needs --model NAME, the model to ask for.")
    if url is not None and not _is_http(url):
        raise AgentUnavailable("--agent-url (or OPENAI_BASE_URL) must be like http://127.0.0.1:11434/v1.")
    if url is None and not key:
        raise AgentUnavailable(
            "--agent openai needs a key in LASTCALL_AGENT_KEY or OPENAI_API_KEY, or an --agent-url of your own."
        )
    from .openai import OpenAIAgent  # the SDK is slow to import: only for those who use it

    return aclosing(OpenAIAgent(base_url=url, api_key=key or NO_KEY, model=settings.model))


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
