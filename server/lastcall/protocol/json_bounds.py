"""Bounds on the values and the nesting of a JSON text, checked before it is parsed. Pure.

The parser makes an object of each value: one mebibyte of `[],[],…` takes it 0.4 s, 20,000 values a few milliseconds.
Brackets inside strings cost nothing, so a text that seems to exceed a bound is checked again without its strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

_BRACKETS = re.compile(r"[\[\]{}]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """values_max: JSON values in one text. depth_max: levels of nesting."""

    values_max: int
    depth_max: int

    def problem(self, text: str) -> str | None:
        """The bound that a text exceeds, as a sentence for the client. None for invalid JSON too: the parser says so.

        Takes time linear in the text's length.
        """
        opened = _opened(text)
        if opened <= self.depth_max and (len(text) <= self.values_max or _values(text) <= self.values_max):
            return None
        bare = _without_strings(text, self.values_max)
        if bare is None or _values(bare) > self.values_max:
            return f"An event may hold at most {self.values_max} JSON values."
        steps = (_STEP[bracket] for bracket in _BRACKETS.findall(bare))
        if max(accumulate(steps), default=0) > self.depth_max:
            return f"JSON may be nested at most {self.depth_max} levels deep."
        return None


def _without_strings(text: str, values_max: int) -> str | None:
    """The text outside of strings; None where it has too many strings.

    Not by a regular expression for strings: at each unclosed quote it would scan the rest of the text again.
    """
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    if unescaped.count('"') > 2 * values_max:
        return None
    return "".join(unescaped.split('"')[::2])


def _opened(text: str) -> int:
    return text.count("[") + text.count("{")


def _values(text: str) -> int:
    """An upper bound of the number of values."""
    return _opened(text) + text.count(",") + text.count(":")
