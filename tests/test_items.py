"""The items of a conversation: their order, their positions and what an agent sees of them."""

from __future__ import annotations

import itertools
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import items as items_module
from server import wire
from server.agent import Message
from server.items import POSITION_STEP, Entry, Items
from server.store import StoredItem

SESSION, CONVERSATION = uuid4(), uuid4()


def message(
    item_id: str, text: str = "hello", role: str = "user", status: wire.ItemStatus = "completed"
) -> wire.MessageItem:
    part = wire.OutputText if role == "assistant" else wire.InputText
    return wire.MessageItem(id=item_id, status=status, role=role, content=[part(text)])  # type: ignore[arg-type]


def stored(item_id: str, position: int, role: str = "user", status: str = "completed") -> StoredItem:
    return StoredItem(
        session_id=SESSION,
        conversation_id=CONVERSATION,
        item_id=item_id,
        position=position,
        role=role,  # type: ignore[arg-type]
        content=f"text of {item_id}",
        status=status,  # type: ignore[arg-type]
    )


def append(items: Items, item: wire.MessageItem) -> Entry:
    entry = items.next(item)
    items.add(entry)
    return entry


def test_a_conversation_without_items_has_no_last_one() -> None:
    items = Items()
    assert len(items) == 0
    assert items.last_item_id is None
    assert items.messages() == []
    assert "a" not in items


def test_items_stand_in_the_order_in_which_they_were_added() -> None:
    items = Items()
    entries = [append(items, message(name)) for name in ("b", "a", "c")]
    assert [entry.item.id for entry in items] == ["b", "a", "c"]
    assert [entry.previous_item_id for entry in entries] == [None, "b", "a"]
    assert (len(items), items.last_item_id) == (3, "c")
    assert "a" in items


def test_an_entry_that_was_not_added_takes_no_place() -> None:
    items = Items()
    first = append(items, message("a"))
    unstored = items.next(message("lost"))
    second = append(items, message("b"))
    assert "lost" not in items
    assert second.previous_item_id == "a"
    assert unstored.position > first.position
    assert second.position > first.position


@given(st.lists(st.integers(min_value=1, max_value=2**62), unique=True, max_size=20), st.integers(0, 5))
def test_positions_rise_from_whatever_the_history_ended_with(positions: list[int], more: int) -> None:
    history = [stored(f"old_{position}", position) for position in sorted(positions)]
    items = Items(history)
    for number in range(more):
        append(items, message(f"new_{number}"))
    found = [entry.position for entry in items]
    assert found == sorted(set(found))
    assert found[: len(history)] == sorted(positions)


def test_neighbours_leave_room_for_an_item_between_them() -> None:
    items = Items()
    positions = [append(items, message(str(number))).position for number in range(3)]
    assert all(after - before >= POSITION_STEP for before, after in itertools.pairwise(positions))


def test_positions_fit_a_bigint_for_another_two_centuries(monkeypatch: pytest.MonkeyPatch) -> None:
    in_2225 = (2225 - 1970) * 365.25 * 86_400_000
    monkeypatch.setattr(items_module, "wall_clock_ms", lambda: int(in_2225))
    assert Items().next(message("a")).position < 2**63


def test_what_two_sessions_say_in_turn_stands_in_the_order_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1_000, 60_000)
    monkeypatch.setattr(items_module, "wall_clock_ms", lambda: next(clock))
    tabs = {name: Items([stored("before", 7)]) for name in "ab"}
    said = [(append(tabs[name], message(f"{turn}")), name) for turn, name in enumerate("aaabba")]
    in_order = sorted(said, key=lambda entry: entry[0].position)
    assert "".join(name for _, name in in_order) == "aaabba"
    assert said[3][0].previous_item_id == "before", "neither sees what the other says"


def test_a_clock_that_goes_back_does_not_put_an_item_before_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_module, "wall_clock_ms", lambda: 0)
    items = Items([stored("ahead", 2**60)])
    assert append(items, message("next")).position == 2**60 + POSITION_STEP


def test_a_history_is_restored_with_its_ids_its_positions_and_its_parts() -> None:
    history = [stored("s", 5, "system"), stored("u", 9), stored("a", 40, "assistant", "incomplete")]
    items = Items(history)
    entries = list(items)
    assert [entry.stored(SESSION, CONVERSATION) for entry in entries] == history
    assert [entry.previous_item_id for entry in entries] == [None, "s", "u"]
    assert [type(entry.item.content[0]) for entry in entries] == [wire.InputText, wire.InputText, wire.OutputText]
    assert items.next(message("next")).position >= 40 + POSITION_STEP
    assert items.next(message("next")).previous_item_id == "a"


def test_an_agent_sees_every_item_with_text_but_not_the_one_under_way() -> None:
    items = Items([stored("s", 1, "system")])
    append(items, message("u", "hello"))
    append(items, message("cut", "hal", "assistant", "incomplete"))
    append(items, message("empty", ""))
    append(items, wire.MessageItem(id="none", status="completed", role="user", content=[]))
    append(items, message("now", "so far", "assistant", "in_progress"))
    assert items.messages() == [
        Message("system", "text of s", "s"),
        Message("user", "hello", "u"),
        Message("assistant", "hal", "cut"),
    ]


def test_what_was_said_while_an_answer_is_under_way_comes_after_it() -> None:
    items = Items()
    append(items, message("u1"))
    answer = append(items, message("a1", "", "assistant", "in_progress"))
    append(items, message("u2"))
    answer.item.status, answer.item.content = "completed", [wire.OutputText("the answer")]
    assert [entry.item_id for entry in items.messages()] == ["u1", "a1", "u2"]


def test_the_text_of_an_item_is_that_of_all_its_parts() -> None:
    entry = Items().next(
        wire.MessageItem(id="u", status="completed", role="user", content=[wire.InputText("a"), wire.InputText("b")])
    )
    assert entry.text == "ab"


def test_an_item_is_stored_under_the_same_message_id_each_time_and_never_as_in_progress() -> None:
    entry = Items().next(message("a", "so far", "assistant", "in_progress"))
    first, second = entry.stored(SESSION, CONVERSATION), entry.stored(SESSION, CONVERSATION)
    assert first == second
    assert (first.message_id, first.status, first.content) == (entry.message_id, "incomplete", "so far")


def test_two_entries_never_share_a_message_id() -> None:
    items = Items()
    assert items.next(message("a")).message_id != items.next(message("a")).message_id
