"""The turn that an agent answers, and what building it costs the event loop."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import pytest
from lastcall.config import Settings
from lastcall.conversation.timeline import Timeline
from lastcall.conversation.turns import TurnBuilder
from lastcall.protocol.client_events import NewItem, ResponseCreate, ResponseParams
from lastcall.protocol.items import FunctionCallItem, FunctionCallOutputItem, InputText, Item, MessageItem
from lastcall.protocol.server_events import RealtimeSession
from lastcall.sessions.session import Session
from msgspec import UNSET, UnsetType

SETTINGS = Settings()
CPU_SECONDS_MAX = 0.03  # a turn of as many items as a session may hold took 0.04 to 0.3 s
PARTS = 3_600  # as many as one event may hold


def message(number: int, role: Any = "user", text: str = "hello", parts: int = 1) -> Item:
    return MessageItem(id=f"item_{number}", status="completed", role=role, content=[InputText(text)] * parts)


def call_or_output(number: int) -> Item:
    call_id = f"call_{number // 2}"
    if number % 2:
        return FunctionCallOutputItem(id=f"item_{number}", status="completed", call_id=call_id, output="hello")
    return FunctionCallItem(id=f"item_{number}", status="completed", call_id=call_id, name="f", arguments="{}")


def timeline(items: Iterable[Item]) -> Timeline:
    made = Timeline()
    for item in items:
        made.add(made.place(item))
    return made


def cpu_seconds(items: Timeline, params: ResponseParams | None = None) -> float:
    """The best of three turns."""
    builder = TurnBuilder(Session("ada", uuid4()), items, "", SETTINGS, lambda _limit: None)
    config = RealtimeSession(id="s", model="m", instructions="", expires_at=1, conversation_id="c")
    best = 1e9
    for _ in range(3):
        began = time.thread_time()
        builder.build(ResponseCreate(), params or ResponseParams(), config)
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize(
    "item",
    [
        message,
        lambda number: message(number, text="x" * 400),
        lambda number: message(number, "system"),
        lambda number: message(number, "system", "x" * 400),
        call_or_output,
    ],
    ids=["short", "long", "system", "long system", "calls"],
)
async def test_a_turn_of_the_largest_conversation_takes_moments(item: Any) -> None:
    assert cpu_seconds(timeline(map(item, range(SETTINGS.items_max)))) < CPU_SECONDS_MAX


async def test_a_turn_of_a_long_conversation_costs_about_what_one_of_a_short_one_does() -> None:
    """Its context is kept as items come: made anew, 4,000 items cost a hundred times as much as ten."""
    short, long = (cpu_seconds(timeline(map(message, range(count)))) for count in (10, 4_000))
    assert long < 10 * short


@pytest.mark.parametrize(
    ("session", "own", "expected"),
    [(UNSET, None, None), (False, None, False), (False, True, True), (UNSET, False, False)],
)
async def test_calls_are_parallel_as_the_response_says_or_else_the_session(
    session: bool | UnsetType, own: bool | None, expected: bool | None
) -> None:
    builder = TurnBuilder(Session("ada", uuid4()), timeline([]), "", SETTINGS, lambda _limit: None)
    config = RealtimeSession(id="s", model="m", instructions="", conversation_id="c", parallel_tool_calls=session)
    turn, _ = builder.build(ResponseCreate(), ResponseParams(parallel_tool_calls=own), config)
    assert turn.parallel_tool_calls is expected


async def test_a_turn_of_messages_in_thousands_of_parts_takes_moments() -> None:
    assert cpu_seconds(timeline(message(number, parts=PARTS) for number in range(300))) < CPU_SECONDS_MAX


async def test_an_input_that_refers_to_one_item_again_and_again_takes_moments() -> None:
    items = timeline([message(0, parts=PARTS)])
    references = [NewItem(type="item_reference", id="item_0")] * PARTS
    assert cpu_seconds(items, ResponseParams(input=references)) < CPU_SECONDS_MAX
