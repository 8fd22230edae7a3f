"""The timeline: order and positions of its items, and the agent's context."""

from __future__ import annotations

import itertools
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.agents.agent import FunctionCall, FunctionOutput, Message
from lastcall.conversation.timeline import ROOT, Context, ConversationEntry, NoFreePosition, Timeline, UnknownItem
from lastcall.conversation.timeline import timeline as timeline_module
from lastcall.conversation.timeline.timeline import POSITION_STEP
from lastcall.protocol.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    Item,
    ItemStatus,
    MessageItem,
    OutputText,
)
from lastcall.store.records import StoredItem
from msgspec.structs import replace

SESSION, CONVERSATION = uuid4(), uuid4()


def message(item_id: str, text: str = "hello", role: str = "user", status: ItemStatus = "completed") -> MessageItem:
    part = OutputText if role == "assistant" else InputText
    return MessageItem(id=item_id, status=status, role=role, content=[part(text)])  # type: ignore[arg-type]


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


def put(items: Timeline, item: Item, after: str | None = None) -> ConversationEntry:
    entry = items.place(item, after)
    items.add(entry)
    return entry


def ids(items: Timeline) -> list[str]:
    return [entry.item.id for entry in items]


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that stands at 0, so that positions only follow the last one."""
    monkeypatch.setattr(timeline_module, "wall_clock_ms", lambda: 0)


def test_an_empty_timeline_has_no_items() -> None:
    items = Timeline()
    assert len(items) == 0
    assert items.context().items == []
    assert "a" not in items


def test_items_are_in_the_order_of_their_addition() -> None:
    items = Timeline()
    entries = [put(items, message(name)) for name in ("b", "a", "c")]
    assert ids(items) == ["b", "a", "c"]
    assert [entry.previous_item_id for entry in entries] == [None, "b", "a"]
    assert len(items) == 3
    assert "a" in items


def test_items_are_inserted_at_the_requested_place() -> None:
    items = Timeline()
    for name, after in (("b", None), ("d", None), ("c", "b"), ("a", ROOT), ("e", "d"), ("0", ROOT), ("f", None)):
        put(items, message(name), after)
    assert ids(items) == ["0", "a", "b", "c", "d", "e", "f"]
    positions = [entry.position for entry in items]
    assert positions == sorted(set(positions))


def test_each_entry_names_its_previous_item() -> None:
    items = Timeline()
    for name in ("a", "c"):
        put(items, message(name))
    assert put(items, message("b"), "a").previous_item_id == "a"
    assert put(items, message("first"), ROOT).previous_item_id is None
    assert put(items, message("d"), "c").previous_item_id == "c"


def test_no_item_is_placed_after_an_unknown_one() -> None:
    items = Timeline()
    put(items, message("a"))
    with pytest.raises(UnknownItem):
        items.place(message("b"), "nowhere")
    assert ids(items) == ["a"]


def test_a_place_is_reserved_before_its_item_is_known() -> None:
    items = Timeline()
    put(items, message("a"))
    later = items.place(message("later"))
    sooner = put(items, message("sooner"))
    assert (sooner.previous_item_id, ids(items), items.get("later")) == ("a", ["a", "sooner"], None)
    assert "later" in items, "its id is taken already"
    items.add(later)
    assert (later.previous_item_id, ids(items)) == ("a", ["a", "later", "sooner"])


def test_a_released_place_is_free_again() -> None:
    items = Timeline()
    first = put(items, message("a"))
    unstored = items.place(message("lost"))
    items.remove(unstored)
    second = put(items, message("b"))
    assert "lost" not in items
    assert second.previous_item_id == "a"
    assert second.position > unstored.position > first.position


@pytest.mark.usefixtures("still_clock")
def test_a_removed_item_is_no_longer_a_previous_item() -> None:
    items = Timeline()
    entries = [put(items, message(name)) for name in ("a", "b", "c")]
    items.remove(entries[1])
    items.remove(entries[2])
    assert (ids(items), "b" in items) == (["a"], False)
    after = put(items, message("d"))
    assert (after.previous_item_id, after.position) == ("a", entries[2].position + POSITION_STEP)


@pytest.mark.usefixtures("still_clock")
def test_twenty_items_fit_between_two_neighbours_and_no_more() -> None:
    items = Timeline()
    put(items, message("a"))
    put(items, message("z"))
    for number in range(20):
        put(items, message(str(number)), "a")
    with pytest.raises(NoFreePosition):
        items.place(message("one too many"), "a")
    assert ids(items) == ["a", *(str(number) for number in reversed(range(20))), "z"]
    assert put(items, message("elsewhere")).previous_item_id == "z"


def test_items_always_fit_before_the_first_one() -> None:
    items = Timeline()
    for number in range(50):
        put(items, message(str(number)), ROOT)
    assert ids(items) == [str(number) for number in reversed(range(50))]


@given(st.lists(st.integers(min_value=1, max_value=2**62), unique=True, max_size=20), st.integers(0, 5))
def test_positions_continue_after_the_history(positions: list[int], more: int) -> None:
    history = [stored(f"old_{position}", position) for position in sorted(positions)]
    items = Timeline(history)
    for number in range(more):
        put(items, message(f"new_{number}"))
    found = [entry.position for entry in items]
    assert found == sorted(set(found))
    assert found[: len(history)] == sorted(positions)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_positions_keep_the_order_whatever_is_inserted_and_removed(deeds: list[tuple[bool, int]]) -> None:
    items, expected = Timeline(), list[str]()
    for number, (takes_out, where) in enumerate(deeds):
        if takes_out and expected:
            entry = items.get(expected.pop(where % len(expected)))
            assert entry is not None
            items.remove(entry)
            continue
        index = where % (len(expected) + 1)
        try:
            put(items, message(f"i{number}"), expected[index - 1] if index else ROOT)
        except NoFreePosition:
            continue
        expected.insert(index, f"i{number}")
    assert ids(items) == expected
    positions = [entry.position for entry in items]
    assert positions == sorted(set(positions))


def test_items_that_share_a_position_are_distinguished() -> None:
    items = Timeline([stored("a", 5), stored("b", 5), stored("c", 5)])
    entry = items.get("b")
    assert entry is not None
    items.remove(entry)
    assert ids(items) == ["a", "c"]


@pytest.mark.usefixtures("still_clock")
def test_an_item_fits_between_neighbours() -> None:
    items = Timeline()
    positions = [put(items, message(str(number))).position for number in range(3)]
    assert positions == [POSITION_STEP, 2 * POSITION_STEP, 3 * POSITION_STEP]


def test_positions_fit_a_bigint_for_another_two_centuries(monkeypatch: pytest.MonkeyPatch) -> None:
    in_2225 = (2225 - 1970) * 365.25 * 86_400_000
    monkeypatch.setattr(timeline_module, "wall_clock_ms", lambda: int(in_2225))
    assert Timeline().place(message("a")).position < 2**63


def test_items_of_two_sessions_are_ordered_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1_000, 60_000)
    monkeypatch.setattr(timeline_module, "wall_clock_ms", lambda: next(clock))
    tabs = {name: Timeline([stored("before", 7)]) for name in "ab"}
    said = [(put(tabs[name], message(f"{turn}")), name) for turn, name in enumerate("aaabba")]
    in_order = sorted(said, key=lambda entry: entry[0].position)
    assert "".join(name for _, name in in_order) == "aaabba"
    assert said[3][0].previous_item_id == "before", "neither sees what the other says"


@pytest.mark.usefixtures("still_clock")
def test_a_clock_that_goes_back_does_not_reorder_items() -> None:
    items = Timeline([stored("ahead", 2**60)])
    assert put(items, message("next")).position == 2**60 + POSITION_STEP


def test_what_is_put_behind_an_older_item_stands_before_all_that_is_not_loaded_between() -> None:
    """Positions at the end are at least a step apart, so an item that is not loaded is a step away, or more."""
    items = Timeline([stored("rule", 0, "system"), stored("more", 9 * POSITION_STEP, "system"), stored("z", 2**60)],
                     older=2)  # fmt: skip
    found = [put(items, message("b"), "rule"), put(items, message("a"), "rule"), put(items, message("c"), "b")]
    assert ids(items) == ["rule", "a", "b", "c", "more", "z"]
    assert all(0 < entry.position < POSITION_STEP for entry in found)
    assert put(items, message("y"), "more").position == 9 * POSITION_STEP + POSITION_STEP // 2
    first = put(items, message("first"), ROOT)
    assert put(items, message("second"), "first").position == first.position + POSITION_STEP // 2
    last = put(items, message("last"))
    assert put(items, message("inserted"), "z").position == (2**60 + last.position) // 2


def test_nothing_is_placed_behind_an_entry_whose_id_another_one_has_now() -> None:
    items = Timeline()
    old = put(items, message("a"))
    put(items, message("z"))
    assert items.place_behind(message("b"), old).previous_item_id is None
    items.remove(old)
    for _ in range(2):
        with pytest.raises(UnknownItem):
            items.place_behind(message("c"), old)
        put(items, message("a"))


@pytest.mark.usefixtures("still_clock")
def test_a_history_is_restored_with_ids_positions_and_content_parts() -> None:
    history = [
        stored("s", 5, "system"),
        stored("u", 9),
        stored("a", 40, "assistant", "incomplete"),
        replace(stored("c", 41, "assistant"), kind="function_call", call_id="call_1", name="look_up"),
        replace(stored("o", 42, "tool"), kind="function_call_output", call_id="call_1"),
    ]
    items = Timeline(history)
    entries = list(items)
    assert [entry.stored(SESSION, CONVERSATION) for entry in entries] == history
    assert [entry.previous_item_id for entry in entries] == [None, "s", "u", "a", "c"]
    assert [entry.item for entry in entries] == [
        message("s", "text of s", "system"),
        message("u", "text of u"),
        message("a", "text of a", "assistant", "incomplete"),
        FunctionCallItem(id="c", status="completed", call_id="call_1", name="look_up", arguments="text of c"),
        FunctionCallOutputItem(id="o", status="completed", call_id="call_1", output="text of o"),
    ]
    assert items.place(message("next")).position == 42 + POSITION_STEP


def test_the_context_has_every_item_with_text_except_unfinished_ones() -> None:
    items = Timeline([stored("s", 1, "system")])
    put(items, message("u", "hello"))
    put(items, message("cut", "hal", "assistant", "incomplete"))
    put(items, message("empty", ""))
    put(items, MessageItem(id="none", status="completed", role="user", content=[]))
    put(items, FunctionCallItem(id="c", status="completed", call_id="call_1", name="f", arguments="{}"))
    put(items, FunctionCallItem(id="half", status="incomplete", call_id="call_2", name="f", arguments='{"'))
    put(items, FunctionCallOutputItem(id="o", status="completed", call_id="call_1", output=""))
    put(items, message("now", "so far", "assistant", "in_progress"))
    items.place(message("unknown"))
    assert items.context().items == [
        Message("system", "text of s", "s"),
        Message("user", "hello", "u"),
        Message("assistant", "hal", "cut"),
        FunctionCall("f", "{}", "call_1", "c"),
        FunctionOutput("call_1", "", "o"),
    ]


def test_a_message_sent_during_an_answer_follows_it() -> None:
    items = Timeline()
    put(items, message("u1"))
    answer = put(items, message("a1", "", "assistant", "in_progress"))
    put(items, message("u2"))
    answer.item = message("a1", "the answer", "assistant")
    assert [entry.item_id for entry in items.context().items] == ["u1", "a1", "u2"]


def test_the_text_of_an_item_joins_all_its_parts() -> None:
    entry = Timeline().place(
        MessageItem(id="u", status="completed", role="user", content=[InputText("a"), InputText("b")])
    )
    assert entry.text == "ab"


def test_an_item_is_stored_with_one_message_id_and_never_in_progress() -> None:
    entry = Timeline().place(message("a", "so far", "assistant", "in_progress"))
    first, second = entry.stored(SESSION, CONVERSATION), entry.stored(SESSION, CONVERSATION)
    assert first == second
    assert (first.message_id, first.status, first.content) == (entry.message_id, "incomplete", "so far")


def test_two_entries_never_share_a_message_id() -> None:
    items = Timeline()
    assert items.place(message("a")).message_id != items.place(message("b")).message_id


def test_the_context_of_an_item_is_made_once_and_follows_its_status() -> None:
    items, call = Timeline(), FunctionCallItem(id="a", status="in_progress", call_id="c", name="f", arguments="")
    put(items, call)
    assert items.context().items == []
    call.status, call.arguments = "completed", "{}"
    first = items.context().items
    assert first == [FunctionCall("f", "{}", "c", "a")]
    assert items.context().items[0] is first[0]
    call.status = "incomplete"
    assert items.context().items == []


# --- the context is kept, and as if it were made anew

ROLES = st.sampled_from(["user", "assistant", "system"])
TEXTS = st.text("aé", max_size=3)
DEEDS = st.one_of(
    st.tuples(st.just("history"), ROLES, st.integers(1, 3)),
    st.tuples(st.sampled_from(["message", "call", "output", "reserve"]), TEXTS, st.integers(0, 20)),
    st.tuples(
        st.sampled_from(["remove", "add", "answer", "complete", "commit", "fail", "look"]),
        st.just(""),
        st.integers(0, 20),
    ),
)


def item_of(kind: str, number: int, text: str) -> Item:
    if kind == "call":
        return FunctionCallItem(id=f"{number}", status="completed", call_id=f"c{number}", name="f", arguments=text)
    if kind == "output":
        return FunctionCallOutputItem(id=f"{number}", status="completed", call_id=f"c{number}", output=text)
    return message(f"{number}", text)


def rebuilt(items: Timeline) -> Context:
    return Context.of(seen for entry in items if (seen := entry.context()) is not None)


class Deeds:
    """A conversation to which things happen."""

    def __init__(self, history: list[StoredItem]) -> None:
        self.items = Timeline(sorted(history, key=lambda each: each.position))
        self._reserved: list[ConversationEntry] = []
        self._answer: ConversationEntry | None = None

    def do(self, number: int, kind: str, text: str, where: int) -> None:
        known = list(self.items)
        chosen = known[where % len(known)] if known else None
        match kind:
            case "message" | "call" | "output" | "reserve":
                after = chosen.item.id if chosen and where % 3 else (None, ROOT)[where % 2]
                with suppress(NoFreePosition):
                    entry = self.items.place(item_of(kind, number, text), after)
                    (self._reserved.append if kind == "reserve" else self.items.add)(entry)
            case "add" if self._reserved:
                self.items.add(self._reserved.pop())
            case "remove" if chosen:
                self.items.remove(chosen)
            case _:
                self._do_to_answer(number, kind)

    def _do_to_answer(self, number: int, kind: str) -> None:
        answer = self._answer
        match kind:
            case "answer" if answer is None or not answer.pending:
                self._answer = self.items.place(message(f"{number}", "the answer", "assistant", "in_progress"))
                self._answer.pending = True
                self.items.add(self._answer)
            case "complete" if answer:
                answer.item.status = "completed"
            case "fail" if answer:  # also after the commit: where it failed
                answer.item.status = "incomplete"
            case "commit" if answer:
                answer.pending = False


@given(st.lists(DEEDS, max_size=40))
def test_the_context_that_is_kept_is_the_one_that_would_be_made_anew(deeds: list[tuple[str, str, int]]) -> None:
    """Whatever is inserted, removed, answered, stored or not, and where positions are shared."""
    done = Deeds([stored(f"h{n}", where, role) for n, (kind, role, where) in enumerate(deeds) if kind == "history"])
    for number, deed in enumerate(deeds):
        done.do(number, *deed)
        if deed[0] == "look":
            assert done.items.context() == rebuilt(done.items)
    assert done.items.context() == rebuilt(done.items)


def test_a_turn_is_not_changed_by_what_comes_later_nor_the_conversation_by_an_agent() -> None:
    items = Timeline()
    first = put(items, message("a"))
    before = items.context()
    put(items, message("b"))
    items.remove(first)
    assert [each.item_id for each in before.messages] == ["a"]
    before.items.clear()
    assert [each.item_id for each in items.context().messages] == ["b"]


# --- items of other sessions


def insert(items: Timeline, item_id: str, position: int, number: int = 0) -> ConversationEntry:
    return items.insert(message(item_id, item_id), position, UUID(int=number))


def seen(items: Timeline) -> list[str]:
    return [each.text for each in items.context().messages]


@given(st.permutations([(position, number) for position in range(3) for number in range(3)]))
def test_inserted_items_stand_as_the_database_orders_them_whenever_they_come(keys: list[tuple[int, int]]) -> None:
    items = Timeline()
    for position, number in keys:
        entry = insert(items, f"{position} {number}", position, number)
        before = [each for each in ids(items) if each < entry.item.id]
        assert items.known_before(entry) == (before[-1] if before else None)
    assert ids(items) == seen(items) == sorted(ids(items))
    assert all(items._index(entry) == index for index, entry in enumerate(items))


def test_what_is_said_next_stands_behind_an_inserted_item_of_a_clock_that_is_ahead() -> None:
    items = Timeline()
    ahead = insert(items, "ahead", int(timeline_module.wall_clock_ms() + 3_600_000) * POSITION_STEP)
    assert put(items, message("next")).position > ahead.position


def test_nothing_is_put_behind_an_inserted_item_where_older_ones_may_follow_that_are_not_loaded() -> None:
    loaded, old = 100 * POSITION_STEP, 10 * POSITION_STEP
    items = Timeline([stored("system", 0, role="system"), stored("loaded", loaded)], older=1)
    for item_id, position in (("far", old), ("near", POSITION_STEP // 2)):
        entry = insert(items, item_id, position)
        assert put(items, message(f"behind {item_id}"), item_id).position < position + POSITION_STEP
        assert entry.ceiling is not None
    first = insert(items, "first", -old)
    assert put(items, message("behind first"), "first").position < first.position + POSITION_STEP


def test_an_item_that_was_removed_can_be_removed_again() -> None:
    items = Timeline()
    entry = put(items, message("one"))
    for _ in range(2):
        items.remove(entry)
    assert ids(items) == []
