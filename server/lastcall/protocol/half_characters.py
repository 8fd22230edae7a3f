"""Halves of characters in JSON: clients that cut a text at a length cut through emoji. Pure.

JavaScript writes such a half as `\\ud83d`: JSON by its grammar, but no Unicode text, and no database takes it.
"""

from __future__ import annotations

import re

_REPLACEMENT = r"\ufffd"
# Each escape is matched whole, so that in `\\ud83d`, a backslash and five letters, nothing is found.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[dD][89a-fA-F][\da-fA-F]{2}|.)")
_HALF_CHARS = 6  # of the escape of a half; that of a pair is twice as long


def without_half_characters(json: str) -> str:
    """The JSON text with U+FFFD in the place of each half. Linear in its length."""
    return _ESCAPE.sub(lambda found: _REPLACEMENT if len(found[0]) == _HALF_CHARS else found[0], json)
