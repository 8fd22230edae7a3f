"""The words of a text, in any language, as keys of the index. Pure, and linear in the text's length.

A word of a language with a stemmer gets its stem, which PostgreSQL makes. Unless the language is English, it also gets
a prefix, which finds what the stemmer of a wrongly recognised language, a compound or a missing accent would lose.
Scripts that put no spaces between words get pairs of neighbouring characters. A prefix or pair begins with `~`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .languages import ENGLISH, Language, language_of

PREFIX_CHARS = 5
WORD_CHARS_MAX = 40  # of one word; what follows is left out
MARK = "~"  # never in a stem: no word contains it

# Han, Kana, Hangul, Thai, Lao, Burmese and Khmer: pairs of characters find more there than words do.
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(rf"([{_PAIRED}]+)|([^\W_{_PAIRED}]+(?:['’][^\W_{_PAIRED}]+)*)")
_NUMBERED = re.compile(r"\d{1,2}[월月]")
# Pairs of these only are grammar: Hiragana, and what Chinese and Japanese say of whom and ask by. Nearly every turn has
# some, and in a short past nothing tells them from words.
_GRAMMAR = re.compile(r"[\u3040-\u309f我你您他她它们的了是在有吗呢吧什么哪谁这那几怎也都和私僕俺何誰]+")
_KOREAN_PERSONS = frozenset(
    [
        "저",
        "저는",
        "저의",
        "저를",
        "제",
        "제가",
        "나",
        "나는",
        "나의",
        "나를",
        "내",
        "내가",
        "너",
        "너는",
        "네",
        "네가",
        "당신",
        "당신은",
        "당신의",
        "우리",
        "우리는",
    ]
)
_POSSESSIVE = re.compile(r"['’]s?$")
_ARABIC_ARTICLE = re.compile(r"^[وفبك]?ال(?=...)|^لل(?=...)")


@dataclass(frozen=True, slots=True)
class Word:
    """A word as the index knows it.

    text: in lower case, for a stemmer; empty: it has none, as a pair of characters.
    key: its prefix or pair, with `MARK`; empty: it has none, as an English word.
    """

    text: str
    key: str


def plain(text: str) -> list[str]:
    """The words of a text in lower case, in order; a run of a script without spaces is one of them."""
    return [(paired or spaced)[:WORD_CHARS_MAX] for paired, spaced in runs_of(text)]


def runs_of(text: str) -> list[tuple[str, str]]:
    """The words of a text in lower case, in order: each a run of a script without spaces, or a word between spaces."""
    return _RUNS.findall(unicodedata.normalize("NFKC", text).casefold())


def dated(text: str) -> list[str]:
    """What may be a month in a text: its words, and numbers with the character behind them."""
    return [*plain(text), *_NUMBERED.findall(unicodedata.normalize("NFKC", text))]


def words_of(text: str, language: Language | None = None, *, known: bool = False) -> Iterator[Word]:
    """The words of a text for the index, in order, without those that its language says all the time.

    Args:
        text: What was said.
        language: The text's, where the caller knows it.
        known: Whether `language` is to be believed, also where it is None; else it is recognised.
    """
    runs = runs_of(text)
    if not known:
        language = language_of(_bare(spaced) for _, spaced in runs if spaced)
    yield from words_in(runs, language)


def words_in(runs: Sequence[tuple[str, str]], language: Language | None) -> Iterator[Word]:
    """The words of a text for the index, from its runs, in the language that it is in."""
    for paired, spaced in runs:
        if paired in _KOREAN_PERSONS:
            continue
        if paired:
            yield from (Word("", MARK + pair) for pair in _pairs(paired))
        elif (word := _bare(spaced)) and not (language and word in language.common):
            yield Word(word, "" if language is ENGLISH else MARK + _prefix(word))


def _bare(word: str) -> str:
    if "'" in word or "’" in word:
        word = _POSSESSIVE.sub("", word).replace("’", "'")
    return word[:WORD_CHARS_MAX]


def _prefix(word: str) -> str:
    """The first letters, without accents and an article that is written as part of the word."""
    letters = "".join(each for each in unicodedata.normalize("NFKD", word) if not unicodedata.combining(each))
    return _ARABIC_ARTICLE.sub("", letters.replace("ـ", ""))[:PREFIX_CHARS]


def _pairs(run: str) -> Iterator[str]:
    """Neighbouring characters; a single one stands alone. Those of Hiragana only are grammar."""
    if len(run) == 1 and not _GRAMMAR.fullmatch(run):
        yield run
    for first, second in pairwise(run):
        if not _GRAMMAR.fullmatch(first + second):
            yield first + second
