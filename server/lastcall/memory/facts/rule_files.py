"""Reads the files in `rules/`: one per language, and the words that say nothing of what a fact is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FOLDER = Path(__file__).parent / "rules"
_GROUP = re.compile(r"\(\?P<\w+>")
_NAME = re.compile(r"<([A-Z_]+)>")
_DEFINITION = re.compile(r"(\w+) = (.*)")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one language.

    patterns: kind, slot and pattern of what is stated. endings: the slot of the ending itself, the slots in which it
    ends what shares a word with it, and its pattern. any_of_them: matches where one of these patterns does: most text
    states nothing, and to try them one by one takes ten times as long. names: patterns by their names.
    """

    patterns: Sequence[tuple[str, str, re.Pattern[str]]]
    endings: Sequence[tuple[str, Sequence[str], re.Pattern[str]]]
    any_of_them: re.Pattern[str]
    names: dict[str, str] = field(default_factory=dict)


def read_rules(language: str) -> Rules:
    """Reads and compiles the file of a language, such as "de"."""
    names: dict[str, str] = {}
    patterns, endings = [], []
    for line in _lines(f"{language}.txt"):
        if definition := _DEFINITION.fullmatch(line):
            names[definition[1]] = _expanded(definition[2], names)
        elif line.startswith("ends "):
            _, slot, closes, pattern = line.split(" ", 3)
            endings.append((slot, closes.split(","), compiled(_expanded(pattern, names))))
        else:
            kind, slot, pattern = line.split(" ", 2)
            patterns.append((kind, slot, compiled(_expanded(pattern, names))))
    either = [rule.pattern for *_, rule in (*patterns, *endings)]
    return Rules(patterns, endings, re.compile("|".join(map(_unnamed, either)), re.IGNORECASE), names)


def read_words(name: str) -> frozenset[str]:
    """The words of a file."""
    return frozenset(word for line in _lines(f"{name}.txt") for word in line.split())


def compiled(pattern: str) -> re.Pattern[str]:
    """With a number for each group `neg`: alternatives may each have one."""
    parts = pattern.split("(?P<neg>")
    numbered = parts[0] + "".join(f"(?P<neg{number}>{part}" for number, part in enumerate(parts[1:]))
    return re.compile(numbered, re.IGNORECASE)


def _unnamed(pattern: str) -> str:
    """The pattern as one of several: they may have groups of the same name."""
    return _GROUP.sub("(?:", pattern)


def _expanded(pattern: str, names: dict[str, str]) -> str:
    return _NAME.sub(lambda match: names[match[1]], pattern)


def _lines(file: str) -> Iterator[str]:
    for line in (_FOLDER / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            yield line
