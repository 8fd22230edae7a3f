"""Which fact answers a question, and how it is quoted."""

from __future__ import annotations

import pytest
from lastcall.agents.agent import KnownFact
from lastcall.agents.answering import fact_that_answers, quotation

FACTS = [
    KnownFact("My name is Ada.", "name", 1_764_201_600.0),
    KnownFact("I live in Oslo.", "home", None),
    KnownFact("My favourite colour is green.", "favourite:colour", None),
    KnownFact("My boat is called Gannet.", "owns", None),
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is my name?", "My name is Ada."),
        ("do you remember my name", "My name is Ada."),
        ("Do you know my name?", "My name is Ada."),
        ("Where do I live?", "I live in Oslo."),
        ("Wie heiße ich?", "My name is Ada."),
        ("What's my favourite colour?", "My favourite colour is green."),
        ("What's my favourite food?", None),
        ("What is my boat called?", "My boat is called Gannet."),
        ("What is the capital of Norway?", None),
        ("How old am I?", None),
        ("I like boats.", None),
    ],
)
def test_a_question_about_oneself_is_answered_by_the_fact_that_is_asked_for(question: str, answer: str | None) -> None:
    found = fact_that_answers(question, FACTS)
    assert (found.content if found else None) == answer


def test_a_fact_is_quoted_with_its_date() -> None:
    assert quotation(FACTS[0]) == 'On 27 November you said: "My name is Ada."\n\n'
    assert quotation(FACTS[1]) == 'You once said: "I live in Oslo."\n\n'
