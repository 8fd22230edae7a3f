"""Runs seeds one after the other until one of the given promises breaks; the verdict is stdout's last line, as JSON.

A process of its own, in a copy of the code: see `mutants`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from ..promises import Promise
from .run import run_seed

SEED_SECONDS = 30.0  # of processor time, for one world; it takes a fifth of a second


def until_broken(seeds: Sequence[int], promises: frozenset[str]) -> dict[str, object]:
    """seeds: how many were run. promise: the one that broke, or None. others: what broke besides, by seeds."""
    others: Counter[str] = Counter()
    for number, seed in enumerate(seeds):
        # Not wall time: a machine with other work, or a stop of this process, is no world that hangs.
        signal.signal(signal.SIGPROF, lambda *_, number=number: _hangs(number + 1))
        signal.setitimer(signal.ITIMER_PROF, SEED_SECONDS)
        outcome = run_seed(seed)
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = sorted(promises & set(+outcome.broken))
        if found:
            example = next(text for text in outcome.examples if text.startswith(found[0]))
            return {"seeds": number + 1, "promise": found[0], "example": example, "others": others}
        others.update(set(+outcome.broken))
    return {"seeds": len(seeds), "promise": None, "example": "", "others": others}


def _hangs(seeds: int) -> None:
    """A world that turns in circles cannot be left from inside."""
    example = f"{Promise.BOUNDED}: a world did not end within {SEED_SECONDS:g} s of processor time"
    _leave({"seeds": seeds, "promise": Promise.BOUNDED, "example": example, "others": {}})


def _leave(verdict: dict[str, object]) -> NoReturn:
    """At once: what is left of a world that was given up would still talk."""
    sys.stdout.write(json.dumps(verdict) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _leave(until_broken([int(seed) for seed in sys.argv[1].split(",")], frozenset(sys.argv[2:])))
