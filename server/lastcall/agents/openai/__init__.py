"""The agent behind any endpoint that speaks OpenAI's chat completions."""

from .openai_agent import OpenAIAgent

__all__ = ["OpenAIAgent"]
