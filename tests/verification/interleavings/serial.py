"""The allowed results of statements that overlap: those of some order, one after the other.

A statement that finds the row locked may skip it instead, and say so; its server then tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, permutations
from typing import NamedTuple

from .model import BATCHES, RULES, Result, Rule
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


def _mark_dead(state: State, *, by_hand: bool = False) -> Result:
    snapshot, known, now = state
    verdict = known.looked if by_hand else known.verdict
    if verdict == snapshot.heartbeat and snapshot.reaped is None:
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
    "retry:hand": lambda state: (state.snapshot, "retried 0"),
    "reap:A-by-B": _mark_dead,
    "reap:A-by-C": _mark_dead,
    "sweep:hand": partial(_mark_dead, by_hand=True),
}

# Statements that lock the instance's row, by those that skip it then.
LEFT, HELD = "closed 0", "held"
LEAVING_INSTANCE = ("reap", "stop")
LOCKING_INSTANCE = (*LEAVING_INSTANCE, "begin", "begin-append", "visit", "renew")
WHEN_INSTANCE_IS_LOCKED = {
    "begin:A": (LEAVING_INSTANCE, HELD),
    "stop:A": (LOCKING_INSTANCE, HELD),
    "reap:A-by-B": (LOCKING_INSTANCE, LEFT),
    "reap:A-by-C": (LOCKING_INSTANCE, LEFT),
}
Skip = tuple[int, str, Rule]


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


def _play(setup: State, sent: Sequence[Sent], order: Sequence[int], skipping: Sequence[Skip], *, whole: bool) -> Ending:
    """order: indices of the statements, by turn. skipping: those that skip a row, and what they do then."""
    rules = {(index, piece): rule for index, piece, rule in skipping}
    snapshot, words = setup.snapshot, [list[str]() for _ in sent]
    for index in order:
        each = sent[index]
        todo = each.pieces if whole and index == 0 else each.pieces[len(words[index]) :][:1]
        for piece in todo:
            rule = rules.get((index, piece), RULES[piece])
            snapshot, word = rule(State(snapshot, setup.known, each.now))
            words[index].append(word)
    return Ending(tuple(", ".join(each) for each in words), snapshot, bool(skipping))


def _pieces_that_may_skip(setup: State, sent: Sequence[Sent], *, waited: bool) -> list[Skip]:
    """The pieces that may find a row locked by another statement: the session's, or the instance's.

    A row that is being inserted is invisible to all; but a statement that declares its owner dead has waited for it.
    """
    holders = [each for each in sent if _touches(setup, each) and (waited or each.verb != "begin")]
    found: list[Skip] = []
    for index, mine in enumerate(sent):
        others = [each for each in holders if each is not mine]
        apart = [each for each in others if each.verb not in SHARING]
        pieces = [piece for piece in mine.pieces if piece in WHEN_SKIPPING]
        found += [
            (index, piece, WHEN_SKIPPING[piece]) for piece in pieces if (apart if piece in SHARING_PIECES else others)
        ]
        for piece in mine.pieces:
            holding, answer = WHEN_INSTANCE_IS_LOCKED.get(piece, ((), ""))
            if any(each.verb in holding for each in sent if each is not mine):
                found.append((index, piece, partial(_unchanged, answer=answer)))
    return found


def _unchanged(state: State, answer: str) -> Result:
    return state.snapshot, answer


def _touches(setup: State, each: Sent) -> bool:
    """Whether it locks the session's row."""
    snapshot, _ = RULES[each.name](State(setup.snapshot, setup.known, each.now))
    before = replace(setup.snapshot, heartbeat=snapshot.heartbeat, stopped=snapshot.stopped, reaped=snapshot.reaped)
    return snapshot != before or each.verb in ALWAYS_LOCKING
