"""What people say of themselves in languages other than English. Pure.

Each language is looked for only where words of its own occur.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rule_files import compiled, read_rules


@dataclass(frozen=True, slots=True)
class _Language:
    """marks: words, one of which is in each sentence about oneself. others: who else a sentence may be about, where
    its verb does not tell."""

    marks: frozenset[str]
    rules: Sequence[tuple[str, str, re.Pattern[str]]]
    any_of_them: re.Pattern[str]
    ended: re.Pattern[str]
    negated: re.Pattern[str]
    others: re.Pattern[str] | None


def _language(tag: str) -> _Language:
    rules = read_rules(tag)
    marks = frozenset(rules.names.get("marks", "").split())
    return _Language(
        marks,
        rules.patterns,
        rules.any_of_them,
        ended=compiled(rules.names["ended"]),
        negated=compiled(rules.names["negated"]),
        others=compiled(rules.names["others"]) if "others" in rules.names else None,
    )


_AR, _JA, _ZH = (_language(tag) for tag in ("ar", "ja", "zh"))
_BY_WORDS = tuple(_language(tag) for tag in ("de", "fr", "es", "pt", "it", "ru"))
_OF_OTHERS = ("family", "pet")  # slots of what is said of others
_WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_KANA, _HAN, _ARABIC = re.compile("[\u3040-\u30ff]"), re.compile("[\u4e00-\u9fff]"), re.compile("[\u0600-\u06ff]")


@dataclass(frozen=True, slots=True)
class Found:
    """A fact in a sentence. ended: it says that something is so no longer, or never was. at: where it starts."""

    kind: str
    slot: str
    ended: bool
    negated: bool
    at: int


def facts_in(shown: str) -> Iterator[Found]:
    """The facts that a sentence states in its language: the first one of each slot."""
    for language in _languages_of(shown):
        if not language.any_of_them.search(shown):
            continue
        slots = set()
        for kind, slot, rule in language.rules:
            match = rule.search(shown)
            if match and slot not in slots and not _is_of_another(language, slot, shown[: match.end()]):
                slots.add(slot)
                yield _found(language, kind, slot, match, shown)
        if slots:
            return


def _is_of_another(language: _Language, slot: str, shown: str) -> bool:
    return slot not in _OF_OTHERS and language.others is not None and bool(language.others.search(shown))


def _found(language: _Language, kind: str, slot: str, match: re.Match[str], shown: str) -> Found:
    what = match.groupdict().get("what")
    clause = shown[match.start() :]
    ended = bool(language.ended.search(clause[:120])) or bool(language.ended.search(shown[: match.end()]))
    negated = kind != "dislike" and bool(language.negated.search(shown[max(match.start() - 12, 0) : match.end() + 12]))
    return Found(kind, f"{slot}:{what.casefold()}" if what else slot, ended, negated, match.start())


def _languages_of(shown: str) -> Iterator[_Language]:
    if _KANA.search(shown):
        yield _JA
    elif _HAN.search(shown):
        yield _ZH
    elif _ARABIC.search(shown):
        yield _AR
    else:
        words = set(_WORDS.findall(shown.casefold()))
        words |= {word.split("'")[0] + "'" for word in words if "'" in word}
        yield from sorted((each for each in _BY_WORDS if words & each.marks), key=lambda each: -len(words & each.marks))
