"""Reads a model's answer from the chunks of a stream, or from a whole completion. No I/O.

Chunks are plain JSON: endpoints leave out, or set to null, whatever they like. Only words, calls and the end count; a
part that cannot be read costs itself, not the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ..agent import AgentFailed, CutOff, ToolArguments, ToolCall, Usage
from .chunks import StreamRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..agent import Piece

_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "sensitive"})
_FAILED = frozenset({"error", "network_error", "insufficient_system_resource"})
_UNFINISHED = frozenset({"", "null", "none"})
_TOKENS_MAX = 2**53  # a count; JavaScript reads no higher one
_REASONING = frozenset({"reasoning", "thinking"})


class Answer:
    """Turns the chunks of a stream into an agent's pieces.

    Calls may arrive interleaved: the first is passed on at once, the others are held until the end.

    Args:
        taken_ids: The `call_id`s of the conversation so far.

    Attributes:
        finish: Why the answer ended, as the endpoint says it; None while it goes on.
    """

    def __init__(self, taken_ids: Iterable[str] = ()) -> None:
        self.finish: str | None = None
        self._taken_ids = set(taken_ids)
        self._usage: Usage | None = None
        self._calls: list[_Call] = []
        self._spoke = False

    def take(self, chunk: Any) -> Iterator[Piece]:
        """The pieces of one chunk, a decoded JSON value."""
        if not isinstance(chunk, dict):
            return
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else choices
        choice = choice if isinstance(choice, dict) else {}
        self._usage = _usage(chunk.get("usage")) or _usage(choice.get("usage")) or self._usage
        yield from self._parts(choice.get("delta"))
        yield from self._whole(choice)
        reason = _string(choice.get("finish_reason")).lower()
        if reason in _FAILED:
            raise StreamRefused(choice.get("error") or reason)
        if reason not in _UNFINISHED:
            self.finish = reason

    def done(self) -> None:
        """The endpoint says that its stream is complete; some give no other reason."""
        self.finish = self.finish or "stop"

    def remaining(self) -> Iterator[Piece]:
        """The held pieces, at the end of the stream. Raises `AgentFailed` if the answer is not finished."""
        if self.finish is None:  # some endpoints close the stream cleanly when they fail
            raise AgentFailed("upstream_broken", "The model's endpoint ended its stream in mid-answer.")
        for call in self._calls:
            if not call.passed_on and (call.name or not self._is_of_use()):
                yield ToolCall(call.name, call.arguments, self._own_id(call.call_id))
        if self._usage is not None:
            yield self._usage
        if self.finish in _LENGTH:
            yield CutOff("max_output_tokens")
        elif self.finish in _FILTERED:
            yield CutOff("content_filter")

    def _is_of_use(self) -> bool:
        """Whether there is more than calls without a name, which nobody can run."""
        return self._spoke or any(call.name for call in self._calls)

    def _own_id(self, call_id: str | None) -> str | None:
        """The id, unless another call has it: some endpoints count their calls anew in every answer."""
        if call_id is None or call_id in self._taken_ids:
            return None
        self._taken_ids.add(call_id)
        return call_id

    def _parts(self, delta: Any) -> Iterator[Piece]:
        if not isinstance(delta, dict):
            return
        if text := _text(delta.get("content")) or _text(delta.get("refusal")):
            self._spoke = True
            yield text
        calls = delta.get("tool_calls")
        for each in calls if isinstance(calls, list) else (calls,):
            if isinstance(each, dict):
                yield from self._call(each)
        if isinstance(legacy := delta.get("function_call"), dict):
            yield from self._call({"index": 0, "function": legacy})

    def _whole(self, choice: dict[str, Any]) -> Iterator[Piece]:
        """A whole message, of which only what did not come in pieces counts: some send it after these."""
        message = choice.get("message")
        message = {"content": choice.get("text")} if message is None else message
        if not isinstance(message, dict):
            return
        came = {"content", "refusal"} if self._spoke else set()
        came |= {"tool_calls", "function_call"} if self._calls else set()
        yield from self._parts({key: value for key, value in message.items() if key not in came})

    def _call(self, delta: dict[str, Any]) -> Iterator[Piece]:
        function = delta.get("function")
        function = function if isinstance(function, dict) else delta
        name, arguments = _string(function.get("name")), _arguments(function.get("arguments"))
        index = _index(delta.get("index"))
        call_id = _string(delta.get("id")) or None
        call = self._continued(index, call_id, name, arguments)
        if call is None:
            call = _Call(index, call_id, name, arguments, passed_on=bool(name) and not self._calls)
            self._calls.append(call)
            if call.passed_on:
                yield ToolCall(name, arguments, self._own_id(call_id))
            return
        call.name, call.call_id = call.name or name, call.call_id or call_id
        if arguments.lstrip().startswith("{") and call.is_complete():
            return  # some send the whole after its pieces
        call.arguments += arguments
        if call.passed_on and arguments:
            yield ToolArguments(arguments)

    def _continued(self, index: int | None, call_id: str | None, name: str, arguments: str) -> _Call | None:
        """The call that a delta goes on with; None where it begins another one.

        Some endpoints give all parallel calls the index 0, or none, or a new id with every delta. A name with an id of
        its own, another name, or one with arguments after complete ones, begins a call.
        """
        if index is None:
            known = [call for call in self._calls if call_id is not None and call.call_id == call_id] or self._calls
        else:
            known = [call for call in self._calls if call.index == index]
        if not known:
            return None
        call = known[-1]
        if name and call.name:
            if name != call.name:
                return None
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
    return Usage(prompt, completion, cached) if prompt is not None and completion is not None else None


def _count(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < _TOKENS_MAX else None


def _text(content: Any) -> str:
    """The words of a content: a string, or parts, of which those with other than text are left out."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return "" if content.get("type") in _REASONING else _text(content.get("text") or content.get("value"))
    return _string(content)


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value[:9])
    return value if isinstance(value, int) else None


def _arguments(value: Any) -> str:
    """A piece of JSON; some endpoints send the object itself."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict) else _string(value)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
