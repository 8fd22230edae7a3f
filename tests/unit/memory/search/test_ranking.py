from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lastcall.memory.search.indexing import ASKS, BY_USER, TURN
from lastcall.memory.search.ranking import NAMED_SHARE, QUESTION_SHARE, calls_for_memory, rank
from lastcall.store.records import AskedWord, FoundPassage

WORD = AskedWord(2.0, known=True)
FULL = 100  # a weight of 1


def passage(
    mentions: dict[int, Sequence[int]], flags: Sequence[int], number: int = 1, topic: float = 0.0
) -> FoundPassage:
    """Of mentions by word, each the number of a turn."""
    at_most = 2.0 * len(mentions) + 0.3 * topic
    found = FoundPassage(number, topic, at_most, flags)
    found.mentions = {word: [[TURN * turn + FULL for turn in turns]] for word, turns in mentions.items()}
    return found


def order(*passages: FoundPassage, of_user: float = 1.0, of_agent: float = 1.0) -> list[tuple[int, int]]:
    asked = {number: WORD for each in passages for number in each.mentions}
    ranked = rank(asked, passages, 20, of_user=of_user, of_agent=of_agent)
    return [(each.passage_id, each.turn) for each in ranked]


def test_an_answer_behind_the_words_of_the_question_is_found() -> None:
    assert order(passage({0: [2], 1: [2]}, [0] * 9))[:4] == [(1, 2), (1, 3), (1, 1), (1, 4)]


def test_a_word_counts_once_at_its_nearest_mention() -> None:
    scores = rank({0: WORD}, [passage({0: [0, 1, 2]}, [0] * 3)], 20)
    assert {each.score for each in scores} == {2.0}


def test_a_turn_near_to_two_words_comes_before_one_with_either() -> None:
    assert order(passage({0: [0], 1: [1]}, [0] * 3))[0] == (1, 1)


def test_turns_of_the_one_who_is_named_come_first() -> None:
    found = passage({0: [0, 7]}, [0] * 7 + [BY_USER])
    assert order(found, of_user=NAMED_SHARE)[0] == (1, 7)
    assert order(found, of_agent=NAMED_SHARE)[0] == (1, 0)


def test_questions_come_behind_what_answers_them() -> None:
    scores = {each.turn: each.score for each in rank({0: WORD}, [passage({0: [0, 9]}, [ASKS] + [0] * 9)], 20)}
    assert scores[0] == QUESTION_SHARE * scores[9]


def test_what_the_whole_session_is_about_decides_between_equals() -> None:
    assert order(passage({0: [0]}, [0], 1), passage({0: [0]}, [0], 2, topic=1.0))[0] == (2, 0)


def test_no_better_turn_is_lost_to_the_order_of_passages() -> None:
    """The ranking stops early; it must find what it would find otherwise."""
    random = Random(7)
    for _ in range(50):
        passages = [
            passage(
                {word: sorted(random.sample(range(20), 3)) for word in random.sample(range(5), random.randint(1, 5))},
                [random.choice([0, BY_USER, ASKS]) for _ in range(20)],
                number,
                random.random(),
            )
            for number in range(30)
        ]
        asked = dict.fromkeys(range(5), WORD)
        everything = rank(asked, passages, 10_000, of_user=NAMED_SHARE)
        best = rank(asked, passages, 10, of_user=NAMED_SHARE)
        assert [each.score for each in best] == [each.score for each in everything[:10]]


def test_memory_is_called_for_by_words_that_the_past_has() -> None:
    asked = {0: WORD, 1: WORD, 2: AskedWord(9.0, known=False)}
    ranked = rank(asked, [passage({0: [0], 1: [0]}, [0])], 20)
    assert calls_for_memory(asked, {0, 1, 2}, ranked)
    assert not calls_for_memory(asked, {0, 2}, ranked)  # the other one is a courtesy
    assert not calls_for_memory(asked | {3: AskedWord(9.0, known=False)}, {0, 1, 2, 3}, ranked)  # too little of it
    assert not calls_for_memory({}, set(), [])
