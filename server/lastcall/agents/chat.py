"""Chat completions: builds requests and reads streams of OpenAI-compatible endpoints. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .agent import AgentFailed, CutOff, FunctionCall, FunctionOutput, Message, Tool, ToolArguments, ToolCall, Usage
from .window import within_budget

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .agent import ContextItem, Piece, Turn

MESSAGE_CHARS = 16  # overhead of a message, beside its text


class Answer:
    """Turns the chunks of a stream into an agent's pieces.

    Calls are numbered and may arrive interleaved: the first is passed on at once, the others are held until the end.
    """

    def __init__(self) -> None:
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._current: int | None = None
        self._waiting: dict[int, ToolCall] = {}

    def take(self, chunk: Any) -> Iterator[Piece]:
        """The pieces of one chunk."""
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            cached = (details.cached_tokens if details else None) or 0
            self._usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cached)
        for choice in chunk.choices[:1]:
            self._finish = choice.finish_reason or self._finish
            if text := choice.delta.content or choice.delta.refusal:
                yield text
            for delta in choice.delta.tool_calls or ():
                yield from self._call(delta)

    def _call(self, delta: Any) -> Iterator[Piece]:
        function = delta.function
        name, arguments = (function.name or "", function.arguments or "") if function else ("", "")
        if delta.index == self._current:
            if arguments:
                yield ToolArguments(arguments)
        elif self._current is None:
            self._current = delta.index
            yield ToolCall(name, arguments, delta.id)
        else:
            known = self._waiting.get(delta.index, ToolCall(""))
            self._waiting[delta.index] = ToolCall(
                known.name or name, known.arguments + arguments, known.call_id or delta.id
            )

    def finish(self) -> Iterator[Piece]:
        """The remaining pieces, at the end of the stream. Raises `AgentFailed` if the answer is not finished."""
        if self._finish is None:  # some endpoints close the stream cleanly when they fail
            raise AgentFailed("upstream_broken", "The model's endpoint ended its stream in mid-answer.")
        yield from self._waiting.values()
        if self._usage is not None:
            yield self._usage
        if self._finish == "length":
            yield CutOff("max_output_tokens")
        elif self._finish == "content_filter":
            yield CutOff("content_filter")


def tool_parameters(turn: Turn) -> dict[str, Any]:
    """The request's parameters about tools."""
    if not turn.tools:
        return {}
    choice = turn.tool_choice
    parameters: dict[str, Any] = {
        "tools": [{"type": "function", "function": _function(tool)} for tool in turn.tools],
        "tool_choice": {"type": "function", "function": {"name": choice.name}} if isinstance(choice, Tool) else choice,
    }
    if turn.parallel_tool_calls is not None:
        parameters["parallel_tool_calls"] = turn.parallel_tool_calls
    return parameters


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def request_messages(instructions: str, items: Sequence[ContextItem], chars_max: int) -> list[dict[str, Any]]:
    """The request's messages: the instructions, then the newest items that fit.

    Instructions take at most half of `chars_max`; a newest message that is itself too long is cut to its end.
    """
    system = instructions[: chars_max // 2]
    chat: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    chat += _chat(within_budget(items, chars_max - len(system), item_chars=MESSAGE_CHARS, cut_newest=True))
    # Endpoints refuse an empty list, and a client may request a response before the first message.
    return chat or [{"role": "system", "content": "Greet the user."}]


def _chat(items: Sequence[ContextItem]) -> Iterator[dict[str, Any]]:
    """Endpoints refuse a call without its output, an output without its call, and any message between the two."""
    outputs = {item.call_id: item for item in items if isinstance(item, FunctionOutput)}
    calls: list[FunctionCall] = []
    for item in items:
        if isinstance(item, Message):
            yield from _exchange(calls, outputs)
            calls = []
            yield {"role": item.role, "content": item.text}
        elif isinstance(item, FunctionCall) and item.call_id in outputs:
            calls.append(item)
    yield from _exchange(calls, outputs)


def _exchange(calls: Sequence[FunctionCall], outputs: Mapping[str, FunctionOutput]) -> Iterator[dict[str, Any]]:
    """Calls that were made together, then their outputs."""
    if not calls:
        return
    made = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    yield {"role": "assistant", "content": None, "tool_calls": made}
    for call in calls:
        yield {"role": "tool", "tool_call_id": call.call_id, "content": outputs[call.call_id].output}
