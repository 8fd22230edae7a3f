"""The command loop that the Python client programs share.

A program reads one JSON object a line, `{"do": verb, "with": [arguments]}`, and answers `{"done": result}` or
`{"failed": why}`; its first answer, unasked, is `"ready"`. Every frame that its client receives goes out before that,
as `{"frame": event}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

TOOL_NAME = "get_weather"
TOOL_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "name": TOOL_NAME,
    "description": "The weather in a city.",
    "parameters": TOOL_PARAMETERS,
}


def weather(city: str) -> str:
    """The tool's output."""
    return f"sunny in {city}"


def told(output: str) -> tuple[str, str]:
    """What the agent answers to a tool's output: some frameworks send it as JSON."""
    return f"The tool said: {output}", f"The tool said: {json.dumps(output)}"


def item(text: str) -> Any:
    """A user's message."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def tell(kind: str, content: object) -> None:
    """Writes a line for the test."""
    sys.stdout.write(json.dumps({kind: content}) + "\n")
    sys.stdout.flush()


def tell_frame(event: Any) -> None:
    """A received event, with exactly the keys that it had on the wire."""
    tell("frame", event.to_dict(mode="json", exclude_unset=True))


def read_request() -> tuple[str, list[Any]] | None:
    """The next verb and its arguments; None at the end."""
    line = sys.stdin.readline()
    if not line:
        return None
    request = json.loads(line)
    return request["do"], request["with"]


def converse(client: object) -> None:
    """Calls a synchronous client's methods as requested, until the end of the input."""
    tell("done", "ready")
    while (request := read_request()) is not None:
        verb, arguments = request
        method: Callable[..., object] = getattr(client, verb)
        try:
            tell("done", method(*arguments))
        except Exception:  # noqa: BLE001 - the test is told
            tell("failed", traceback.format_exc())


async def converse_async(client: object) -> None:
    """Does the same with an asynchronous client. Its loop keeps running between requests."""
    tell("done", "ready")
    while (request := await asyncio.to_thread(read_request)) is not None:
        verb, arguments = request
        method: Callable[..., Awaitable[object]] = getattr(client, verb)
        try:
            tell("done", await method(*arguments))
        except Exception:  # noqa: BLE001 - the test is told
            tell("failed", traceback.format_exc())
