"""Runs code that yields often without a pass of the scheduler for each time."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

import trio

SPARED_MAX = 32  # checkpoints in a row that do not go through the scheduler
SPARED_SECONDS = 0.0005  # for which a task may go on like that

T = TypeVar("T")


def _what_checkpoints_yield() -> object:
    asked = trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC105 - only looked at
    try:
        return asked.send(None)
    finally:
        asked.close()


_CHECKPOINT = _what_checkpoints_yield()


class _GoOn:
    """What a spared checkpoint gets: an outcome of nothing, like Trio's `Value(None)`, which is good for one use."""

    def unwrap(self) -> None: ...


_GO_ON = _GoOn()


@coroutine
def sparing(work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Awaits the work, but not each mere checkpoint of it reaches the scheduler, which Trio leaves open.

    An agent that has its answer yields it piece by piece, with a checkpoint in between, and a pass of the scheduler
    takes longer than a piece. Waits and cancellation are as ever, and other tasks have their turn within `SPARED_MAX`
    checkpoints and `SPARED_SECONDS`. Should Trio ask for a checkpoint in another way, each goes through the scheduler.
    """
    go_on = partial(work.send, None)
    try:
        while True:
            until = trio.current_time() + SPARED_SECONDS
            asked = go_on()
            for _ in range(SPARED_MAX):
                if asked is not _CHECKPOINT or trio.current_time() >= until:
                    break
                asked = work.send(_GO_ON)
            try:
                go_on = partial(work.send, (yield asked))
            except BaseException as error:  # noqa: BLE001 - the work's, whatever it is
                go_on = partial(work.throw, error)
    except StopIteration as ended:
        result: T = ended.value
        return result
