"""Whether all servers say the same: types and order of all frames, and the shapes of their payloads."""

from __future__ import annotations

import json
from typing import Any

from websockets.sync.client import connect

from ..starvation import Failed
from .answers import Answer
from .contestants import FLOOR, MESSAGES, TABLES, Contestant

ANSWER_SECONDS = 10.0
GREETING_FRAMES = 2
TURNS = 2


def turn_frames(answer: Answer) -> int:
    """How many frames answer one turn: the deltas, two for the message and ten for the response."""
    return 2 + 10 + answer.deltas


def spoken(contestant: Contestant, answer: Answer) -> list[dict[str, Any]]:
    """All events of a session with two turns. Raises `Failed` where it did not leave its rows."""
    before = _rows(contestant)
    events: list[dict[str, Any]] = []
    with connect(f"ws://127.0.0.1:{contestant.port}/v1/realtime?model=bench&user=check", max_size=None) as client:

        def take(count: int) -> None:
            events.extend(json.loads(client.recv(timeout=ANSWER_SECONDS)) for _ in range(count))

        take(GREETING_FRAMES)
        for _ in range(TURNS):
            message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": answer.question}]}
            client.send(json.dumps({"type": "conversation.item.create", "item": message}))
            client.send(json.dumps({"type": "response.create"}))
            take(turn_frames(answer))
    contestant.settle()
    found = [after - each for after, each in zip(_rows(contestant), before, strict=True)]
    if contestant.database and found != [1, 0, 2 * TURNS]:
        raise Failed(f"{contestant.name}: a session left {found} rows (sessions, active ones, messages)")
    return events


def _rows(contestant: Contestant) -> list[int]:
    if contestant.database is None:
        return []
    tables = TABLES[contestant.name]
    return [contestant.database.count(query) for query in (tables.sessions, tables.active, MESSAGES)]


def shape(value: Any) -> Any:
    """A payload without its contents: `type` and `status` keep theirs."""
    match value:
        case dict():
            return {
                key: each if key in ("type", "object", "status", "role") else shape(each)
                for key, each in sorted(value.items())
            }
        case list():
            return [shape(each) for each in value]
        case bool() | None:
            return value
        case int() | float():
            return "number"
    return type(value).__name__


def check_frames(events: dict[str, list[dict[str, Any]]]) -> None:
    """Raises `Failed` where two servers, by name, say different things. A constant frame may name an item or none."""
    (first, reference), *others = events.items()
    for name, said in others:
        for number, (one, other) in enumerate(zip(reference, said, strict=True)):
            left_out = ("previous_item_id",) if FLOOR in (first, name) else ()
            expected, found = (shape({k: v for k, v in each.items() if k not in left_out}) for each in (one, other))
            if expected != found:
                raise Failed(f"frame {number} differs: {first} sends {expected}, {name} sends {found}")
