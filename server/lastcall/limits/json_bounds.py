"""Whether a JSON text is so deep, or of so many parts, that reading it would keep everybody waiting. Pure.

One mebibyte of `[],[],…` takes the parser, which makes an object of each, 0.4 s; of 20,000 of them, a few milliseconds.
Where the brackets stand inside strings they cost nothing, so that text, which may hold any of them, is looked at twice.
"""

from __future__ import annotations

import re
from itertools import accumulate

_BRACKETS = re.compile(r"[\[\]{}]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def problem(text: str, values_max: int, depth_max: int) -> str | None:
    """What is wrong with it, in a sentence for the client; None also for what is no JSON, which the parser will say."""
    if _values(text) <= values_max and _opened(text) <= depth_max:
        return None
    bare = _without_strings(text, values_max)
    if bare is None or _values(bare) > values_max:
        return f"An event holds at most {values_max} JSON values."
    steps = (_STEP[bracket] for bracket in _BRACKETS.findall(bare))
    if max(accumulate(steps), default=0) > depth_max:
        return f"JSON may be nested at most {depth_max} deep."
    return None


def _without_strings(text: str, values_max: int) -> str | None:
    """What stands outside of strings; None: there are too many of them. Time grows with the length alone.

    An expression for strings would go through the rest of the text again for each quote that nothing closes.
    """
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    if unescaped.count('"') > 2 * values_max:
        return None
    return "".join(unescaped.split('"')[::2])


def _opened(text: str) -> int:
    return text.count("[") + text.count("{")


def _values(text: str) -> int:
    """No fewer than the values in it."""
    return _opened(text) + text.count(",") + text.count(":")
