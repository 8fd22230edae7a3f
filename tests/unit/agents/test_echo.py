"""The echo agent."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio
from lastcall.agents.agent import Message, Piece, Tool, ToolArguments, ToolCall, Turn
from lastcall.agents.echo import DELTAS_MAX, EchoAgent, _echo


def turn(*texts: str) -> Turn:
    return Turn(
        "ada", "conversation", "Be brief.", [Message("user", text, f"item_{n}") for n, text in enumerate(texts)]
    )


async def answer(asked: Turn) -> list[str]:
    async with aclosing(EchoAgent().reply(asked)) as pieces:
        return [piece async for piece in pieces if isinstance(piece, str)]


@pytest.mark.parametrize("text", ["hi", "What is the weather like?", "å" * 5_000])
async def test_the_last_message_is_repeated_in_several_pieces(text: str) -> None:
    pieces = await answer(turn("earlier", text))
    assert text in "".join(pieces)
    assert "earlier" not in "".join(pieces)
    assert 3 <= len(pieces) <= DELTAS_MAX


async def test_an_empty_conversation_is_answered() -> None:
    assert "not said anything" in "".join(await answer(turn()))


async def test_the_named_or_required_tool_is_called() -> None:
    tools = [Tool("first", "", {}), Tool("greet", "", {})]

    async def pieces(text: str, **changes: Any) -> list[Piece]:
        async with aclosing(EchoAgent().reply(replace(turn(text), tools=tools, **changes))) as answer:
            return [piece async for piece in answer]

    assert await pieces("call greet") == [ToolCall("greet"), ToolArguments("{}")]
    assert await pieces('call greet {"a":1}') == [ToolCall("greet"), ToolArguments('{"a":1}')]
    assert await pieces("Hello there", tool_choice="required") == [ToolCall("first"), ToolArguments("{}")]
    assert await pieces("Hello there", tool_choice=tools[1]) == [ToolCall("greet"), ToolArguments("{}")]
    for text, changes in (("call nobody", {}), ("call greet now", {}), ("call greet", {"tool_choice": "none"})):
        assert f"You said: {text}" == "".join(map(str, await pieces(text, **changes)))


CALL_SHAPES = ["call x {", "call x {} ", "call ", "call x", "call x ", "}", "{}", " "]


@pytest.mark.parametrize("shape", CALL_SHAPES)
def test_looking_for_a_call_takes_time_linear_in_the_text(shape: str) -> None:
    def cpu_seconds(characters: int) -> float:
        said = (shape * characters)[:characters] + "."
        asked = replace(turn(said), tools=[Tool("x", "", {})])
        best = 1e9
        for _ in range(3):
            began = time.thread_time()
            assert _echo(asked) == (f"You said: {said}", None)
            best = min(best, time.thread_time() - began)
        return best

    assert cpu_seconds(64_000) < max(cpu_seconds(8_000), 1e-4) * 2.6**3


async def test_an_answer_can_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with aclosing(EchoAgent().reply(turn("a long text to say"))) as pieces:
            async for _ in pieces:
                scope.cancel()
    assert scope.cancelled_caught
