"""Reads a model's answer from the chunks of a stream, or from a whole completion. No I/O.

Chunks are plain JSON: endpoints leave out, or set to null, whatever they like. Only words, calls and the end count; a
part that cannot be read costs itself, not the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ..agent import AgentFailed, CutOff, ToolArguments, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..agent import Piece

_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "sensitive"})


class Answer:
    """Turns the chunks of a stream into an agent's pieces.

    Calls may arrive interleaved: the first is passed on at once, the others are held until the end.

    Attributes:
        finish: Why the answer ended, as the endpoint says it; None while it goes on.
    """

    def __init__(self) -> None:
        self.finish: str | None = None
        self._usage: Usage | None = None
        self._calls: list[_Call] = []
        self._spoke = False

    def take(self, chunk: Any) -> Iterator[Piece]:
        """The pieces of one chunk, a decoded JSON value."""
        if not isinstance(chunk, dict):
            return
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        choice = choice if isinstance(choice, dict) else {}
        self._usage = _usage(chunk.get("usage")) or _usage(choice.get("usage")) or self._usage
        yield from self._parts(self._delta(choice))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish = reason.lower()

    def done(self) -> None:
        """The endpoint says that its stream is complete; some give no other reason."""
        self.finish = self.finish or "stop"

    def remaining(self) -> Iterator[Piece]:
        """The held pieces, at the end of the stream. Raises `AgentFailed` if the answer is not finished."""
        if self.finish is None:  # some endpoints close the stream cleanly when they fail
            raise AgentFailed("upstream_broken", "The model's endpoint ended its stream in mid-answer.")
        for call in self._calls:
            if not call.passed_on:
                yield ToolCall(call.name, call.arguments, call.call_id)
        if self._usage is not None:
            yield self._usage
        if self.finish in _LENGTH:
            yield CutOff("max_output_tokens")
        elif self.finish in _FILTERED:
            yield CutOff("content_filter")

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        """What a choice adds. A whole message counts only where nothing came before: some send it after its pieces."""
        delta = choice.get("delta")
        if isinstance(delta, dict):
            return delta
        whole = choice.get("message")
        return whole if isinstance(whole, dict) and not (self._spoke or self._calls) else {}

    def _parts(self, delta: dict[str, Any]) -> Iterator[Piece]:
        if text := _text(delta.get("content")) or _text(delta.get("refusal")):
            self._spoke = True
            yield text
        calls = delta.get("tool_calls")
        for each in calls if isinstance(calls, list) else ():
            if isinstance(each, dict):
                yield from self._call(each)
        if isinstance(legacy := delta.get("function_call"), dict):
            yield from self._call({"index": 0, "function": legacy})

    def _call(self, delta: dict[str, Any]) -> Iterator[Piece]:
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = _string(function.get("name")), _arguments(function.get("arguments"))
        index = delta.get("index") if isinstance(delta.get("index"), int) else None
        call_id = _string(delta.get("id")) or None
        call = self._continued(index, call_id, name, arguments)
        if call is None:
            call = _Call(index, call_id, name, arguments, passed_on=bool(name) and not self._calls)
            self._calls.append(call)
            if call.passed_on:
                yield ToolCall(name, arguments, call_id)
            return
        call.name, call.call_id = call.name or name, call.call_id or call_id
        call.arguments += arguments
        if call.passed_on and arguments:
            yield ToolArguments(arguments)

    def _continued(self, index: int | None, call_id: str | None, name: str, arguments: str) -> _Call | None:
        """The call that a delta goes on with; None where it begins another one.

        Some endpoints give all parallel calls the index 0, or none, or a new id with every delta. A name with an id of
        its own, or with arguments after complete ones, begins a call.
        """
        if index is None:
            known = [call for call in self._calls if call_id is not None and call.call_id == call_id] or self._calls
        else:
            known = [call for call in self._calls if call.index == index]
        if not known:
            return None
        call = known[-1]
        if name and call.name:
            if call_id and call.call_id:
                return call if call_id == call.call_id else None
            if arguments and call.is_complete():
                return None
        return call


@dataclass(slots=True)
class _Call:
    """One call so far. passed_on: whether it is streamed as it comes."""

    index: int | None
    call_id: str | None
    name: str
    arguments: str
    passed_on: bool

    def is_complete(self) -> bool:
        if not self.arguments.rstrip().endswith("}"):  # cheap, for endpoints that repeat the name with every piece
            return False
        try:
            msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, UnicodeError):
            return False
        return True


def _usage(counted: Any) -> Usage | None:
    """The tokens that were counted; None where a count is missing."""
    if not isinstance(counted, dict):
        return None
    details = counted.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    prompt, completion = _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))
    return Usage(prompt, completion, cached or 0) if prompt is not None and completion is not None else None


def _count(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < float("inf") else None


def _text(content: Any) -> str:
    """The words of a content: a string, or a list of parts, of which those with other than text are left out."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return _string(content)


def _arguments(value: Any) -> str:
    """A piece of JSON; some endpoints send the object itself."""
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else _string(value)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
