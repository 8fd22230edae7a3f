"""Finds the list of facts in a model's answer, also where the endpoint does not enforce its form. Pure.

The list may stand in a code fence, behind the model's reasoning, in prose, in objects of other names, as one object a
line, with comments or trailing commas, or break off. Takes time linear in the answer, which is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Op: TypeAlias = Literal["add", "supersede", "close"]

ANSWER_CHARS_MAX = 40_000  # an endpoint may ignore the limit of tokens; the end is read, reasoning comes before it
FACTS_MAX = 100
MISREADINGS_MAX = 50  # brackets that begin no JSON; each costs up to one pass over the answer
VALUES_MAX = 10_000  # JSON values that are looked at

_REASONING = r"(?:seed:)?(?:think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad)"
_BEGINS = rf"<{_REASONING}\s*>|\[THINK\]|◁think▷"
_ENDS = rf"</{_REASONING}\s*>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>"
_REASONING_ENDS = re.compile(_ENDS, re.IGNORECASE)
_REASONING_BLOCK = re.compile(rf"(?:{_BEGINS}).*?(?:{_ENDS}|\Z)", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"```\w*")
_OPENING = re.compile(r"[\[{]")
# Each alternative matches to the end of the text where it is not closed: a failed match would be tried again from
# every quotation mark.
_STRING = r'"(?:[^"\\]|\\.)*+(?:"|\Z)'
_COMMENT = re.compile(rf"(?P<string>{_STRING})|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"(?P<string>{_STRING})|,(?=\s*[\]}}])", re.DOTALL)
_NUMBER = re.compile(r"\d{1,6}")
_DECODER = json.JSONDecoder(strict=False)  # models break lines inside of strings

_KIND, _CONTENT = ("kind", "type", "category"), ("content", "memory", "fact", "text")
_QUOTE, _ITEM = ("quote", "evidence"), ("item", "message")
_OP, _ID = ("op", "operation", "action"), ("id", "replaces", "known")
_OPS: Mapping[str, Op] = {
    **dict.fromkeys(("supersede", "update", "replace", "change"), "supersede"),
    **dict.fromkeys(("close", "end", "delete", "remove", "invalidate"), "close"),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as the model names it. item: the number of the message that it comes from, or None.

    op, known_id: what it does to the known fact of this id; None: to none.
    """

    kind: str
    content: str
    item: int | None
    quote: str
    op: Op = "add"
    known_id: int | None = None


def facts_of(answer: str) -> Sequence[Fact] | None:
    """The facts that a model's answer lists, in its order; None where it has no list that can be read."""
    answer = _unwrapped(answer[-ANSWER_CHARS_MAX:].strip())
    empty = False
    for text in _without_reasoning(answer):
        values, misread = _values(text)
        facts = _facts(values)
        opening = _OPENING.search(text)
        if misread and opening:
            # From the first bracket on: quotation marks in the prose before it pair with none of the JSON's.
            mended = _facts(_values(_mended(text[opening.start() :]))[0])
            facts = mended if len(mended) > len(facts) else facts
        if facts:
            return facts
        empty = empty or _is_empty_list(text, values)
    return [] if empty else None


def _unwrapped(answer: str) -> str:
    """The answer, taken out of a string of JSON."""
    if answer.startswith('"'):
        try:
            value = json.loads(answer)
        except ValueError:
            return answer
        return value if isinstance(value, str) else answer
    return answer


def _without_reasoning(answer: str) -> Iterator[str]:
    """What may be the answer proper, the likeliest first."""
    ends = None if _is_json(answer) else [*_REASONING_ENDS.finditer(answer)]
    if ends is None:  # what looks like reasoning is part of a quote
        yield answer
        return
    if ends:  # some templates begin the reasoning themselves, and the answer has only its end
        yield answer[ends[-1].end() :]
    yield _REASONING_BLOCK.sub("", answer)


def _is_json(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str) -> tuple[list[Any], bool]:
    """The outermost JSON arrays and objects of a text, and whether any bracket begins none."""
    values: list[Any] = []
    position = misreadings = 0
    while misreadings < MISREADINGS_MAX and (opening := _OPENING.search(text, position)):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
        except RecursionError:  # no list is nested like that, and what follows would be read as deeply again
            return values, True
        except ValueError:
            position = opening.end()
            misreadings += 1
        else:
            values.append(value)
    return values, misreadings > 0


def _mended(text: str) -> str:
    """The text without comments and trailing commas, outside of strings."""
    for wrong in (_COMMENT, _TRAILING_COMMA):
        text = wrong.sub(lambda match: match["string"] or "", text)
    return text


def _is_empty_list(text: str, values: Sequence[Any]) -> bool:
    """Whether the model says that there is nothing: an empty list alone, or named. A `[ ]` in prose is a tick box."""
    if any(isinstance(value, dict) and value and all(each == [] for each in value.values()) for value in values):
        return True
    return values == [[]] and _FENCE.sub("", text).strip().startswith("[")


def _facts(values: Sequence[Any]) -> list[Fact]:
    """The facts in decoded JSON, however they are wrapped. Without recursion: nesting is as deep as a model likes."""
    facts: list[Fact] = []
    left = list(reversed(values))
    for _ in range(VALUES_MAX):
        if not left or len(facts) == FACTS_MAX:
            break
        value = left.pop()
        if isinstance(value, dict):
            fact = _fact(value)
            if fact:
                facts.append(fact)
            else:
                left += reversed(value.values())
        elif isinstance(value, list):
            left += reversed(value)
    return facts


def _fact(value: dict[str, Any]) -> Fact | None:
    """A fact that has at least its words; content and quote may stand for each other."""
    value = {key.lower(): each for key, each in value.items()}
    content, quote = _string(value, _CONTENT), _string(value, _QUOTE)
    if not (content or quote):
        return None
    kind = _string(value, _KIND).lower() or "note"
    op: Op = _OPS.get(_string(value, _OP).lower(), "add")
    return Fact(kind, content or quote, _number(value, _ITEM), quote or content, op, _number(value, _ID))


def _string(value: dict[str, Any], names: Sequence[str]) -> str:
    found = next((each for name in names if isinstance(each := value.get(name), str)), "")
    return found.strip().encode(errors="replace").decode()  # no database takes half a surrogate


def _number(value: dict[str, Any], names: Sequence[str]) -> int | None:
    named = next((each for name in names if (each := value.get(name)) is not None), None)
    if isinstance(named, str):
        number = _NUMBER.search(named)
        return int(number.group()) if number else None
    whole = isinstance(named, int | float) and not isinstance(named, bool) and abs(named) < 10**6
    return int(named) if whole and named is not None else None
