"""The fields by which a line of the log names its session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from lastcall.logs.names import add_names, name_lines


def line(**fields: Any) -> dict[str, Any]:
    return dict(add_names(None, "info", {"event": "it happened", **fields}))


async def test_lines_are_named_in_the_task_and_in_those_that_it_starts_and_nowhere_else() -> None:
    seen: dict[str, dict[str, Any]] = {}
    made = 0

    def names() -> Mapping[str, object]:
        nonlocal made
        made += 1
        return {"user_id": "ada", "session_id": "1"}

    async def note(who: str) -> None:
        seen[who] = line()

    async def connection(nursery: trio.Nursery) -> None:
        name_lines(names)
        assert made == 0, "no line, no names"
        nursery.start_soon(note, "its reader")
        seen["connection"] = line(session_id="of the line")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection, nursery)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "another")
    assert seen["connection"] == {"user_id": "ada", "session_id": "of the line", "event": "it happened"}
    assert seen["its reader"] == {"user_id": "ada", "session_id": "1", "event": "it happened"}
    assert seen["another"] == {"event": "it happened"}
