"""What the rows have in common that measure lastcall by itself, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import stalls
from .answers import Answer
from .checks import turn_frames
from .contestants import Contestant, Contestants
from .cpu import Usage
from .load_client import LoadClient

IDLE = "idle"  # the group of connections that do nothing
WAIT_SECONDS = 120.0
Figures = tuple[dict[str, Any], Usage]  # of one row, and what was used while they were measured


@dataclass(frozen=True)
class Sizes:
    """How much of everything. stall_seconds: for how long stalls are looked for."""

    idle: tuple[int, int] = (1_000, 5_000)
    shutdown: int = 5_000
    orphans: int = 10_000
    streams: int = 200
    connects: int = 100
    stall_seconds: int = 5
    beside: tuple[int, ...] = (0, 1_000, 5_000)
    items: tuple[int, ...] = (10, 100, 1_000, 4_000)
    starts: int = 5
    short_sessions: int = 200_000


QUICK = Sizes(
    idle=(5, 25),
    shutdown=25,
    orphans=50,
    streams=5,
    connects=5,
    stall_seconds=1,
    beside=(0, 10),
    items=(2, 20),
    starts=1,
    short_sessions=40,
)


class Alone:
    """seconds: of each measurement of turns."""

    def __init__(self, contestants: Contestants, load: LoadClient, sizes: Sizes, seconds: float) -> None:
        self._contestants = contestants
        self._load = load
        self._sizes = sizes
        self._seconds = seconds

    def rows(self) -> dict[str, Callable[[], Figures]]:
        """By the names that `--only` takes."""
        raise NotImplementedError


def ask_for_stalls(asking: LoadClient, contestant: Contestant, seconds: int) -> None:
    """Starts the timer that says how long the loop was stuck; `asking.result` has it, in seconds as text."""
    asking.begin("ask", port=contestant.port, question=stalls.question(seconds), frames=turn_frames(Answer(1)))
