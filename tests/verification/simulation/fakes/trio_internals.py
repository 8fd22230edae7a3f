"""The only place that uses private names of Trio: for the order of tasks, and for frozen processes.

Trio promises none of them to anybody, so they are looked up on import: a release that renames one fails here, by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import trio
from trio._core import _run

DETERMINISTIC, RANDOM = "_ALLOW_DETERMINISTIC_SCHEDULING", "_r"
"""Trio's two switches, meant for Hypothesis: sorts each batch of runnable tasks by age, then shuffles it with `_r`."""
NEEDED = (DETERMINISTIC, f"{RANDOM}.seed", "GLOBAL_RUN_CONTEXT", "Runner.runq")
_RUN: Any = _run


def missing(module: object = _run) -> list[str]:
    """The names that Trio no longer has."""
    return [name for name in NEEDED if not _has(module, name)]


def _has(module: object, name: str) -> bool:
    try:
        attrgetter(name)(module)
    except AttributeError:
        return False
    return True


if missing():
    raise ImportError(f"trio {trio.__version__} has no {', '.join(missing())}; the simulation needs it")


@contextmanager
def order_of_tasks(seed: int) -> Iterator[None]:
    """Every Trio run inside picks the same order of tasks for the same seed."""
    chance = getattr(_RUN, RANDOM)
    before, state = getattr(_RUN, DETERMINISTIC), chance.getstate()
    setattr(_RUN, DETERMINISTIC, True)
    chance.seed(seed)
    try:
        yield
    finally:
        setattr(_RUN, DETERMINISTIC, before)
        chance.setstate(state)


class RunQueue(deque[trio.lowlevel.Task]):
    """Trio's queue of runnable tasks, without those of frozen processes.

    A held task is runnable and does not run: timeouts expire meanwhile, and all are seen on waking, as after SIGSTOP.
    A freeze begins with the next batch of tasks.
    """

    def __init__(self, tasks: Iterable[trio.lowlevel.Task], owner_of: Callable[[trio.lowlevel.Task], object]) -> None:
        super().__init__(tasks)
        self._owner_of = owner_of
        self._held: dict[object, list[trio.lowlevel.Task]] = {}

    def append(self, task: trio.lowlevel.Task, /) -> None:
        """What Trio calls for each task that becomes runnable."""
        held = self._held.get(self._owner_of(task)) if self._held else None
        if held is None:
            super().append(task)
        else:
            held.append(task)

    def freeze(self, owner: object) -> None:
        self._held[owner] = []
        tasks = list(self)
        self.clear()
        for task in tasks:
            self.append(task)

    def thaw(self, owner: object) -> None:
        self.extend(self._held.pop(owner))


def use_run_queue(owner_of: Callable[[trio.lowlevel.Task], object]) -> RunQueue:
    """Replaces the queue of the current Trio run."""
    runner = _RUN.GLOBAL_RUN_CONTEXT.runner
    runner.runq = queue = RunQueue(runner.runq, owner_of)
    return queue
