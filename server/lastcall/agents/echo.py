"""The echo agent: answers with the user's own words, for trying things out and for tests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio

from .agent import FunctionOutput, Tool, ToolArguments, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .agent import Piece, Turn

DELTAS_MIN = 3  # of a text that is long enough
DELTAS_MAX = 200
DELTA_CHARS = 8

CALL_CHARS_MAX = len("call ") + 64

# Two patterns, neither of which reads to the end of the text: one that did would do so again from each "call".
_CALL_WITH_ARGUMENTS = re.compile(r"\bcall (?P<name>\S{1,64}) (?=\{)")
_CALL = re.compile(r"\bcall (?P<name>\S{1,64})\Z")


class EchoAgent:
    """Repeats the user's last message.

    A message that ends in `call NAME {json}`, where NAME is one of the turn's tools, calls that tool with that JSON
    after repeating the text before it; `call NAME` alone calls it with `{}`. If a call is required and none is named,
    it calls the first tool with `{}`. It answers a tool's output by repeating the output.
    """

    describe = "echo"
    reads_past = False

    async def reply(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        text, call = _echo(turn)
        size = max(min(DELTA_CHARS, len(text) // DELTAS_MIN), -(-len(text) // DELTAS_MAX), 1)
        for start in range(0, len(text), size):
            await trio.lowlevel.checkpoint()
            yield text[start : start + size]
        if call is not None:
            name, arguments = call
            yield ToolCall(name)
            for start in range(0, len(arguments), DELTA_CHARS):
                await trio.lowlevel.checkpoint()
                yield ToolArguments(arguments[start : start + DELTA_CHARS])


def _echo(turn: Turn) -> tuple[str, tuple[str, str] | None]:
    """The text of the answer, and the name and arguments of the tool to call after it."""
    newest = turn.items[-1] if turn.items else None
    if isinstance(newest, FunctionOutput):
        return f"The tool said: {newest.output}", None
    said = next((message.text for message in reversed(turn.messages) if message.role == "user" and message.text), "")
    tools = {tool.name for tool in turn.tools} if turn.tool_choice != "none" else set()
    asked = _asked_call(said.rstrip()) if tools else None
    if asked and asked[1] in tools:
        before, name, arguments = asked
        return f"You said: {before}" if before else "", (name, arguments)
    if isinstance(turn.tool_choice, Tool) or (tools and turn.tool_choice == "required"):
        wanted = turn.tool_choice if isinstance(turn.tool_choice, Tool) else turn.tools[0]
        return "", (wanted.name, "{}")
    return f"You said: {said}" if said else "You have not said anything yet.", None


def _asked_call(said: str) -> tuple[str, str, str] | None:
    """The text before the call that a message ends in, the call's name and its arguments."""
    if said.endswith("}") and (call := _CALL_WITH_ARGUMENTS.search(said)):
        return said[: call.start()].strip(), call["name"], said[call.end() :]
    if call := _CALL.search(said, max(len(said) - CALL_CHARS_MAX, 0)):
        return said[: call.start()].strip(), call["name"], "{}"
    return None
