"""A turn of `lastcall chat` whose connection was lost: what is asked again, and what is shown."""

from __future__ import annotations

from typing import Any, cast

import pytest
from lastcall.cli.chat.talk import _Turn
from lastcall.cli.chat.wire import Event, Lost, Wire


class Shown:
    def __init__(self) -> None:
        self.answer = ""
        self.notes: list[str] = []

    def piece(self, text: str) -> None:
        self.answer += text

    def note(self, text: str) -> None:
        self.notes.append(text)


class FakeWire:
    """Takes what is sent, gives what is to be received, and is lost then."""

    def __init__(self, *events: Event) -> None:
        self.sent: list[Event] = []
        self._events = list(events)

    async def send(self, event: Event) -> None:
        self.sent.append(event)

    async def receive(self) -> Event:
        if not self._events:
            raise Lost("the connection broke")
        return self._events.pop(0)


DELTA: Event = {"type": "response.output_text.delta", "delta": "You said: "}
DONE: Event = {"type": "response.done", "response": {"status": "completed"}}


async def lost_turn(*events: Event) -> tuple[_Turn, Shown, FakeWire]:
    shown, wire = Shown(), FakeWire(*events)
    turn = _Turn(shown, "hello")
    with pytest.raises(Lost):
        await turn.take(cast("Wire", wire))
    return turn, shown, wire


def message(role: str, text: str, status: str = "completed", **others: Any) -> Event:
    return {"type": "message", "id": role, "role": role, "status": status, "content": [{"text": text}], **others}


async def asked_again(turn: _Turn, items: list[Event]) -> list[Event]:
    turn.catch_up(items)
    wire = FakeWire(DONE)
    assert await turn.take(cast("Wire", wire)) is True
    return wire.sent


async def test_what_was_not_stored_is_said_again_under_the_same_id() -> None:
    turn, _, wire = await lost_turn()
    first, second = await asked_again(turn, [message("user", "hello", id="another")])
    assert first["item"] == wire.sent[0]["item"]
    assert second["type"] == "response.create"


async def test_what_was_stored_is_not_said_again_but_its_answer_is_asked_for() -> None:
    turn, _, wire = await lost_turn()
    (only,) = await asked_again(turn, [message("user", "hello", id=wire.sent[0]["item"]["id"])])
    assert only["type"] == "response.create"


@pytest.mark.parametrize(("status", "notes"), [("completed", []), ("incomplete", ["(the connection was lost here)"])])
async def test_an_answer_that_was_stored_is_shown_to_its_end_and_not_asked_for_again(
    status: str, notes: list[str]
) -> None:
    turn, shown, wire = await lost_turn(DELTA)
    stored = message("user", "hello", id=wire.sent[0]["item"]["id"])
    turn.catch_up([message("user", "before"), stored, message("assistant", "You said: hello", status)])
    assert turn.over
    assert turn.answered is (status == "completed")
    assert shown.answer == "You said: hello"
    assert shown.notes == notes


@pytest.mark.parametrize(("code", "over"), [("item_create_duplicate_item_id", False), ("rate_limit_exceeded", True)])
async def test_an_error_ends_the_turn_unless_it_says_that_the_item_is_stored(code: str, over: bool) -> None:
    turn, shown, wire = await lost_turn()
    event_id = wire.sent[0]["event_id"]
    turn._handle({"type": "error", "error": {"code": code, "message": "why", "event_id": event_id}}, {event_id})
    assert turn.over is over
    assert shown.notes == (["(why)"] if over else [])
