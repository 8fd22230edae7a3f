"""What an import found and did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from .rows import AdoptedSession

EXAMPLES_MAX = 5  # of sessions, and of the ids of each problem
PROBLEMS_MAX = 50  # kinds of them


@dataclass(frozen=True, slots=True)
class ProblemReport:
    """Rows that were left out, or imported with a change, for one reason. original_ids: some of them."""

    problem: str
    rows: int
    original_ids: list[str]


@dataclass(frozen=True, slots=True)
class ExampleReport:
    """A session that was still active in the source. dated_by: the column that says when it ended."""

    original_id: str
    user_id: str
    session_start: datetime
    session_end: datetime
    duration_seconds: float
    dated_by: str


@dataclass(frozen=True, slots=True)
class AdoptionReport:
    """An import, or what it would do.

    columns: which column of the source holds what. rows: that were read. imported: that are new, or would be.
    present: that had been imported before. was_active: rows that nobody had closed. dated_by: what dated rows without
    an end, and how many. durations_changed: rows whose own duration was another one.
    """

    source: str
    target: str
    columns: dict[str, str]
    last_seen: list[str]
    time_zone: str | None
    dry_run: bool
    rows: int
    imported: int
    present: int
    skipped: int
    was_active: int
    dated_by: dict[str, int]
    durations_changed: int
    examples: list[ExampleReport]
    problems: list[ProblemReport]


@dataclass(slots=True)
class Tally:
    """Counts while an import runs."""

    rows: int = 0
    imported: int = 0
    present: int = 0
    skipped: int = 0
    was_active: int = 0
    durations_changed: int = 0
    dated_by: Counter[str] = field(default_factory=Counter)
    examples: list[ExampleReport] = field(default_factory=list)
    _problems: Counter[str] = field(default_factory=Counter)
    _ids: dict[str, list[str]] = field(default_factory=dict)

    def read(self, session: AdoptedSession) -> None:
        """Counts a row that tells of a session."""
        self.durations_changed += session.duration_was_wrong
        if session.dated_by is not None:
            self.dated_by[session.dated_by] += 1
        if session.ended_too_soon:
            self.problem("its end stands before its start: dated at its start", session.original_id)
        if session.was_active:
            self.was_active += 1
            if len(self.examples) < EXAMPLES_MAX:
                self.examples.append(_example(session))

    def skip(self, problem: str, original_id: str) -> None:
        """Counts a row that is left out."""
        self.skipped += 1
        self.problem(problem, original_id)

    def problem(self, problem: str, original_id: str) -> None:
        """Notes a problem; of many kinds, the rarest later ones are counted together."""
        if problem not in self._problems and len(self._problems) >= PROBLEMS_MAX:
            problem = "other problems"
        self._problems[problem] += 1
        ids = self._ids.setdefault(problem, [])
        if len(ids) < EXAMPLES_MAX:
            ids.append(original_id)

    @property
    def problems(self) -> list[ProblemReport]:
        """The most frequent first."""
        return [ProblemReport(problem, rows, self._ids[problem]) for problem, rows in self._problems.most_common()]


def _example(session: AdoptedSession) -> ExampleReport:
    seconds = (session.session_end - session.session_start).total_seconds()
    assert session.dated_by is not None
    return ExampleReport(
        session.original_id, session.user_id, session.session_start, session.session_end, seconds, session.dated_by
    )
