"""The bundled model: a small language model that runs on this machine."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Literal

from ..embedded.supervisor import supervised
from .agent import AgentFailed, AgentUnavailable
from .answering import fact_that_answers, quotation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ..embedded.model import LocalModel
    from ..runtime.conditions import Conditions
    from .agent import Agent, Piece, Turn
    from .openai import OpenAIAgent

NAME = "local model"
MODEL = "SmolLM2-135M"
CONTEXT_CHARS_MAX = 9_000  # of a slot's 4,096 tokens; leaves room for the answer
OUTPUT_TOKENS_MAX = 256
TEMPERATURE = 0.2  # at the usual 0.8, so small a model rambles
SAMPLING = {"repeat_penalty": 1.1}  # without it, so small a model repeats one sentence forever
READ_SECONDS = 120.0  # a request may wait for a free slot


def available() -> bool:
    """Whether the bundled model is installed."""
    from ..embedded import model

    return model.available()


class LocalAgent:
    """Answers with the bundled model, whose process may have been restarted since the last turn."""

    describe = f"{MODEL} (bundled)"
    model = MODEL
    extractor: Literal["rules"] = "rules"

    def __init__(self, server: LocalModel) -> None:
        self._server = server
        self._address: tuple[str, str] | None = None
        self._agent: OpenAIAgent | None = None

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        agent = await self._reached()
        asked = turn.messages[-1] if turn.messages else None
        if asked is not None and asked.role == "user":
            fact = fact_that_answers(asked.text, turn.facts)
            if fact is not None:  # so small a model does not use what it is told
                yield quotation(fact)
        async with aclosing(agent.reply(turn)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        if self._agent is not None:
            await self._agent.aclose()

    async def _reached(self) -> OpenAIAgent:
        """The agent of the process that runs now."""
        address = self._server.address
        if address is None:
            raise AgentFailed(
                "upstream_unreachable", "The bundled model is being restarted. Please try again in a moment."
            )
        if self._agent is None or address != self._address:
            before, self._agent, self._address = self._agent, _agent_at(*address), address
            if before is not None:
                await before.aclose()
        return self._agent


def _agent_at(base_url: str, api_key: str) -> OpenAIAgent:
    from .openai import OpenAIAgent

    return OpenAIAgent(
        base_url=base_url,
        api_key=api_key,
        model=MODEL,
        context_chars_max=CONTEXT_CHARS_MAX,
        output_tokens_max=OUTPUT_TOKENS_MAX,
        temperature=TEMPERATURE,
        sampling=SAMPLING,
        read_seconds=READ_SECONDS,
        extractor="rules",
        calls_tools=False,  # told of tools, so small a model answers with nothing but calls
    )


@asynccontextmanager
async def open_local_agent(conditions: Conditions) -> AsyncIterator[Agent]:
    """The agent of the bundled model, until the block is left. Raises `AgentUnavailable`."""
    from ..embedded import model

    if not model.available():
        raise AgentUnavailable(f"The bundled model is not installed; {model.INSTALL}, or use --agent echo.")
    async with AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(model.open_local_model())
        except model.LocalModelError as error:
            raise AgentUnavailable(str(error)) from error
        await stack.enter_async_context(supervised(NAME, running, conditions))
        yield await stack.enter_async_context(aclosing(LocalAgent(running)))
