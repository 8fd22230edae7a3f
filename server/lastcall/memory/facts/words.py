"""The words of a fact that say what it is about, by which "no longer …" finds what it ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .rule_files import read_words

WORDS_MAX = 24  # of one fact
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[\u3040-\u30ff\u3400-\u9fff]+")
_GRAMMAR = re.compile(r"[\u3040-\u309f]*|我.|.的|住.|.在")  # of Japanese and Chinese: endings and particles
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_KINDS = read_words("plain_words")
SLOT_NOUNS = frozenset(
    ["car", "vehicle", "auto", "wheels", "job", "work", "position", "employer", "company", "relationship", "diet"]
)
"""Alone in "I quit my job", these name the slot, not what is in it."""


def content_words(text: str) -> tuple[str, ...]:
    """The words that say what a text is about, in lower case, without plural endings; pairs of wide characters."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text.casefold().replace("’", "'")):
        word = match.group()
        if _WIDE.match(word):
            pairs = (word[at : at + 2] for at in range(max(len(word) - 1, 1)))
            found.update(dict.fromkeys(pair for pair in pairs if not _GRAMMAR.fullmatch(pair)))
        elif word not in _KINDS and len(word) > 1:
            found[_singular(word)] = None
        if len(found) >= WORDS_MAX:
            break
    return tuple(found)[:WORDS_MAX]


def ended_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words by which an ending finds what it ends; none where it only names the slot: "I quit my job"."""
    return tuple(word for word in words if word not in SLOT_NOUNS)


def _singular(word: str) -> str:
    word = word.removesuffix("'s")
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
