"""Texts that were cut through a character are taken all the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.protocol.half_characters import without_half_characters

LONE = {*map(chr, range(0xD800, 0xE000))}


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (r"half \ud83e", r"half \ufffd"),
        (r"\udd8a half", r"\ufffd half"),
        (r"\udd8a\ud83e", r"\ufffd\ufffd"),
        (r"\ud83e\ud83e\udd8a", r"\ufffd\ud83e\udd8a"),
        (r"whole \ud83e\udd8a \u00e9", r"whole \ud83e\udd8a \u00e9"),
        (r"no escape \\ud83e", r"no escape \\ud83e"),
        (r"\\\ud83e", r"\\\ufffd"),
        ("\\", "\\"),
    ],
)
def test_a_half_becomes_the_replacement_character(text: str, repaired: str) -> None:
    assert without_half_characters(text) == repaired


@given(st.text(st.characters(codec=None), max_size=12))
def test_any_text_is_repaired_like_the_text_itself(text: str) -> None:
    repaired = json.loads(without_half_characters(json.dumps(text)))
    pairs = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert not LONE & set(repaired)
    assert [c for c in repaired if c != "\ufffd"] == [c for c in pairs if c != "\ufffd"]
