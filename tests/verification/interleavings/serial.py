"""What statements that overlap may come to: the same as in some order, one after the other.

Who finds the row held may pass it over instead, and say so; it then tries again, or looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import NamedTuple

from .model import BATCHES, RULES, Result
from .world import State, World


class Sent(NamedTuple):
    """A statement and when it was sent."""

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
    """A way in which it may have gone. answers: by statement. passed_over: whether any left the row to who held it."""

    answers: tuple[str, ...]
    world: World
    passed_over: bool


# Those who append share the row.
SHARING = ("begin", "append-user", "append-reply", "append-again", "begin-append")
SHARING_PIECES = ("append-user:A", "append-reply:A", "append-again:A", "unsaid:A")
# They lock the row even where they change nothing.
ALWAYS_LOCKING = ("plain", "reopen", "append-again")


def _mark_dead(state: State) -> Result:
    world, known, now = state
    if known.verdict == world.heartbeat and world.reaped is None:
        world = replace(world, reaped=now)
    return world, "closed 0"


PASSING_OVER: dict[str, Callable[[State], Result]] = {
    **dict.fromkeys(
        ("append-user:A", "append-reply:A", "append-again:A", "unsaid:A", "end:A", "end-unsaid:A"),
        lambda state: (state.world, "held"),
    ),
    "leave:A": lambda state: (state.world, "closed 0"),
    "claim:A": lambda state: (state.world, "none"),
    "claim:B": lambda state: (state.world, "none"),
    "reap:A-by-B": _mark_dead,
    "reap:A-by-C": _mark_dead,
}


def endings(scene: State, sent: Sequence[Sent], *, whole: bool, undone: bool, waited: bool) -> Iterator[Ending]:
    """All ways in which statements that were sent to a scene may go.

    whole: nothing comes between what the first sends. undone: the first was rolled back; what it answered is left open.
    waited: somebody waited for the first.
    """
    may_pass = _who_may_pass_over(scene, sent, waited=waited)
    lengths = [len(each.pieces) for each in sent]
    lengths[0] = 0 if undone else 1 if whole else lengths[0]
    for order in _orders(lengths):
        for count in range(len(may_pass) + 1):
            for passing in combinations(may_pass, count):
                yield _play(scene, sent, order, passing, whole=whole)


def _orders(lengths: Sequence[int]) -> set[tuple[int, ...]]:
    return set(permutations([index for index, length in enumerate(lengths) for _ in range(length)]))


def _play(
    scene: State, sent: Sequence[Sent], order: Sequence[int], passing: Sequence[tuple[int, str]], *, whole: bool
) -> Ending:
    """order: who sends next. passing: which pieces of whom pass the row over."""
    world, words = scene.world, [list[str]() for _ in sent]
    for index in order:
        each = sent[index]
        todo = each.pieces if whole and index == 0 else each.pieces[len(words[index]) :][:1]
        for piece in todo:
            rule = PASSING_OVER[piece] if (index, piece) in passing else RULES[piece]
            world, word = rule(State(world, scene.known, each.now))
            words[index].append(word)
    return Ending(tuple(", ".join(each) for each in words), world, bool(passing))


def _who_may_pass_over(scene: State, sent: Sequence[Sent], *, waited: bool) -> list[tuple[int, str]]:
    """The pieces that may find the row held by somebody else.

    Nobody sees a row that begins just now; but who declares its owner dead has waited for it: none begins later.
    """
    holders = [each for each in sent if _touches(scene, each) and (waited or each.verb != "begin")]
    found: list[tuple[int, str]] = []
    for index, mine in enumerate(sent):
        others = [each for each in holders if each is not mine]
        apart = [each for each in others if each.verb not in SHARING]
        pieces = [piece for piece in mine.pieces if piece in PASSING_OVER]
        found += [(index, piece) for piece in pieces if (apart if piece in SHARING_PIECES else others)]
    return found


def _touches(scene: State, each: Sent) -> bool:
    """Whether it holds the session's row."""
    world, _ = RULES[each.name](State(scene.world, scene.known, each.now))
    before = replace(scene.world, heartbeat=world.heartbeat, stopped=world.stopped, reaped=world.reaped)
    return world != before or each.verb in ALWAYS_LOCKING
