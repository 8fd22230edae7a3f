"""Extracts memories without a model: the user's own sentences about themselves, word for word. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..agents.agent import Memory, Message, Transcript
from .grounding import STRAIGHT_APOSTROPHES
from .patterns import (
    AFTER_NAMES,
    ASKS,
    I_AM,
    LEADS_UP,
    NATIONALITIES,
    NO_NAMES,
    NOT_MEANT,
    POLITE,
    REMEMBER,
    RULES,
    THEN_ASKS,
)
from .sentences import FULLWIDTH_QUESTION_MARK, sentences

MEMORIES_MAX = 20  # of one session; the newest are kept
INPUT_CHARS_MAX = 50_000  # of the user's messages of one session; the newest are read

_SPACES = re.compile(r" {2,}")


def memories_by_rules(transcript: Transcript) -> list[Memory]:
    """The user's sentences about themselves, oldest first; each memory's content is its quote."""
    found: dict[str, Memory] = {}
    for message, text, whole in _newest(transcript.messages):
        for sentence, shown in sentences(text, whole=whole):
            if fact := _fact(sentence, shown):
                kind, quote = fact
                key = " ".join(quote.casefold().translate(STRAIGHT_APOSTROPHES).split()).rstrip(".!")
                found.pop(key, None)  # repeated: the newer item counts
                found[key] = Memory(kind, quote, message.item_id, quote)
                if len(found) > MEMORIES_MAX:
                    del found[next(iter(found))]
    return list(found.values())


def _newest(messages: Sequence[Message]) -> list[tuple[Message, str, bool]]:
    """The user's newest messages that fit, oldest first; each with its text, and whether that is the whole text."""
    taken, left = [], INPUT_CHARS_MAX
    for message in reversed(messages):
        if message.role == "user" and left > 0:
            taken.append((message, message.text[-left:], len(message.text) <= left))
            left -= len(message.text)
    return taken[::-1]


def _fact(sentence: str, shown: str) -> tuple[str, str] | None:
    """The kind of fact that a sentence states, and its words; a question after them is left out."""
    asks = shown.endswith(("?", FULLWIDTH_QUESTION_MARK))
    if asks and not POLITE.match(shown):
        then = THEN_ASKS.search(shown)
        if not then:
            return None
        sentence, shown = sentence[: then.start()].rstrip(), shown[: then.start()].rstrip()
    shown = _SPACES.sub(" ", shown)  # patterns that begin with spaces would read a long run once per space
    if NOT_MEANT.search(shown) or (ASKS.match(shown) and not POLITE.match(shown)):
        return None
    kind = _kind(shown)
    return (kind, sentence.rstrip()) if kind else None  # an unclosed quotation hides trailing white space


def _kind(shown: str) -> str | None:
    """The kind of the first fact in the sentence; "remember that …" only decides if no other pattern does."""
    clauses = sorted({*([0] if shown[:1].isalpha() else []), *(match.end(1) for match in LEADS_UP.finditer(shown))})
    for start in clauses:
        if kind := _kind_of_clause(shown, start):
            return kind
    return "note" if any(REMEMBER.match(shown, start) for start in clauses) else None


def _kind_of_clause(shown: str, start: int) -> str | None:
    for kind, rule in RULES:
        if match := rule.match(shown, start):
            return _negated(kind, match)
    match = I_AM.match(shown, start)
    return _introduced(shown, match) if match else None


def _negated(kind: str, match: re.Match[str]) -> str:
    if not match.groupdict().get("neg"):
        return kind
    return "dislike" if kind == "like" else "note"


def _introduced(shown: str, match: re.Match[str]) -> str | None:
    """The kind of "I'm Ada": a name if the word is capitalised like one."""
    word = match["name"].rstrip(".,;!)")
    plain = word.casefold()
    if NATIONALITIES.fullmatch(plain):
        return "note"
    is_name = word[:1].isalpha() and not word[0].islower() and not shown.isupper() and plain not in NO_NAMES
    ends = word != match["name"] or not match["more"] or _after_name(match["more"])
    if not (is_name and ends):
        return None
    return "note" if match["neg"] else "name"


def _after_name(more: str) -> bool:
    """Whether these words may follow a name: more names, or a word that begins a new phrase."""
    first = more.split()[0]
    return not first[0].islower() or first in AFTER_NAMES
