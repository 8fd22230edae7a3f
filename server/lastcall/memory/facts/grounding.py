"""Checks the quotes of memories against the user's own words. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import product

from ...agents.agent import Memory, Transcript

QUOTE_CHARS_MIN = 3  # a shorter quote is found in almost any text, and proves nothing
_MARKS = " \t\n.…\"'`“”„«»‹›‘’"  # noqa: RUF001
STRAIGHT_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ´`′", "'"))  # noqa: RUF001


def grounded(memories: Collection[Memory], transcript: Transcript) -> list[Memory]:
    """The memories whose quote is in the user's item that they name, with the quote in the item's own wording.

    Case, white space and the style of apostrophes do not matter. A memory whose `item_id` is empty gets the newest item
    that has its quote.
    """
    texts = {message.item_id: message.text for message in transcript.messages if message.role == "user"}
    named = {memory.item_id for memory in memories}
    plain = {item_id: _plain(text) for item_id, text in reversed(texts.items()) if "" in named or item_id in named}
    kept = []
    for memory in memories:
        item_ids = [memory.item_id] if memory.item_id else [*plain]
        for item_id, wanted in product(item_ids, _wanted(memory.quote)):
            if item_id in plain and (found := _found(memory.quote.strip(), wanted, texts[item_id], *plain[item_id])):
                kept.append(replace(memory, item_id=item_id, quote=found))
                break
    return kept


def _wanted(quote: str) -> Iterable[str]:
    """The quote as it is, in the normal forms that texts come in, and without the marks that models put around it."""
    forms = (quote, *(unicodedata.normalize(form, quote) for form in ("NFC", "NFD")), quote.strip(_MARKS))
    return dict.fromkeys(_plain(form)[0] for form in forms)


def _found(quote: str, wanted: str, text: str, plain: str, positions: Sequence[int]) -> str | None:
    """The quote where the text has it word for word, else the first part of it that matches.

    Plain string searches: linear, whatever the model quotes.
    """
    if len(quote) >= QUOTE_CHARS_MIN and quote in text:
        return quote
    at = plain.find(wanted)
    if at < 0 or len(wanted) < QUOTE_CHARS_MIN:
        return None
    return text[positions[at] : positions[at + len(wanted) - 1] + 1]


def _plain(text: str) -> tuple[str, list[int]]:
    """The text in lower case, with straight apostrophes and single spaces; and each character's original position."""
    characters: list[str] = []
    positions: list[int] = []
    for word in re.finditer(r"\S+", text):
        if characters:
            characters.append(" ")
            positions.append(word.start() - 1)
        characters += [low if len(low := character.lower()) == 1 else character for character in word.group()]
        positions += range(word.start(), word.end())
    return "".join(characters).translate(STRAIGHT_APOSTROPHES), positions
