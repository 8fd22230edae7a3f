"""The search by meaning has what time is left; without it, words have to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
import trio
from lastcall.memory.search.past import RECALL_SECONDS
from lastcall.memory.search.recalling import MEANING_SECONDS, READ_SECONDS, question_of, recall_turns, search_turns
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.people.meanings import MeaningResult, MeantPassage
from lastcall.store.records import AskedWord, FoundPassage, PastTurn, SearchResult
from lastcall.store.store import Store
from trio.testing import MockClock

from tests.support.fake_store import FakeStore

QUESTION = question_of("Which boats has the harbour?")


class TwoPassages(FakeStore):
    """The first has words of the question, the second means what it does. asked: the vectors that were searched by."""

    def __init__(self, *, seconds: float = 0.0, failure: StoreError | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.failure = failure
        self.asked: list[str] = []
        self.passages_max = 0

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        await trio.lowlevel.checkpoint()
        mentions: dict[int, list[Sequence[int]]] = {number: [[100]] for number in range(len(words))}
        asked = {number: AskedWord(1.0, known=True) for number in range(len(words))}
        return SearchResult(asked, [FoundPassage(1, 0.0, 9.0, [0], mentions)])

    async def search_meanings(
        self, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        self.asked.append(vector)
        assert (user_id, list(among)) == ("ada", [1])
        await trio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return MeaningResult({2: MeantPassage([0], {0: 0.9})}, 100, 0.1, 0.1, 0.9)

    async def read_turns(self, user_id: str, turns: Sequence[tuple[int, int]], chars_max: int) -> Sequence[PastTurn]:
        await trio.lowlevel.checkpoint()
        return [PastTurn("2026-11-27", "user", f"passage {passage}", "", "") for passage, _ in turns]


class NoWords(TwoPassages):
    """No word of a question is in any turn; meanings are."""

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        await trio.lowlevel.checkpoint()
        assert words
        return SearchResult({number: AskedWord(1.0, known=False) for number in range(len(words))}, [])

    async def search_meanings(
        self, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        await trio.lowlevel.checkpoint()
        assert list(among) == []
        return MeaningResult({2: MeantPassage([0], {0: 0.9})}, 100, 0.1, 0.1, 0.9)


class Encoder:
    """Takes a while, and perhaps has no answer."""

    def __init__(self, seconds: float = 0.0, *, answers: bool = True) -> None:
        self.seconds = seconds
        self.answers = answers

    async def __call__(self, texts: Sequence[str]) -> Sequence[str] | None:
        await trio.sleep(self.seconds)
        return [f"[{text}]" for text in texts] if self.answers else None


async def found(store: TwoPassages, encode: Encoder | None) -> set[str]:
    asked: Store = store
    return {turn.text for turn in await search_turns(asked, "ada", QUESTION, 10, encode)}


async def test_both_searches_find_their_passages(autojump_clock: MockClock) -> None:
    store = TwoPassages()
    assert await found(store, Encoder()) == {"passage 1", "passage 2"}
    assert store.asked == ["[Which boats has the harbour?]"]


async def test_without_an_encoder_no_further_statement_is_made(autojump_clock: MockClock) -> None:
    store = TwoPassages()
    assert await found(store, None) == {"passage 1"}
    assert store.asked == []


@pytest.mark.parametrize(
    ("store", "encode"),
    [
        (TwoPassages(), Encoder(answers=False)),
        (TwoPassages(), Encoder(2 * MEANING_SECONDS)),
        (TwoPassages(seconds=2 * MEANING_SECONDS), Encoder()),
        (TwoPassages(failure=StoreUnavailable("away")), Encoder()),
        (TwoPassages(failure=StoreError("no such function")), Encoder()),
    ],
    ids=["no answer", "slow encoder", "slow statement", "away", "no function"],
)
async def test_where_meaning_is_not_to_be_had_words_have_to_do(
    store: TwoPassages, encode: Encoder, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    assert await found(store, encode) == {"passage 1"}
    assert trio.current_time() - began <= MEANING_SECONDS + 0.01


@pytest.mark.parametrize("seconds", [0.001, RECALL_SECONDS - READ_SECONDS + 0.001, 1.0])
async def test_what_words_have_found_is_read_in_time_however_slow_the_encoder_is(
    seconds: float, autojump_clock: MockClock
) -> None:
    asked: Store = TwoPassages()
    with trio.fail_after(RECALL_SECONDS):
        turns = await recall_turns(asked, "ada", QUESTION, Encoder(seconds))
    assert "passage 1" in {turn.text for turn in turns}


async def test_a_caller_that_is_cancelled_gets_nothing(autojump_clock: MockClock) -> None:
    ended: list[set[str]] = []

    async def search() -> None:
        ended.append(await found(TwoPassages(), Encoder(MEANING_SECONDS / 2)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(search)
        await trio.sleep(MEANING_SECONDS / 4)
        nursery.cancel_scope.cancel()
    assert ended == []


async def test_a_text_is_encoded_by_its_end(autojump_clock: MockClock) -> None:
    store = TwoPassages()
    asked: Store = store
    await search_turns(asked, "ada", question_of("word " * 1_000 + "harbour?"), 10, Encoder())
    (vector,) = store.asked
    assert vector.endswith("word harbour?]")
    assert len(vector) < 600


async def test_a_question_of_one_word_or_none_is_searched_by_meaning_and_by_words_alone_is_not() -> None:
    """Unasked, it must be about something: a pronoun and a question word are not."""
    one, none = question_of("Where do I live?"), question_of("我是谁?")
    assert (len(one.content), len(none.words)) == (1, 0)
    store = NoWords()
    asked: Store = store
    assert await recall_turns(asked, "ada", one) == ()
    assert {turn.text for turn in await recall_turns(asked, "ada", one, Encoder())} == {"passage 2"}
    assert {turn.text for turn in await search_turns(asked, "ada", none, 10, Encoder())} == {"passage 2"}
    assert await recall_turns(asked, "ada", none, Encoder()) == ()
    assert await search_turns(asked, "ada", question_of(" "), 10, Encoder()) == ()
