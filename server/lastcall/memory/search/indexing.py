"""The words of a session's turns, as the index takes them. Pure; runs in the process of the rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import msgspec

from ...agents.agent import Message
from ..facts.redaction import REDACTED, redacted_start
from .languages import Language, language_of
from .words import runs_of, words_in

PASSAGE_TURNS_MAX = 120  # turns that are ranked together; a longer session has several passages
TURN_CHARS_MAX = 8_000  # of one turn; what follows is not found
SESSION_CHARS_MAX = 200_000  # of one session, beyond which no further passage is taken
WORDS_MAX = 20_000  # different ones of one session: each is a row
TURN = 256  # a mention is TURN * (number of the turn in its passage) + (how often the word is in it)
COUNT_MAX = 255
SAME_TURNS_MAX = 3  # of a passage that have the same text: more of them say nothing more, and each costs every search
BY_USER, ASKS = 1, 2  # flags of a turn
QUESTION_MARKS = ("?", "\uff1f", "\u061f")


class IndexedWord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A word of a passage: see `Word`. stemmer: of its text's language. mentions: see `TURN`."""

    mentions: list[int]
    text: str = ""
    key: str = ""
    stemmer: str = ""


class Passage(msgspec.Struct, frozen=True):
    """Turns of one session that follow each other; the lists have an element for each.

    lengths: in words. flags: `BY_USER` and `ASKS`. stemmers: all of those of its words.
    """

    items: list[str]
    lengths: list[int]
    flags: list[int]
    stemmers: list[str]
    words: list[IndexedWord]


def passages_of(messages: Sequence[Message]) -> list[Passage]:
    """What the index takes of a session, oldest first: its newest turns, within the bounds."""
    from .topic import mark_topic  # not above: its patterns are slow to compile, and the server needs none

    turns = [message for message in messages if message.role != "system" and message.text.strip()]
    passages: list[Passage] = []
    words = chars = 0
    for end in range(len(turns), 0, -PASSAGE_TURNS_MAX):
        part = turns[max(0, end - PASSAGE_TURNS_MAX) : end]
        chars += sum(min(len(turn.text), TURN_CHARS_MAX) for turn in part)
        if passages and chars > SESSION_CHARS_MAX:
            break
        passage = _passage(part, WORDS_MAX - words)
        words += len(passage.words)
        passages.append(passage)
    passages.reverse()
    mark_topic(passages, turns)
    return passages


def _passage(turns: Sequence[Message], words_max: int) -> Passage:
    counts: dict[tuple[str, str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    lengths: list[int] = []
    texts = [redacted_start(turn.text, TURN_CHARS_MAX).replace(REDACTED, " ") for turn in turns]
    runs = [runs_of(text) for text in texts]
    said: Counter[str] = Counter()
    for number, (text, language) in enumerate(zip(texts, _languages(runs), strict=True)):
        words = list(words_in(runs[number], language))
        lengths.append(len(words))
        said[text] += 1
        if said[text] > SAME_TURNS_MAX:
            continue
        for word in words:
            stemmer = language.stemmer if language and word.text else ""
            counts[word.text, word.key, stemmer][number] += 1
    return Passage(
        items=[turn.item_id for turn in turns],
        lengths=lengths,
        flags=[_flags(turn) for turn in turns],
        stemmers=sorted({stemmer for _, _, stemmer in counts if stemmer}),
        words=[
            IndexedWord([TURN * number + min(count, COUNT_MAX) for number, count in found.items()], text, key, stemmer)
            for (text, key, stemmer), found in islice(counts.items(), words_max)
        ],
    )


def _languages(texts: Sequence[Sequence[tuple[str, str]]]) -> list[Language | None]:
    """The language of each text; of one too short to tell, that of the text before it, or else of the next."""
    told = [language_of(paired or spaced for paired, spaced in runs) for runs in texts]
    last = next((language for language in told if language is not None), None)
    return [last := language or last for language in told]


def _flags(turn: Message) -> int:
    asks = turn.text.rstrip().endswith(QUESTION_MARKS)
    return (BY_USER if turn.role == "user" else 0) | (ASKS if asks else 0)
