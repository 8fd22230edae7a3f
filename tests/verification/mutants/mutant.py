"""A mistake in the code, and who has to see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..promises import Promise

ORPHAN, GHOST, END, REMEMBER = Promise.NO_ORPHAN, Promise.NO_GHOST, Promise.ONE_END, Promise.MEMORY_ONCE
LOST, SWEPT, BOUND, CONTAINED = Promise.NOTHING_LOST, Promise.NONE_SWEPT, Promise.BOUNDED, Promise.CONTAINED
REPORTED = Promise.REPORTED

ROOT = Path(__file__).resolve().parents[3]


class MutantNotFound(Exception):
    """A mutant's text does not stand exactly once in its file; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake: in `file`, `old` (which stands there exactly once) becomes `new`.

    promises: what it breaks. Without a test, the simulation has to report one of them.
    test: the node id of a test that has to fail, for what the simulated worlds do not have or rarely show.
    hint: the seed that is tried first, then all others from 0 on: it only saves time.
    """

    name: str
    file: str
    old: str
    new: str
    promises: frozenset[str]
    test: str | None = None
    hint: int = 0


def mutant(name: str, file: str, old: str, new: str, *promises: str, test: str | None = None) -> Mutant:
    return Mutant(name, file, old, new, frozenset(promises), test)


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the mutant's file, with the mistake in it. Raises `MutantNotFound`."""
    text = (root / mutant.file).read_text()
    times = text.count(mutant.old)
    if times != 1:
        raise MutantNotFound(
            f"the text of the mutant {mutant.name!r} stands {times} times in {mutant.file}, not once;"
            " adapt it in tests/verification/mutants/"
        )
    return text.replace(mutant.old, mutant.new)
