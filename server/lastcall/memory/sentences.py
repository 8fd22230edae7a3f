"""Splits a message into sentences, and hides what the user only quotes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .facts.grounding import STRAIGHT_APOSTROPHES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SENTENCE_CHARS_MAX = 400  # a longer sentence is no plain fact, and the patterns need a bound
FULLWIDTH_QUESTION_MARK = "\N{FULLWIDTH QUESTION MARK}"

_CLOSING = {'"': '"', "“": "”", "„": "“", "«": "»"}
_HIDDEN = "\0"  # stands for each quoted character
_WIDE_ENDS = f"。\N{FULLWIDTH EXCLAMATION MARK}{FULLWIDTH_QUESTION_MARK}"  # no space follows them
_ENDS = re.compile(f"[.!?…{_WIDE_ENDS}]+")
_AFTER_ENDS = frozenset("\"'”)»")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|jr|sr|no|e\.g|i\.e|approx|[^\W\d_](?:\.[^\W\d_])*)$", re.IGNORECASE
)
_MARKER = re.compile(r"[\s>*•#-]*(?:\d{1,3}[.)]\s+)?")


def sentences(text: str, *, whole: bool) -> Iterator[tuple[str, str]]:
    """Yields each sentence twice: as written, and with quoted parts hidden (same length). Skips code and `>` lines.

    whole: False if the text is the end of a longer one; its first sentence is then skipped.
    """
    fenced = False
    for line in text.splitlines():
        first, whole = not whole, True
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith(">"):
            shown = _hide_quoted(line.translate(STRAIGHT_APOSTROPHES))
            for start, end in _spans(shown):
                if not first:  # cut in the middle, it may have lost its "don't"
                    yield line[start:end], shown[start:end]
                first = False


def lowered(text: str) -> str:
    """The text in lower case, each character at its place: patterns that ignore case take twice as long to search."""
    return text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i").lower()


def has_sign(text: str, signs: Sequence[str]) -> bool:
    """Whether a text has one of the parts that a pattern cannot match without.

    A pattern of many alternatives tries each at every character, and most texts have none of them.
    """
    return any(map(text.__contains__, signs))


def _spans(line: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence of a line, with its full stop, without list markers and white space."""
    start = 0
    # A run of marks is one match: a lookahead in the pattern would read a long run once per mark.
    for mark in _ENDS.finditer(line):
        goes_on = mark.end() < len(line) and not line[mark.end()].isspace() and mark.group()[0] not in _WIDE_ENDS
        short = mark.group() == "." and _ABBREVIATION.search(line, max(start, mark.start() - 8), mark.start())
        if short or (goes_on and line[mark.end()] not in _AFTER_ENDS):
            continue
        yield from _trimmed(line, start, mark.end())
        start = mark.end()
    yield from _trimmed(line, start, len(line))


def _trimmed(line: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start > SENTENCE_CHARS_MAX:
        return
    part = line[start:end]
    skipped = _MARKER.match(part)
    start += skipped.end() if skipped else 0
    end -= len(part) - len(part.rstrip())
    if start < end:
        yield start, end


def _hide_quoted(line: str) -> str:
    """The line with quotations hidden; an unclosed one extends to the end of the line."""
    parts, position = [], 0
    for opening in re.finditer(r"(?<![\w.])[\"“„«']", line):
        if opening.start() < position:
            continue
        mark = opening.group()
        end = _single_close(line, opening.end()) if mark == "'" else line.find(_CLOSING[mark], opening.end())
        if end < 0 and mark == "'":
            continue  # an apostrophe: 'cause
        end = len(line) if end < 0 else end
        parts += [line[position : opening.end()], _HIDDEN * (end - opening.end())]
        position = end
    return "".join(parts) + line[position:]


def _single_close(line: str, start: int) -> int:
    match = re.compile(r"'(?!\w)").search(line, start, start + SENTENCE_CHARS_MAX)
    return match.start() if match else -1
