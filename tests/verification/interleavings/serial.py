"""The allowed results of statements that overlap: those of some order, one after the other.

A statement that finds the row locked may skip it instead, and say so; its server then tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import NamedTuple

from .model import BATCHES, RULES, Result
from .state import Snapshot, State


class Sent(NamedTuple):
    """A statement, and when it was sent (microseconds)."""

    name: str
    now: int

    @property
    def verb(self) -> str:
        return self.name.partition(":")[0]

    @property
    def pieces(self) -> Sequence[str]:
        return BATCHES.get(self.name, (self.name,))


@dataclass(frozen=True, slots=True)
class Ending:
    """One allowed result. answers: one of each statement. skipped: whether any skipped a locked row."""

    answers: tuple[str, ...]
    snapshot: Snapshot
    skipped: bool


# Statements that share the row's lock.
SHARING = ("begin", "append-user", "append-reply", "append-again", "begin-append")
SHARING_PIECES = ("append-user:A", "append-reply:A", "append-again:A", "unsaid:A")
# Statements that lock the row even if they change nothing.
ALWAYS_LOCKING = ("plain", "reopen", "append-again")


def _mark_dead(state: State) -> Result:
    snapshot, known, now = state
    if known.verdict == snapshot.heartbeat and snapshot.reaped is None:
        snapshot = replace(snapshot, reaped=now)
    return snapshot, "closed 0"


WHEN_SKIPPING: dict[str, Callable[[State], Result]] = {
    **dict.fromkeys(
        ("append-user:A", "append-reply:A", "append-again:A", "unsaid:A", "end:A", "end-unsaid:A"),
        lambda state: (state.snapshot, "held"),
    ),
    "leave:A": lambda state: (state.snapshot, "closed 0"),
    "claim:A": lambda state: (state.snapshot, "none"),
    "claim:B": lambda state: (state.snapshot, "none"),
    "reap:A-by-B": _mark_dead,
    "reap:A-by-C": _mark_dead,
}


def endings(setup: State, sent: Sequence[Sent], *, whole: bool, undone: bool, waited: bool) -> Iterator[Ending]:
    """Yields all allowed results of statements that overlap after a setup.

    whole: nothing comes between the parts of the first. undone: the first was rolled back; any answer of it will do.
    waited: another statement waited for the first.
    """
    may_skip = _pieces_that_may_skip(setup, sent, waited=waited)
    lengths = [len(each.pieces) for each in sent]
    lengths[0] = 0 if undone else 1 if whole else lengths[0]
    for order in _orders(lengths):
        for count in range(len(may_skip) + 1):
            for skipping in combinations(may_skip, count):
                yield _play(setup, sent, order, skipping, whole=whole)


def _orders(lengths: Sequence[int]) -> set[tuple[int, ...]]:
    return set(permutations([index for index, length in enumerate(lengths) for _ in range(length)]))


def _play(
    setup: State, sent: Sequence[Sent], order: Sequence[int], skipping: Sequence[tuple[int, str]], *, whole: bool
) -> Ending:
    """order: indices of the statements, by turn. skipping: index and piece of those that skip the row."""
    snapshot, words = setup.snapshot, [list[str]() for _ in sent]
    for index in order:
        each = sent[index]
        todo = each.pieces if whole and index == 0 else each.pieces[len(words[index]) :][:1]
        for piece in todo:
            rule = WHEN_SKIPPING[piece] if (index, piece) in skipping else RULES[piece]
            snapshot, word = rule(State(snapshot, setup.known, each.now))
            words[index].append(word)
    return Ending(tuple(", ".join(each) for each in words), snapshot, bool(skipping))


def _pieces_that_may_skip(setup: State, sent: Sequence[Sent], *, waited: bool) -> list[tuple[int, str]]:
    """The pieces that may find the row locked by another statement.

    A row that is being inserted is invisible to all; but a statement that declares its owner dead has waited for it.
    """
    holders = [each for each in sent if _touches(setup, each) and (waited or each.verb != "begin")]
    found: list[tuple[int, str]] = []
    for index, mine in enumerate(sent):
        others = [each for each in holders if each is not mine]
        apart = [each for each in others if each.verb not in SHARING]
        pieces = [piece for piece in mine.pieces if piece in WHEN_SKIPPING]
        found += [(index, piece) for piece in pieces if (apart if piece in SHARING_PIECES else others)]
    return found


def _touches(setup: State, each: Sent) -> bool:
    """Whether it locks the session's row."""
    snapshot, _ = RULES[each.name](State(setup.snapshot, setup.known, each.now))
    before = replace(setup.snapshot, heartbeat=snapshot.heartbeat, stopped=snapshot.stopped, reaped=snapshot.reaped)
    return snapshot != before or each.verb in ALWAYS_LOCKING
