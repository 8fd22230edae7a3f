"""The tool by which a model searches the user's earlier conversations; the agent answers it, not the client. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from ..agent import CutOff, FunctionCall, FunctionOutput, Tool, ToolArguments, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..agent import Piece, Turn

ROUNDS_MAX = 3  # of one answer: requests after which the model may still search
QUERY_CHARS_MAX = 500
NOTHING = "Nothing was found."
MEMORY_SEARCH = Tool(
    name="memory_search",
    description=(
        "Searches what this user and you said in earlier conversations. Use it where the user refers to something that"
        " is not in this conversation."
    ),
    parameters={
        "type": "object",
        "properties": {"query": {"type": "string", "description": "A few words that were probably said."}},
        "required": ["query"],
        "additionalProperties": False,
    },
)


class Searching:
    """The rounds of one answer: the model searches, is told what was found, and goes on.

    An answer that also calls a tool of the client's ends there, and its searches are dropped.

    Args:
        turn: As the server asked for it.
        offered: Whether the model may be told of tools.

    Attributes:
        turn: The turn of the next request.
    """

    def __init__(self, turn: Turn, *, offered: bool) -> None:
        self._offered = offered and _is_free(turn)
        self._tools = turn.tools
        self.turn = replace(turn, tools=[*turn.tools, MEMORY_SEARCH]) if self._offered else turn
        self._rounds = 0
        self._calls: list[tuple[str, list[str]]] = []  # ids and pieces of arguments, of this round
        self._is_own = False  # the call that arguments belong to
        self._is_over = False
        self._spoke = False
        self._spoke_before = False  # and searched since: a new paragraph begins
        self._usage: Usage | None = None

    def pass_on(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces without the model's searches."""
        if not self._offered:
            yield from pieces
            return
        for piece in pieces:
            if isinstance(piece, ToolCall):
                self._is_own = piece.name == MEMORY_SEARCH.name
                if self._is_own:
                    self._calls.append(
                        (piece.call_id or f"search_{self._rounds}_{len(self._calls)}", [piece.arguments])
                    )
                else:
                    self._is_over = True
                    yield piece
            elif isinstance(piece, ToolArguments) and self._is_own:
                self._calls[-1][1].append(piece.text)
            elif isinstance(piece, Usage):
                self._usage = _sum(self._usage, piece)
            else:
                self._is_over |= isinstance(piece, CutOff)
                if isinstance(piece, str):
                    yield from ["\n\n"] if self._spoke_before else []
                    self._spoke, self._spoke_before = True, False
                yield piece

    async def go_on(self) -> bool:
        """Answers the searches of the round that is over. False: the answer is complete."""
        search = self.turn.search
        if self._is_over or not self._calls or search is None or self._rounds == ROUNDS_MAX:
            return False
        self._rounds += 1
        told = list(self.turn.items or self.turn.messages)
        calls = [FunctionCall(MEMORY_SEARCH.name, "".join(parts), call_id, "") for call_id, parts in self._calls]
        found = [await search(_query(call.arguments)) or NOTHING for call in calls]
        told += calls
        told += [FunctionOutput(call.call_id, each, "") for call, each in zip(calls, found, strict=True)]
        tools = self.turn.tools if self._rounds < ROUNDS_MAX else self._tools
        self.turn = replace(self.turn, items=told, tools=tools)
        self._calls, self._spoke_before = [], self._spoke
        return True

    def usage(self) -> Iterator[Usage]:
        """The tokens of all rounds."""
        if self._usage is not None:
            yield self._usage


def _is_free(turn: Turn) -> bool:
    """Whether the model may choose what it calls, and no tool of the client's has this name."""
    named = any(tool.name == MEMORY_SEARCH.name for tool in turn.tools)
    return turn.search is not None and turn.tool_choice == "auto" and not named


def _query(arguments: str) -> str:
    """What is searched for: the argument, or all of what a sloppy model wrote instead."""
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = arguments
    query = found.get("query") if isinstance(found, dict) else found
    return (query if isinstance(query, str) else arguments)[:QUERY_CHARS_MAX]


def _sum(before: Usage | None, usage: Usage) -> Usage:
    if before is None:
        return usage
    cached = [each.cached_tokens for each in (before, usage) if each.cached_tokens is not None]
    return Usage(
        before.input_tokens + usage.input_tokens,
        before.output_tokens + usage.output_tokens,
        sum(cached) if cached else None,
    )
