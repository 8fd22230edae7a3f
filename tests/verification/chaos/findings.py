"""What an audit can find, which promise each finding breaks, and the findings of one run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import quantiles
from types import MappingProxyType

from ..promises import Promise
from .expected_end import CLOCK_SECONDS, Line

EXAMPLES_MAX = 5
CROWD_ENDS_MIN = 100  # of fewer ends nobody can say what 99 % of them did
FINDINGS: Mapping[str, Promise] = MappingProxyType(
    {
        "orphans": Promise.NO_ORPHAN,  # active after everything was over
        "late_rows": Promise.NO_ORPHAN,  # true again, but later than published
        "late_acknowledgements": Promise.NO_GHOST,  # of an item, after the row was closed
        "ghost_sockets": Promise.NO_GHOST,  # served after the row was closed
        "late_sockets": Promise.NO_GHOST,  # closed later than published
        "writes_after_end": Promise.NO_GHOST,  # an item stored after the row was closed
        "writes_after_erasure": Promise.NO_GHOST,  # a memory of somebody whose rows were deleted
        "wrong_codes": Promise.NO_GHOST,  # a socket closed with another code than 4001 because of its row
        "ends_rewritten": Promise.ONE_END,
        "time_errors": Promise.ONE_END,  # session_start or session_end further off than published
        "duration_errors": Promise.ONE_END,
        "memories_missing": Promise.MEMORY_ONCE,
        "memories_doubled": Promise.MEMORY_ONCE,
        "index_faults": Promise.MEMORY_ONCE,  # a turn indexed twice, not at all, or though it was deleted
        "lost_items": Promise.NOTHING_LOST,  # acknowledged, but not in the database, or with another text
        "doubled_items": Promise.NOTHING_LOST,
        "missing_rows": Promise.NOTHING_LOST,  # of a session that a client saw created
        "healthy_swept": Promise.NONE_SWEPT,
        "ends_unreported": Promise.REPORTED,  # a closed session of which the receiver of webhooks accepted nothing
        "memories_unreported": Promise.REPORTED,
        "reports_differ": Promise.REPORTED,  # of one event, by their ids or bodies
        "reports_unfounded": Promise.REPORTED,  # of what did not happen, or not as the row says
        "bad_signatures": Promise.REPORTED,
        "unclean_exits": Promise.BOUNDED,  # a server that did not exit with 0 in time after SIGTERM, SIGHUP or SIGQUIT
        "late_starts": Promise.BOUNDED,  # of a server while the first host of its URL hung
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
        "late_starts",
        "unexplained_ends",
        "view_disagrees",
    }
)
"""A bound in time decides these, so that a busy machine may explain them. It never explains the others."""


@dataclass(slots=True)
class Measured:
    """The figures of one line of the table, or of one kind of fault.

    All in seconds, and how many ends were late because the machine was busy; crowded: those of them within the bound
    that 99 % must keep also then.
    """

    row: float = 0.0
    end: float = 0.0
    samples: int = 0
    unjudged: int = 0
    broken: int = 0
    crowded: int = 0
    late_rows: int = 0
    bound: float = 0.0
    rows: list[float] = field(default_factory=list)

    def add(self, seconds: float, bound: float) -> None:
        self.samples += 1
        self.rows.append(seconds)
        self.row = max(self.row, seconds)
        self.bound = bound

    @property
    def p99(self) -> float | None:
        if len(self.rows) < 2:
            return self.row if self.rows else None
        return quantiles(self.rows, n=100, method="inclusive")[98]

    @property
    def within(self) -> bool | None:
        """Whether every end kept the bounds. None where none was measured, or only a busy machine's ends were late."""
        if self.broken:
            return False
        return True if self.samples and not self.unjudged else None


@dataclass(slots=True)
class Findings:
    """What a run found.

    broken: how often each kind was found. unjudged: how often the machine was too busy to judge. Both by kind.

    table: by the line of the published table. faults: the same ends by the kind of fault that caused them.
    """

    broken: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FINDINGS, 0)))
    unjudged: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(sorted(TIMED), 0)))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unjudged_examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    table: dict[str, Measured] = field(default_factory=dict)
    faults: dict[str, Measured] = field(default_factory=lambda: defaultdict(Measured))
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

    def judge_crowds(self, lines: Mapping[str, Line]) -> None:
        """Counts as judged what was late on a busy machine, where a line's 99 % were in time also there."""
        for name, line in lines.items():
            measured = self.table[name]
            if line.bound_p99 is None or measured.samples < CROWD_ENDS_MIN:
                continue
            if measured.p99 is not None and measured.p99 <= line.bound_p99:
                measured.crowded, measured.late_rows = measured.late_rows, 0
                measured.unjudged -= measured.crowded
                self.unjudged["late_rows"] -= measured.crowded

    def promises(self) -> dict[Promise, int]:
        """Returns how often each promise was broken."""
        broken: Counter[Promise] = Counter(dict.fromkeys(FINDINGS.values(), 0))
        for kind, count in self.broken.items():
            broken[FINDINGS[kind]] += count
        return dict(broken)


def allowed_end(line: Line) -> float:
    """Returns the bound of a line's `session_end`, or where that is 0, how exactly it can be measured."""
    return (line.bound_end or 0.0) or CLOCK_SECONDS
