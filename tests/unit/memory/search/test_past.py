from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
import trio
from lastcall.memory.search.past import RECALL_SECONDS, Past
from lastcall.memory.search.recalling import NOBODY
from lastcall.store.errors import StoreUnavailable
from lastcall.store.records import AskedWord, FoundPassage, PastTurn, SearchResult
from trio.testing import MockClock

from tests.support.fake_store import FakeStore

QUESTION = "Which boats has the harbour?"
OWN, OTHER = UUID(int=1), UUID(int=2)


class SlowStore(FakeStore):
    """Finds these turns for every question, after a while."""

    def __init__(self, *turns: PastTurn, seconds: float = 0.0) -> None:
        super().__init__()
        self.turns = turns
        self.seconds = seconds
        self.failure: Exception | None = None
        self.asked: list[Sequence[tuple[str, str]]] = []

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        self.asked.append(words)
        await trio.sleep(self.seconds)
        if self.failure:
            raise self.failure
        mentions: dict[int, list[Sequence[int]]] = {number: [[100]] for number in range(len(words))}
        found = FoundPassage(1, 0.0, 9.0, [0], mentions)
        return SearchResult({number: AskedWord(1.0, known=True) for number in range(len(words))}, [found])

    async def read_turns(self, user_id: str, turns: Sequence[tuple[int, int]], chars_max: int) -> Sequence[PastTurn]:
        return self.turns


def turn(item_id: str = "item_1", conversation: UUID = OTHER) -> PastTurn:
    return PastTurn("2026-11-27", "user", "We have four boats.", str(conversation), item_id)


def past(store: SlowStore, *known: str) -> Past:
    return Past(store, "ada", OWN, NOBODY, known.__contains__)


async def test_what_belongs_to_the_newest_message_comes_back(autojump_clock: MockClock) -> None:
    looking = past(SlowStore(turn()))
    async with looking.open():
        assert await looking.turns() == []
        looking.look_up(QUESTION)
        assert await looking.turns() == [turn()]
        assert await looking.turns() == [turn()]  # a second answer, with what a tool has returned


async def test_a_message_that_asks_for_nothing_costs_no_statement(autojump_clock: MockClock) -> None:
    store = SlowStore(turn())
    looking = past(store)
    async with looking.open():
        looking.look_up(QUESTION)
        assert await looking.turns() == [turn()]
        looking.look_up("We have a harbour and it is full of boats.")
        assert await looking.turns() == []
    assert len(store.asked) == 1


@pytest.mark.parametrize("seconds", [RECALL_SECONDS * 2, float("inf")])
async def test_an_answer_waits_no_longer_than_the_deadline(seconds: float, autojump_clock: MockClock) -> None:
    looking = past(SlowStore(turn(), seconds=seconds))
    async with looking.open():
        looking.look_up(QUESTION)
        began = trio.current_time()
        with trio.fail_after(1):
            assert await looking.turns() == []
        assert trio.current_time() - began == pytest.approx(RECALL_SECONDS)


async def test_looking_up_never_waits_and_a_later_message_takes_over(autojump_clock: MockClock) -> None:
    store = SlowStore(turn(), seconds=RECALL_SECONDS / 2)
    looking = past(store)
    async with looking.open():
        looking.look_up(QUESTION)
        await trio.sleep(RECALL_SECONDS / 4)
        looking.look_up("hi")
        assert await looking.turns() == []
        await trio.sleep(1)
        assert await looking.turns() == []
    assert len(store.asked) == 1


async def test_a_database_that_is_away_costs_nothing_but_the_memory(autojump_clock: MockClock) -> None:
    store = SlowStore(turn())
    store.failure = StoreUnavailable("away")
    looking = past(store)
    async with looking.open():
        looking.look_up(QUESTION)
        assert await looking.turns() == []


async def test_what_the_context_has_does_not_come_back(autojump_clock: MockClock) -> None:
    looking = past(SlowStore(turn("item_1", OWN), turn("item_2", OWN), turn("item_1", OTHER)), "item_1")
    async with looking.open():
        looking.look_up(QUESTION)
        assert await looking.turns() == [turn("item_2", OWN), turn("item_1", OTHER)]
        looking.forget("item_2")
        assert await looking.turns() == [turn("item_1", OTHER)]


async def test_the_end_of_the_session_ends_a_search(autojump_clock: MockClock) -> None:
    looking = past(SlowStore(turn(), seconds=float("inf")))
    began = trio.current_time()
    async with looking.open():
        looking.look_up(QUESTION)
    assert trio.current_time() == began
