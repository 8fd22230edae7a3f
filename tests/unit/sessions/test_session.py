"""A session's state machine: every transition in every state, allowed or refused, and nobody else writes its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from uuid import uuid4

import pytest
import trio
from lastcall.sessions.close_codes import CLOSE_CODES
from lastcall.sessions.registry import Registry
from lastcall.sessions.session import ImpossibleTransition, Session
from lastcall.store.records import EndReason, StoredItem
from trio.testing import MockClock

Step = Callable[[Session], object]

STEPS: dict[str, Step] = {
    "began": lambda session: session.began(),
    "row_was_stored": lambda session: session.row_was_stored(),
    "stop_responses_with": lambda session: session.stop_responses_with(lambda: ()),
    "say_goodbye_with": lambda session: session.say_goodbye_with(lambda: None),
    "say_goodbye": lambda session: session.say_goodbye(EndReason.SHUTDOWN),
    "user_spoke": lambda session: session.user_spoke(),
    "response_began": lambda session: session.response_began(),
    "response_ended": lambda session: session.response_ended(),
    "stop": lambda session: session.stop(EndReason.CLIENT_CLOSED),
    "take_unfinished": lambda session: session.take_unfinished(),
    "row_was_closed": lambda session: session.row_was_closed(),
    "left": lambda session: session.left(),
}
WALK_STEPS = 4


@pytest.fixture
async def session() -> Session:
    return Session("ada", uuid4())


def item(session: Session) -> StoredItem:
    return StoredItem(
        session_id=session.session_id,
        conversation_id=session.conversation_id,
        item_id="item_1",
        position=1,
        role="assistant",
        content="Well",
        status="incomplete",
    )


class Model:
    """What a session may do next, from what it did before."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @property
    def said_goodbye(self) -> bool:
        can = self.done.index("say_goodbye_with") if "say_goodbye_with" in self.done else WALK_STEPS
        return "say_goodbye" in self.done[can:]

    def allows(self, step: str) -> bool:
        running = self.done.count("response_began") - self.done.count("response_ended")
        taken = "take_unfinished" in self.done or "left" in self.done
        return {
            "began": "began" not in self.done and "stop" not in self.done,
            "say_goodbye_with": True,
            "say_goodbye": "row_was_closed" in self.done,
            "row_was_stored": "began" in self.done,
            "stop_responses_with": "stop_responses_with" not in self.done and "left" not in self.done,
            "user_spoke": "began" in self.done,
            "response_began": not taken,
            "response_ended": running > 0,
            "stop": True,
            "take_unfinished": True,
            "row_was_closed": "began" in self.done and "row_was_closed" not in self.done,
            "left": ("stop" in self.done or self.said_goodbye) and "left" not in self.done,
        }[step]


def walks() -> Iterator[tuple[str, ...]]:
    """Every order of so many steps; shorter ones are their beginnings."""
    return product(STEPS, repeat=WALK_STEPS)


async def test_every_transition_in_every_state_is_as_a_small_model_says() -> None:
    for walk in walks():
        session, model = Session("ada", uuid4()), Model()
        for step in walk:
            allowed = True
            try:
                STEPS[step](session)
            except ImpossibleTransition:
                allowed = False
            assert allowed == model.allows(step), f"{step} after {model.done}"
            if allowed:
                model.done.append(step)


