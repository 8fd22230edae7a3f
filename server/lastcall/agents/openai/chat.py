"""Builds the requests for chat completions, in a shape that any OpenAI-compatible endpoint accepts. No I/O."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..agent import FunctionCall, FunctionOutput, Message, Tool
from ..window import within_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..agent import ContextItem, Turn

MESSAGE_CHARS = 16  # overhead of a message, beside its text
NAME_CHARS_MAX = 64  # of a function; endpoints refuse longer ones
CALL_ID_CHARS_MAX = 40

_Exchange: TypeAlias = tuple[str, FunctionCall, FunctionOutput]  # with its id in the request

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_PLAIN_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{CALL_ID_CHARS_MAX}}}")


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
    chat: list[dict[str, Any]] = [{"role": "system", "content": system}] if system.strip() else []
    chat += _chat(within_budget(items, chars_max - len(system), item_chars=MESSAGE_CHARS, cut_newest=True))
    # Endpoints refuse an empty list, and a client may request a response before the first message.
    return chat or [{"role": "system", "content": "Greet the user."}]


def chars_of(messages: Iterable[Mapping[str, Any]]) -> int:
    """The size of a request, in characters, as `request_messages` counts them."""
    return sum(
        MESSAGE_CHARS
        + len(message.get("content") or "")
        + sum(len(call["function"]["arguments"]) for call in message.get("tool_calls") or ())
        for message in messages
    )


def unchecked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with its messages where the SDK does not look at them.

    Checking each against its types, it would hold up the event loop for 0.3 ms a message; a long conversation has
    thousands.
    """
    body = {**request.get("extra_body", {}), "messages": request["messages"]}
    return {**request, "messages": [], "extra_body": body}


def alternating(messages: Sequence[Mapping[str, Any]], *, system: bool) -> list[dict[str, Any]]:
    """The same messages for a model whose template takes turns of user and assistant only, the user's first
    and last.

    Messages of one role in a row become one. What has role system goes to the top, or, without `system`, to the head of
    the user's first message.
    """
    instructions = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    chat: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        if chat and _may_join(chat[-1], message):
            chat[-1]["content"] += f"\n\n{message['content']}"
        else:
            chat.append(dict(message))
    if not chat or chat[0]["role"] != "user":
        chat.insert(0, {"role": "user", "content": "…"})
    if chat[-1]["role"] == "assistant":
        chat.append({"role": "user", "content": "…"})
    if instructions and system:
        return [{"role": "system", "content": instructions}, *chat]
    if instructions:
        chat[0]["content"] = f"{instructions}\n\n{chat[0]['content']}"
    return chat


def without_calls(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same messages for a model that knows no tools: calls and outputs in words."""
    told: list[dict[str, Any]] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            functions = [call["function"] for call in calls]
            words = "\n".join(f"I look it up: {each['name']}({each['arguments']})" for each in functions)
            told.append({"role": "assistant", "content": words})
        elif message["role"] == "tool":
            told.append({"role": "user", "content": f"The result: {message['content']}"})
        else:
            told.append(dict(message))
    return told


def _may_join(before: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    same = message["role"] == before["role"] and message["role"] in ("user", "assistant")
    return same and "tool_calls" not in message and "tool_calls" not in before


def _chat(items: Sequence[ContextItem]) -> Iterator[dict[str, Any]]:
    """Endpoints refuse a call without its output, an output without its call, and any message between the two.

    Some refuse a message without text too: an answer that was cancelled before its first word.
    """
    outputs = _outputs(items)
    exchanges: list[_Exchange] = []
    ids: set[str] = set()
    for place, item in enumerate(items):
        if isinstance(item, Message):
            yield from _told(exchanges)
            exchanges = []
            if item.text.strip():
                yield {"role": item.role, "content": item.text}
        elif isinstance(item, FunctionCall) and place in outputs:
            call_id = _call_id(item.call_id)
            call_id = call_id if call_id not in ids else _call_id(f"{item.call_id} at {place}")
            ids.add(call_id)
            exchanges.append((call_id, item, outputs[place]))
    yield from _told(exchanges)


def _outputs(items: Sequence[ContextItem]) -> dict[int, FunctionOutput]:
    """The output of each call that has one, by the call's place.

    Agents and clients may give several calls one id: an output is that of the last call before it without one, or else
    of the next.
    """
    outputs: dict[int, FunctionOutput] = {}
    waiting: dict[str, int] = {}
    early: dict[str, FunctionOutput] = {}
    for place, item in enumerate(items):
        if isinstance(item, FunctionCall):
            if (output := early.pop(item.call_id, None)) is not None:
                outputs[place] = output
            else:
                waiting[item.call_id] = place
        elif isinstance(item, FunctionOutput):
            if (called := waiting.pop(item.call_id, None)) is not None:
                outputs[called] = item
            else:
                early[item.call_id] = item
    return outputs


def _told(exchanges: Sequence[_Exchange]) -> Iterator[dict[str, Any]]:
    """Calls that were made together, then their outputs."""
    if not exchanges:
        return
    made = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": _name(call.name), "arguments": _json_object(call.arguments)},
        }
        for call_id, call, _ in exchanges
    ]
    yield {"role": "assistant", "content": None, "tool_calls": made}
    for call_id, _, output in exchanges:
        yield {"role": "tool", "tool_call_id": call_id, "content": output.output}


# What a model or a client once wrote is stored as it is. Endpoints parse it again with every request, and would refuse
# the whole conversation for it from then on.


def _json_object(arguments: str) -> str:
    """The arguments, or an object around what is no JSON object."""
    if not arguments.strip():
        return "{}"
    try:
        if isinstance(msgspec.json.decode(arguments), dict):
            return arguments
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    readable = arguments.encode(errors="replace").decode()
    return msgspec.json.encode({"unreadable_arguments": readable}).decode()


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:NAME_CHARS_MAX] or "unnamed"


def _call_id(call_id: str) -> str:
    if _PLAIN_ID.fullmatch(call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode(errors='replace')).hexdigest()[:24]}"
