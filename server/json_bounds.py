"""Whether a JSON text is so deep, or of so many parts, that reading it would keep everybody waiting. Pure.

One mebibyte of `[],[],…` takes the parser, which makes an object of each, 0.4 s; of 20,000 of them, a few milliseconds.
Where the brackets stand inside strings they cost nothing, so that text, which may hold any of them, is looked at twice.
"""

from __future__ import annotations

import re
from itertools import accumulate

JSON_VALUES_MAX = 20_000
JSON_DEPTH_MAX = 64

_BRACKETS = re.compile(r"[\[\]{}]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def problem(text: str) -> str | None:
    """What is wrong with it, in a sentence for the client; None also for what is no JSON, which the parser will say."""
    if _values(text) <= JSON_VALUES_MAX and _opened(text) <= JSON_DEPTH_MAX:
        return None
    bare = _without_strings(text)
    if bare is None or _values(bare) > JSON_VALUES_MAX:
        return f"An event holds at most {JSON_VALUES_MAX} JSON values."
    steps = (_STEP[bracket] for bracket in _BRACKETS.findall(bare))
    if max(accumulate(steps), default=0) > JSON_DEPTH_MAX:
        return f"JSON may be nested at most {JSON_DEPTH_MAX} deep."
    return None


def _without_strings(text: str) -> str | None:
    """What stands outside of strings; None: there are too many of them. Time grows with the length alone.

    An expression for strings would go through the rest of the text again for each quote that nothing closes.
    """
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    if unescaped.count('"') > 2 * JSON_VALUES_MAX:
        return None
    return "".join(unescaped.split('"')[::2])


def _opened(text: str) -> int:
    return text.count("[") + text.count("{")


def _values(text: str) -> int:
    """No fewer than the values in it."""
    return _opened(text) + text.count(",") + text.count(":")
