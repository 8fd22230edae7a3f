"""Turns are ranked by words and by meaning together."""

from __future__ import annotations

import pytest
from lastcall.memory.search.fusing import NEIGHBOURS, fuse, is_meant, nearness_of
from lastcall.memory.search.indexing import ASKS, BY_USER
from lastcall.memory.search.ranking import NAMED_SHARE, rank
from lastcall.store.people.meanings import MeaningResult, MeantPassage
from lastcall.store.records import AskedWord, FoundPassage, SearchResult

NO_WORDS = SearchResult({}, [])
FLAGS = [BY_USER, 0] * 6


def words(turn: int, *, turns: int = 12, passage_id: int = 1) -> SearchResult:
    """A word of the question, said in this turn alone."""
    found = FoundPassage(passage_id, 0.0, 9.0, [0] * turns, {0: [[256 * turn + 100]]})
    return SearchResult({0: AskedWord(1.0, known=True)}, [found])


def meaning(nearness: dict[int, float], flags: list[int] = FLAGS, *, turns: int = 100) -> MeaningResult:
    """Of a past in which most turns have nothing to do with the question."""
    return MeaningResult({1: MeantPassage(flags, nearness)}, turns, 0.1, 0.1, max(nearness.values()))


def order(found: SearchResult, meant: MeaningResult, *, of_user: float = 1.0, limit: int = 12) -> list[int]:
    return [each.turn for each in fuse(found, meant, limit, of_user=of_user, of_agent=1.0)]


def test_a_turn_without_a_word_of_the_question_is_found_by_its_meaning() -> None:
    assert order(NO_WORDS, meaning({turn: 0.7 if turn == 5 else 0.1 for turn in range(12)}))[0] == 5


def test_of_two_turns_with_the_same_word_the_meaning_tells() -> None:
    found = words(2)
    found.passages[0].mentions[0][0] = [256 * 2 + 100, 256 * 9 + 100]
    assert order(found, meaning({2: 0.1, 9: 0.4}))[0] == 9
    assert order(found, meaning({2: 0.4, 9: 0.1}))[0] == 2


def test_where_meanings_say_nothing_the_order_is_that_of_words() -> None:
    found = words(3)
    by_words = [each.turn for each in rank(found.asked, found.passages, 6)]
    assert order(found, meaning(dict.fromkeys(range(12), 0.1)), limit=6) == by_words


def test_neighbours_of_a_near_turn_come_before_others() -> None:
    ranked = order(NO_WORDS, meaning({turn: 0.7 if turn == 5 else 0.1 for turn in range(12)}))
    assert {*ranked[1:3]} == {4, 6}
    assert {*ranked[: 1 + 2 * len(NEIGHBOURS)]} == {3, 4, 5, 6, 7}


def test_what_one_person_says_in_a_row_is_about_different_things() -> None:
    near = {turn: 0.7 if turn == 5 else 0.1 for turn in range(12)}
    ranked = order(NO_WORDS, meaning(near, [BY_USER] * 12), limit=3)
    assert {*ranked} == {5, 3, 7}


def test_a_word_counts_less_the_less_it_covers_of_the_question() -> None:
    """In a short past nothing tells a word that everybody uses from one that names what is asked for."""
    found = words(3)
    others = {number: AskedWord(1.0, known=False) for number in range(1, 6)}
    partly = SearchResult({**found.asked, **others}, found.passages)
    meant = meaning({turn: 0.7 if turn == 8 else 0.1 for turn in range(12)}, turns=12)
    assert order(found, meant)[0] == 3
    assert order(partly, meant)[0] == 8


def test_turns_of_the_one_who_is_meant_count_more_and_questions_less() -> None:
    near = dict.fromkeys((0, 6, 11), 0.5)
    flags = [BY_USER | ASKS, *[0] * 5, 0, *[0] * 4, BY_USER]
    assert order(NO_WORDS, meaning(near, flags), of_user=NAMED_SHARE)[0] == 11


def test_a_turn_whose_meaning_is_not_known_is_neither_near_nor_far() -> None:
    """One that was indexed before there were meanings: it has its words."""
    found = words(3)
    assert order(found, meaning({0: 0.1, 11: -0.3}))[0] == 3
    assert order(found, MeaningResult({}, 100, 0.1, 0.1, 0.5))[0] == 3


def test_meanings_that_are_all_the_same_change_nothing() -> None:
    same = MeaningResult({1: MeantPassage(FLAGS, dict.fromkeys(range(12), 0.5))}, 12, 0.5, 0.0, 0.5)
    assert order(words(3), same)[0] == 3


@pytest.mark.parametrize(
    ("nearest", "turns", "is_about"),
    [(0.45, 5, True), (0.2, 5, False), (0.45, 500, False), (0.6, 500, True), (0.55, 4000, False), (0.9, 0, False)],
)
def test_the_more_turns_there_are_the_nearer_one_must_be(nearest: float, turns: int, is_about: bool) -> None:
    assert is_meant(MeaningResult({}, turns, 0.1, 0.1, nearest)) is is_about


def test_it_can_be_told_how_near_a_turn_is() -> None:
    meant = meaning({5: 0.7})
    near = {each.turn: nearness_of(meant, each) for each in fuse(NO_WORDS, meant, 12, of_user=1.0, of_agent=1.0)}
    assert (near[5], near[4]) == (0.7, None)
