"""What an audit can find, which promise each finding breaks, and the findings of one run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..promises import Promise
from .expected_end import CLOCK_SECONDS, Line

EXAMPLES_MAX = 5
FINDINGS: Mapping[str, Promise] = MappingProxyType(
    {
        "orphans": Promise.NO_ORPHAN,  # active after everything was over
        "late_rows": Promise.NO_ORPHAN,  # true again, but later than published
        "late_acknowledgements": Promise.NO_GHOST,  # of an item, after the row was closed
        "ghost_sockets": Promise.NO_GHOST,  # served after the row was closed
        "late_sockets": Promise.NO_GHOST,  # closed later than published
        "writes_after_end": Promise.NO_GHOST,  # an item stored after the row was closed
        "ends_rewritten": Promise.ONE_END,
        "time_errors": Promise.ONE_END,  # session_start or session_end further off than published
        "duration_errors": Promise.ONE_END,
        "memories_missing": Promise.MEMORY_ONCE,
        "memories_doubled": Promise.MEMORY_ONCE,
        "lost_items": Promise.NOTHING_LOST,  # acknowledged, but not in the database, or with another text
        "doubled_items": Promise.NOTHING_LOST,
        "missing_rows": Promise.NOTHING_LOST,  # of a session that a client saw created
        "healthy_swept": Promise.NONE_SWEPT,
        "unclean_exits": Promise.BOUNDED,  # a server that did not exit with 0 in time after SIGTERM
        "unexplained_ends": Promise.CONTAINED,  # a server ended a connection without a cause in the ledger
        "crashes": Promise.CONTAINED,  # a server that exited by itself
        "view_disagrees": Promise.VIEWS_AGREE,  # session_truth at some moment of the run
        "listing_disagrees": Promise.VIEWS_AGREE,  # `lastcall orphans` at some moment of the run
    }
)
TIMED = frozenset(
    {
        "late_rows",
        "late_acknowledgements",
        "ghost_sockets",
        "late_sockets",
        "writes_after_end",
        "time_errors",
        "unexplained_ends",
        "view_disagrees",
    }
)
"""A bound in time decides these, so that a busy machine may explain them. It never explains the others."""


@dataclass(slots=True)
class Measured:
    """The figures of one line of the table: in seconds, and how many ends were late because the machine was busy."""

    row: float = 0.0
    end: float = 0.0
    samples: int = 0
    unjudged: int = 0
    broken: int = 0
    rows: list[float] = field(default_factory=list)

    @property
    def within(self) -> bool | None:
        """Whether every end kept the bounds. None where none was measured, or only a busy machine's ends were late."""
        if self.broken:
            return False
        return True if self.samples and not self.unjudged else None


@dataclass(slots=True)
class Findings:
    """broken: how often each kind was found. unjudged: how often the machine was too busy to judge. Both by kind."""

    broken: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FINDINGS, 0)))
    unjudged: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(sorted(TIMED), 0)))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unjudged_examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    table: dict[str, Measured] = field(default_factory=dict)
    unmeasured: int = 0

    def add(self, kind: str, example: str) -> None:
        self.broken[kind] += 1
        if len(self.examples[kind]) < EXAMPLES_MAX:
            self.examples[kind].append(example)

    def add_late(self, kind: str, example: str, *, excess: float, lost: float) -> bool:
        """Adds a bound that was missed by `excess` seconds, while the machine cost `lost` seconds.

        Returns:
            Whether the bound counts as broken: the excess is more than what was lost.
        """
        assert kind in TIMED, kind
        if excess > lost:
            self.add(kind, example)
            return True
        self.unjudged[kind] += 1
        if len(self.unjudged_examples[kind]) < EXAMPLES_MAX:
            self.unjudged_examples[kind].append(f"{example}; {lost:.3f} s were lost to other processes")
        return False

    def promises(self) -> dict[Promise, int]:
        """Returns how often each promise was broken."""
        broken: Counter[Promise] = Counter(dict.fromkeys(FINDINGS.values(), 0))
        for kind, count in self.broken.items():
            broken[FINDINGS[kind]] += count
        return dict(broken)


def allowed_end(line: Line) -> float:
    """Returns the bound of a line's `session_end`, or where that is 0, how exactly it can be measured."""
    return (line.bound_end or 0.0) or CLOCK_SECONDS
