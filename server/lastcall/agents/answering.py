"""Finds the fact that answers a question, for a model that is too small to use what it is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from .agent import KnownFact

QUESTION_CHARS_MAX = 300  # a longer message is more than a question
SHARED_MIN = 0.5  # of the question's own words that a fact must have, where no slot is asked for

_SLOTS: Sequence[tuple[str, str]] = (
    (
        "name",
        (
            r"what(?:'s| is| was) my (?:first |full )?name|who am i\b|(?:know|remember|forgot|forget|tell me) my name"
            r"|what am i called|wie hei(?:ß|ss)e ich|comment je m'appelle|cómo me llamo|qual é (?:o )?meu nome"
            r"|come mi chiamo"
            r"|как меня зовут|我叫什么|私の名前は(?:何|なん)|ما اسمي"
        ),
    ),
    (
        "home",
        (
            r"where (?:do|am) i liv(?:e|ing)|(?:what|which) (?:city|town|country|place) (?:do|am) i liv|what(?:'s"
            r"| is) my (?:home )?"
            r"(?:address|city)|where(?:'s| is) my home|wo wohne ich|où (?:est-ce que )?j'habite|dónde vivo"
            r"|onde (?:eu )?moro"
            r"|dove (?:vivo|abito)|где я живу|我住(?:在)?哪|私はどこに住|أين أعيش"
        ),
    ),
    (
        "employer",
        (
            r"where (?:do|am) i work|who (?:do|am) i work(?:ing)? for|what(?:'s| is) my (?:employer|company|job)"
            r"|wo arbeite ich"
        ),
    ),
    ("occupation", r"what do i do (?:for|as)|what(?:'s| is) my (?:job|profession|occupation)|what do i work as"),
    ("age", r"how old am i|what(?:'s| is) my age|wie alt bin ich"),
    ("relationship", r"am i (?:still )?(?:married|single|engaged|divorced)"),
    ("diet", r"am i (?:still )?(?:an? )?(?:vegan|vegetarian|pescatarian)|what(?:'s| is) my diet"),
    ("vehicle", r"(?:what|which) (?:kind of )?(?:car|vehicle) (?:do|did) i|what(?:'s| is) my car|what do i drive"),
    (
        "health",
        r"what am i allergic|(?:do i have|what are my) (?:any )?allerg|am i allergic|wogegen bin ich allergisch",
    ),
    (
        "pet",
        r"(?:what(?:'s| is) (?:the name of )?my (?:dog|cat|pet)|do i have (?:any )?(?:an? )?(?:pets?|dogs?|cats?))",
    ),
)
_ASKED = [(slot, re.compile(pattern, re.IGNORECASE)) for slot, pattern in _SLOTS]
_FAVOURITE = re.compile(r"my favou?rite (?P<what>[^\W\d_]+(?: [^\W\d_]+){0,2})", re.IGNORECASE)
_IS_QUESTION = re.compile(
    r"[?？؟]\s*$|^\W*(?:what|who|where|when|which|how|do|did|does|am|is|can|could|tell me|remind me)\b",  # noqa: RUF001
    re.IGNORECASE,
)
_ABOUT_ME = re.compile(r"\b(?:i|my|me|mine|i'm|i've)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}")
_PLAIN = frozenset(
    [
        "what",
        "who",
        "where",
        "when",
        "which",
        "how",
        "why",
        "did",
        "does",
        "the",
        "and",
        "for",
        "you",
        "your",
        "know",
        "remember",
        "remind",
        "tell",
        "about",
        "mine",
        "have",
        "has",
        "had",
        "was",
        "were",
        "are",
        "can",
        "could",
        "should",
        "would",
        "will",
        "with",
        "from",
        "that",
        "this",
        "there",
        "name",
        "called",
        "give",
        "good",
        "some",
        "any",
        "like",
    ]
)


def fact_that_answers(question: str, facts: Sequence[KnownFact]) -> KnownFact | None:
    """The newest fact that answers the question; None where none does, or it is no question about the user."""
    if len(question) > QUESTION_CHARS_MAX or not _IS_QUESTION.search(question):
        return None
    slots = [slot for slot, pattern in _ASKED if pattern.search(question)]
    if favourite := _FAVOURITE.search(question):
        words = _words(favourite["what"])
        found = [fact for fact in facts if fact.slot.startswith("favourite") and words & _words(fact.content)]
        return found[-1] if found else None
    if slots:
        found = [fact for fact in facts if fact.slot in slots]
        shared = [fact for fact in found if _words(fact.content) & _words(question)]
        best_of = shared or found
        return best_of[-1] if best_of else None
    if not _ABOUT_ME.search(question):
        return None
    asked = _words(question)
    best = max(facts, key=lambda fact: len(asked & _words(fact.content)), default=None)
    if best is None or not asked or len(asked & _words(best.content)) < max(1, SHARED_MIN * len(asked)):
        return None
    return best


def quotation(fact: KnownFact) -> str:
    """`On 27 November you said: "…"`, as a paragraph."""
    if fact.said_at is None:
        return f'You once said: "{fact.content}"\n\n'
    day = datetime.fromtimestamp(fact.said_at, UTC)
    return f'On {day.day} {day:%B} you said: "{fact.content}"\n\n'


def _words(text: str) -> set[str]:
    words = (word.casefold() for word in _WORD.findall(text))
    return {word[:5] for word in words if word not in _PLAIN}
