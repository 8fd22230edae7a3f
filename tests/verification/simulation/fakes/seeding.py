"""Makes a run repeatable: one seed for the order of tasks, for ids and for every other choice."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any
from unittest.mock import patch

from lastcall.conversation.timeline import timeline
from lastcall.protocol import ids as protocol_ids

from .clock import VirtualClock
from .trio_internals import order_of_tasks

OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)
"""The simulated process that a task belongs to. Tasks inherit it; None: the world outside of all servers."""


@contextmanager
def deterministic(seed: int, clock: VirtualClock) -> Iterator[None]:
    """Everything inside happens in the same order for the same seed, whatever PYTHONHASHSEED is.

    Args:
        seed: of the order of tasks and of all ids.
        clock: of the run inside; timestamps of items follow it.
    """
    ids = Random(seed + 1)
    chance = random.getstate()
    random.seed(seed)
    try:
        with (
            order_of_tasks(seed),
            patch.object(os, "urandom", ids.randbytes),  # uuid4, and the nonces of WebSockets
            patch.object(protocol_ids, "_pool", protocol_ids._RandomPool()),
            # Milliseconds of one virtual moment tie, as they may.
            patch.object(timeline, "wall_clock_ms", lambda: int(clock.now * 1000)),
            _without_garbage_collection(),
        ):
            yield
    finally:
        random.setstate(chance)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """What the collector finalizes, and when, would depend on what the process did before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
