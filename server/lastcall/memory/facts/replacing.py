"""Tells what takes the place of something that is so no longer: "not in Berlin any more but in Oslo". Pure."""

from __future__ import annotations

import re

from .slots import FAVOURITE, is_one_valued
from .words import content_words

# Where a sentence turns from what was so to what is so, or the other way round.
_TURNS = re.compile(
    r"(?P<contrast>\b(?:but|sondern|mais|sino|pero|mas|ma|bensì|а|но)\b|而是|بل)"  # noqa: RUF001
    r"|[,;:、，；—–،]",  # noqa: RUF001
    re.IGNORECASE,
)
_NOT = re.compile(
    r"n't\b|\b(?:not|no longer|any ?more|never|used to|dont|quit|stopped|left|sold"
    r"|nicht|keine?[nmrs]?|mehr|früher|gekündigt|verkauft"
    r"|ne|n'\w+|plus|no|ya no|antes|dejé|vendí|não|non|più|smesso|не|больше|раньше)\b"
    r"|不|没|以前|ない|ません|لم|لا|لست",
    re.IGNORECASE,
)
_NOW = re.compile(
    r"\b(?:now|these days|it'?s|we'?re|jetzt|nun|inzwischen|maintenant|désormais|ahora|agora|ora|adesso)\b"
    r"|\b(?:теперь|сейчас)\b"
    r"|现在|今は|今、|الآن",
    re.IGNORECASE,
)
_PORTUGUESE_NOT = re.compile(r"\bnão\b", re.IGNORECASE)  # with it, "mais" is "any more", in French it is "but"
_FREE = frozenset({"diet", "relationship"})  # their values have no capital letter


def says_what_is(shown: str, at: int, slot: str) -> bool:
    """Whether a sentence that says what is so no longer also says what is so instead, of a slot with one value.

    shown: the sentence. at: where the fact starts in it.
    """
    if not is_one_valued(slot):
        return False
    start, after_contrast, negated_before = 0, False, False
    turns = [turn for turn in _TURNS.finditer(shown) if turn.group() != "mais" or not _PORTUGUESE_NOT.search(shown)]
    for turn in (*turns, None):
        part = shown[start : turn.start() if turn else len(shown)]
        if _NOT.search(part):
            negated_before = True
        elif _names(part, slot, is_first=start == 0) and (
            start <= at < start + len(part) or (negated_before and (after_contrast or _NOW.search(part)))
        ):
            return True
        if turn:
            start, after_contrast = turn.end(), bool(turn["contrast"])
    return False


def _names(part: str, slot: str, *, is_first: bool) -> bool:
    """Whether a part of a sentence has a value for the slot: a name or number, where the script tells names."""
    if slot in _FREE or slot.startswith(FAVOURITE) or part.upper() == part.lower():
        return bool(content_words(part))
    words = part.split()[1 if is_first else 0 :]
    return any(word[:1].isdecimal() or (word[:1].isupper() and word not in ("I", "I'm", "I've")) for word in words)
