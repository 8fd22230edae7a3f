from __future__ import annotations

import pytest
from lastcall.memory.search.ranking import NAMED_SHARE
from lastcall.memory.search.recalling import (
    QUESTION_CHARS_MAX,
    WORDS_MAX,
    Names,
    names_of,
    question_of,
    recall_turns,
)
from lastcall.store.records import RememberedFact
from lastcall.store.store import Store

from tests.support.fake_store import FakeStore


@pytest.mark.parametrize(
    ("text", "user", "agent"),
    [
        ("What is my dog called?", True, False),
        ("Do you remember where I live?", True, False),
        ("What did you recommend?", False, True),
        ("What did Ada say about boats?", True, False),
        ("Which city was it?", False, False),
        ("我的狗叫什么名字？", True, False),  # noqa: RUF001
        ("Как зовут мою собаку?", True, False),
    ],
)
def test_a_question_names_whom_it_is_about(text: str, user: bool, agent: bool) -> None:
    question = question_of(text, Names(user={"ada"}))
    assert (question.of_user, question.of_agent) == (NAMED_SHARE if user else 1, NAMED_SHARE if agent else 1)


def test_a_name_counts_more_than_a_pronoun() -> None:
    question = question_of("Did I ask when Bob came?", Names(agent={"bob"}))
    assert (question.of_user, question.of_agent) == (1, NAMED_SHARE)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("My name is Ada.", {"ada"}),
        ("I'm Ada Lovelace", {"ada", "lovelace"}),
        ("Ich heiße Jörg", {"jörg"}),
        ("call me maybe", set()),
    ],
)
def test_names_are_read_from_what_is_remembered(content: str, names: set[str]) -> None:
    assert {*names_of([RememberedFact("name", content), RememberedFact("place", "Lives in Oslo")]).user} >= names
    assert "oslo" not in names_of([RememberedFact("place", "Lives in Oslo")]).user


async def test_small_talk_costs_no_statement() -> None:
    store = FakeStore()
    store.fail_before = pytest.fail
    asked: Store = store
    for text in ("hi", "Thanks a lot!", "ok great", "", "danke", "?"):
        assert await recall_turns(asked, "ada", question_of(text)) == ()


def test_a_long_text_costs_no_more_than_its_end() -> None:
    question = question_of(" ".join(f"word{n}" for n in range(100_000)))
    assert len(question.words) == WORDS_MAX
    assert question.words[-1].text == "word99999"
    assert question_of("x" * QUESTION_CHARS_MAX * 100).words