@pytest.mark.parametrize(
    ("before", "refused", "why"),
    [
        (["began"], "began", "began already"),
        (["stop"], "began", "was stopped"),
        ([], "row_was_stored", "no row"),
        ([], "user_spoke", "no row"),
        ([], "row_was_closed", "no row"),
        (["began", "row_was_closed"], "row_was_closed", "closed already"),
        (["began"], "say_goodbye", "not closed"),
        ([], "response_ended", "no response is running"),
        (["take_unfinished"], "response_began", "were taken"),
        ([], "left", "not stopped"),
        (["stop", "left"], "left", "left already"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_refusal_names_the_session_and_the_reason(
    before: list[str], refused: str, why: str, session: Session
) -> None:
    for step in before:
        STEPS[step](session)
    with pytest.raises(ImpossibleTransition, match=f"{session.session_id}: .*{why}"):
        STEPS[refused](session)


async def test_nobody_else_can_write_a_sessions_state(session: Session) -> None:
    """Ruff (SLF001) refuses the private names elsewhere; the public ones cannot be set."""
    names = {name for name, value in vars(Session).items() if isinstance(value, property)}
    assert {"has_row", "row_closed", "answering", "spoke", "reason", "close_code", "ended"} <= names
    for name in names:
        with pytest.raises(AttributeError):
            setattr(session, name, None)
    with pytest.raises(AttributeError):
        session.cut = tuple  # type: ignore[attr-defined]


async def test_the_first_stop_stands(session: Session, autojump_clock: MockClock) -> None:
    await trio.sleep(1)
    session.stop(EndReason.IDLE, ended=session.started + 0.5)
    session.stop(EndReason.SERVER_ERROR, close_code=1011)
    assert (session.reason, session.close_code) == (EndReason.IDLE, CLOSE_CODES[EndReason.IDLE])
    assert session.ended == session.started + 0.5
    assert session.scope.cancel_called


async def test_a_goodbye_sends_the_close_frame_of_its_reason_once_and_leaves_the_scope_to_stop(
    session: Session,
) -> None:
    sent: list[int | None] = []
    session.say_goodbye_with(lambda: sent.append(session.close_code))
    session.began()
    session.row_was_closed()
    for reason in (EndReason.SHUTDOWN, EndReason.IDLE):
        session.say_goodbye(reason)
    assert sent == [CLOSE_CODES[EndReason.SHUTDOWN]]
    assert not session.scope.cancel_called
    session.stop(EndReason.CLIENT_CLOSED)
    assert session.reason is EndReason.SHUTDOWN
    assert session.scope.cancel_called


async def test_a_session_that_was_stopped_says_no_goodbye(session: Session) -> None:
    """Its exit path sends the close frame, with the first reason."""
    sent: list[int | None] = []
    session.say_goodbye_with(lambda: sent.append(session.close_code))
    session.began()
    session.stop(EndReason.IDLE)
    session.row_was_closed()
    session.say_goodbye(EndReason.SHUTDOWN)
    assert not sent


async def test_unfinished_items_are_taken_once_and_the_answer_stays_the_same(session: Session) -> None:
    calls = []

    def stop_responses() -> list[StoredItem]:
        calls.append(1)
        return [item(session)]

    session.stop_responses_with(stop_responses)
    first = session.take_unfinished()
    session.stop(EndReason.SHUTDOWN)
    assert session.take_unfinished() is first
    session.left()
    assert session.take_unfinished() is first
    assert len(first) == len(calls) == 1


async def test_responses_set_after_the_unfinished_items_were_taken_are_stopped(session: Session) -> None:
    """A shutdown takes them while the begin is under way."""
    stopped: list[bool] = []

    def stop_responses() -> list[StoredItem]:
        stopped.append(True)
        return []

    assert session.take_unfinished() == ()
    session.stop_responses_with(stop_responses)
    assert stopped


async def test_a_stop_of_responses_that_fails_may_be_tried_again(session: Session) -> None:
    failures = [RuntimeError("a bug")]

    def stop_responses() -> list[StoredItem]:
        if failures:
            raise failures.pop()
        return [item(session)]

    session.stop_responses_with(stop_responses)
    with suppress(RuntimeError):
        session.take_unfinished()
    assert len(session.take_unfinished()) == 1


async def test_answered_waits_for_the_last_of_several_responses(session: Session, autojump_clock: MockClock) -> None:
    session.response_began()
    session.response_began()
    session.response_ended()
    with trio.move_on_after(1) as still:
        await session.wait_answered()
    assert still.cancelled_caught
    session.response_ended()
    with trio.fail_after(1):
        await session.wait_answered()


async def test_a_user_counts_as_leaving_only_where_they_spoke(session: Session) -> None:
    registry = Registry()
    session.began()
    with registry.leaving(session):
        assert not registry.is_leaving("ada")
    session.user_spoke()
    other = Session("ada", uuid4())
    other.began()
    other.user_spoke()
    with registry.leaving(session):
        with registry.leaving(other):
            assert registry.is_leaving("ada")
        assert registry.is_leaving("ada")
        assert not registry.is_leaving("eve")
    assert not registry.is_leaving("ada")
