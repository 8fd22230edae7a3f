"""Compares the database with the ledger, promise by promise. Pure: what is wrong is returned, with examples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .ledger import Ledger, Life, Visit
from .plan import Pace
from .records import Item, Look, Records, Row, Sample
from .truth import BACK_SECONDS, CLOCK_SECONDS, Line, Truth, closing_by_hand, excused_until, lines, truth_of

EXAMPLES_MAX = 5
DURATION_SECONDS = 0.001
WRITE_SECONDS = 0.25  # a commit is dated a little before others see it
PROMISES = (
    "orphans",  # active after all was over
    "late_rows",  # true again, but later than published
    "ghosts",  # something acknowledged after the row was closed
    "ghost_sockets",  # a socket served after the row was closed
    "writes_after_end",  # an item stored after the row was closed
    "lost_items",  # acknowledged, but not in the database, or with other words
    "doubled_items",
    "ends_rewritten",
    "missing_rows",  # a session that a client saw created
    "time_errors",  # session_start or session_end further off than published
    "duration_errors",
    "memories_missing",
    "memories_doubled",
    "healthy_swept",
    "samples_disagree",  # session_truth at some moment of the run
    "looks_disagree",  # `lastcall orphans` at some moment of the run
    "unexplained_ends",  # a server ended a connection for no reason that anybody gave it
    "unclean_exits",  # a server crashed, or did not end with 0 in time after SIGTERM
)
FACT = re.compile(r"My name is \w+\.")


@dataclass(slots=True)
class Measured:
    """What a line of the table came to, in seconds."""

    row: float = 0.0
    end: float = 0.0
    samples: int = 0
    rows: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """broken: how often each promise was. examples: the first few of each."""

    broken: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(PROMISES, 0)))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    table: dict[str, Measured] = field(default_factory=dict)
    unmeasured: int = 0

    def break_(self, promise: str, example: str) -> None:
        self.broken[promise] += 1
        if len(self.examples[promise]) < EXAMPLES_MAX:
            self.examples[promise].append(example)


class Audit:
    """One comparison. `run` returns the findings."""

    def __init__(self, ledger: Ledger, records: Records, samples: list[Sample], looks: list[Look], pace: Pace) -> None:
        self._ledger = ledger
        self._records = records
        self._samples = samples
        self._looks = looks
        self._pace = pace
        self._lines: dict[str, Line] = lines(pace)
        self._visits = {visit.session_id: visit for visit in ledger.visits.values() if visit.session_id}
        self._truths: dict[str, Truth] = {}
        self.findings = Findings(table={name: Measured() for name in self._lines})

    def run(self) -> Findings:
        self._ledger.resolve()
        for visit in self._visits.values():
            self._visit(visit)
        for row in self._records.rows.values():
            self._row(row)
        self._items()
        self._memories()
        for sample in self._samples:
            self._sample(sample)
        for look in self._looks:
            self._look(look)
        for life in self._ledger.lives:
            self._exit(life)
        return self.findings

    # --- each session

    def _visit(self, visit: Visit) -> None:
        """What its client saw, against its row."""
        row = self._records.rows.get(_uuid(visit.session_id))
        if row is None:
            self.findings.break_("missing_rows", f"session {visit.session_id} of {visit.user_id}")
            return
        life = self._life(row) or self._ledger.life_of(visit)
        self._acknowledged(visit)
        self._start(visit, row)
        if not row.is_active and row.closings:
            self._ghost(visit, row, life)
            self._timing(visit, row, life)
        if life is not None:
            self._explained(visit, life)

    def _life(self, row: Row) -> Life | None:
        lives = [life for life in self._ledger.lives if life.pid == row.pid and life.started <= row.start]
        return lives[-1] if lives else None

    def _start(self, visit: Visit, row: Row) -> None:
        latest = visit.created if visit.created is not None else float("inf")
        if not visit.opened - CLOCK_SECONDS <= row.start <= latest + CLOCK_SECONDS:
            self.findings.break_("time_errors", f"{row.session_id}: session_start is outside its connection's opening")

    def _acknowledged(self, visit: Visit) -> None:
        for ack in visit.acks.values():
            stored = self._records.items.get(ack.item_id, [])
            if not any((item.role, item.content) == (ack.role, ack.text) for item in stored):
                self.findings.break_("lost_items", f"{ack.item_id} of session {visit.session_id}: {ack.text!r:.80}")

    def _ghost(self, visit: Visit, row: Row, life: Life | None) -> None:
        """Whether the socket outlived the row."""
        limit = excused_until(row.closings[0], life, self._ledger) + CLOCK_SECONDS
        for ack in visit.acks.values():
            if ack.at > limit:
                late = ack.at - row.closings[0]
                self.findings.break_("ghosts", f"{ack.item_id} acknowledged {late:.2f} s after {row.session_id} closed")
        ended = visit.socket_ended
        if visit.how != "stopped" and (ended is None or ended > limit):
            late = (ended or float("inf")) - row.closings[0]
            self.findings.break_("ghost_sockets", f"{row.session_id} ({row.reason}) served {late:.2f} s after its end")

    def _explained(self, visit: Visit, life: Life) -> None:
        if visit.gone is None or visit.leaving is not None:
            return
        since = visit.gone - self._pace.ping_interval - self._pace.ping_timeout - BACK_SECONDS
        away = any(begin <= visit.gone and end + 2 * BACK_SECONDS >= since for begin, end in self._ledger.outages())
        frozen = any(begin <= visit.gone and end + 2 * BACK_SECONDS >= since for begin, end in life.frozen)
        told = [moment for moment in (life.killed, life.terminated) if moment is not None]
        ended = bool(told) and min(told) <= visit.gone + CLOCK_SECONDS
        if not (away or frozen or ended or closing_by_hand(visit.session_id, self._ledger)):
            self.findings.break_("unexplained_ends", f"{visit.session_id}: close code {visit.code}")

    # --- times

    def _timing(self, visit: Visit, row: Row, life: Life | None) -> None:
        if row.end is None or row.ended_at is None or life is None:
            return
        if closing_by_hand(visit.session_id, self._ledger):
            self._revoked(visit, row, life)
            return
        truth = truth_of(visit, row, life, self._ledger, self._pace)
        if truth is None:
            self.findings.unmeasured += 1
            return
        self._truths[row.session_id] = truth
        self._measure(truth.line, row.session_id, row.closings[0] - truth.origin, truth.off(row.end))
        if truth.line == "frozen" and visit.socket_ended is not None:
            self._woken(visit, life)

    def _revoked(self, visit: Visit, row: Row, life: Life) -> None:
        """A row that somebody else closed is true from then on; what was wrong is the socket."""
        ended = visit.socket_ended
        if ended is None or visit.how == "stopped" or row.end is None or row.ended_at is None:
            self.findings.unmeasured += 1
            return
        known = excused_until(row.closings[0], life, self._ledger) - BACK_SECONDS
        self._measure("revoked", row.session_id, ended - known, abs(row.end - row.ended_at))

    def _woken(self, visit: Visit, life: Life) -> None:
        ended = visit.socket_ended
        woke = [end for begin, end in life.frozen if ended is not None and visit.opened < begin <= ended]
        if ended is not None and woke and ended > woke[-1]:
            known = excused_until(woke[-1], None, self._ledger) - BACK_SECONDS
            self._measure("woken", str(visit.session_id), ended - known, 0.0)

    def _measure(self, name: str, session_id: str, row_seconds: float, end_seconds: float) -> None:
        line, measured = self._lines[name], self.findings.table[name]
        measured.samples += 1
        measured.rows.append(row_seconds)
        measured.row = max(measured.row, row_seconds)
        measured.end = max(measured.end, end_seconds)
        if row_seconds > line.bound_row:
            self.findings.break_("late_rows", f"{session_id} ({name}): {row_seconds:.3f} s > {line.bound_row:g} s")
        if line.bound_end is not None and end_seconds > allowed_end(line):
            self.findings.break_("time_errors", f"{session_id} ({name}): session_end is off by {end_seconds:.3f} s")

    # --- each row

    def _row(self, row: Row) -> None:
        if row.is_active:
            self.findings.break_("orphans", f"{row.session_id} of {row.user_id}")
            return
        if len(row.closings) > 1:
            self.findings.break_("ends_rewritten", f"{row.session_id}: {len(row.closings)} times")
        if row.end is None or row.ended_at is None or row.duration is None:
            self.findings.break_("duration_errors", f"{row.session_id} is closed without its times")
        elif abs(row.duration - (row.end - row.start)) > DURATION_SECONDS or row.end < row.start:
            self.findings.break_("duration_errors", f"{row.session_id}: {row.duration} s")
        self._swept(row)

    def _swept(self, row: Row) -> None:
        """A sweep may close the sessions only of an owner that was gone, or frozen past its lease."""
        life = self._life(row)
        if row.reason != "owner_died" or life is None or row.ended_at is None:
            return
        gone = [at for at in (life.killed, life.terminated, life.died) if at is not None and at <= row.ended_at]
        since = row.ended_at - self._pace.lease - BACK_SECONDS
        frozen = [begin for begin, end in life.frozen if begin <= row.ended_at and end >= since]
        if not gone and not frozen:
            self.findings.break_("healthy_swept", f"{row.session_id} of the living process {row.pid}")

    def _exit(self, life: Life) -> None:
        away = any(begin <= (life.died or begin) and end >= life.started for begin, end in self._ledger.outages())
        if life.killed is not None or (life.ready is None and away):
            return
        if life.terminated is None:
            self.findings.break_("unclean_exits", f"process {life.pid} ended by itself with {life.exit_code}")
        elif life.exit_code != 0:
            self.findings.break_("unclean_exits", f"process {life.pid} ended with {life.exit_code} after SIGTERM")

    # --- items and memories

    def _items(self) -> None:
        words: Counter[tuple[str, str]] = Counter()
        for item_id, stored in self._records.items.items():
            if len(stored) > 1:
                self.findings.break_("doubled_items", f"{item_id}: {len(stored)} times")
            for item in stored:
                words[item.session_id, item.content] += item.role == "user"
                self._written(item.session_id, item.item_id, item.created)
        for (session_id, content), times in words.items():
            if times > 1:
                self.findings.break_("doubled_items", f"session {session_id}: {content!r} {times} times")

    def _written(self, session_id: str, item_id: str, created: float) -> None:
        row = self._records.rows.get(session_id)
        if row is None or not row.closings:
            return
        allowed = row.closings[0] + WRITE_SECONDS
        for begin, end in self._ledger.outages():
            if begin <= allowed and end >= row.closings[0] - WRITE_SECONDS:
                allowed = max(allowed, end + WRITE_SECONDS)
        if created > allowed:
            self.findings.break_("writes_after_end", f"{item_id}, {created - row.closings[0]:.2f} s after {session_id}")

    def _memories(self) -> None:
        """Each fact that a session told must be there once, from that session and item, and applied once."""
        remembered = defaultdict(list)
        for memory in self._records.memories:
            remembered[memory.user_id, memory.content].append((memory.session_id, memory.item_id))
        said = [item for stored in self._records.items.values() for item in stored if item.role == "user"]
        for session_id in {item.session_id for item in said}:
            if not self._records.rows[session_id].is_active:  # what is not over is an orphan, and reported as such
                self._finalized(self._records.rows[session_id])
        for item in said:
            row, fact = self._records.rows[item.session_id], FACT.match(item.content)
            if fact and row.memory_status == "done":
                self._fact(item, fact.group(), remembered[row.user_id, fact.group()])
        for (session_id, content), times in self._records.effects.items():
            if times > 1:
                self.findings.break_("memories_doubled", f"session {session_id}: {content!r} applied {times} times")

    def _finalized(self, row: Row) -> None:
        if row.memory_status != "done":
            why = f"{row.memory_status} ({row.memory_error})"
            self.findings.break_("memories_missing", f"session {row.session_id} is {why}")

    def _fact(self, item: Item, content: str, sources: list[tuple[str | None, str | None]]) -> None:
        if (item.session_id, item.item_id) not in sources:
            self.findings.break_("memories_missing", f"session {item.session_id}: {content!r} is not in {sources}")
        if len(sources) > 1:
            self.findings.break_("memories_doubled", f"session {item.session_id}: {content!r} {len(sources)} times")

    # --- samples

    def _sample(self, sample: Sample) -> None:
        """What the database said at one moment, outside the published bounds."""
        for session_id, state in sample.states.items():
            truth = self._truths.get(session_id)
            if truth is not None and sample.at > truth.origin + self._lines[truth.line].bound_row + CLOCK_SECONDS:
                self.findings.break_("samples_disagree", f"{session_id} {state} {sample.at - truth.origin:.2f} s after")
            elif state == "orphaned" and self._healthy(session_id, sample.at):
                self.findings.break_(
                    "samples_disagree", f"{session_id} called orphaned, but its owner is in good health"
                )

    def _look(self, look: Look) -> None:
        for session_id in look.orphans:
            row = self._records.rows[session_id]
            if row.closings and row.closings[0] < look.began - CLOCK_SECONDS:
                self.findings.break_("looks_disagree", f"{session_id} called orphaned after its end")
            elif self._healthy(session_id, look.ended):
                self.findings.break_("looks_disagree", f"{session_id} called orphaned, but its owner is in good health")

    def _healthy(self, session_id: str, at: float) -> bool:
        """Whether the owner had no reason at all to look dead at a moment."""
        row = self._records.rows.get(session_id)
        life = self._life(row) if row is not None else None
        if life is None:
            return False
        since = at - self._pace.lease - BACK_SECONDS
        ends = [end for end in (life.killed, life.terminated, life.died) if end is not None]
        troubles = [*life.frozen, *self._ledger.outages()]
        return not (ends and min(ends) <= at) and not any(begin <= at and end >= since for begin, end in troubles)


def allowed_end(line: Line) -> float:
    """The bound, or where that is 0, how exactly it can be measured."""
    return (line.bound_end or 0.0) or CLOCK_SECONDS


def within(line: Line, measured: Measured) -> bool | None:
    """None: there was nothing to measure."""
    if not measured.samples:
        return None
    return measured.row <= line.bound_row and (line.bound_end is None or measured.end <= allowed_end(line))


def _uuid(session_id: str | None) -> str:
    """As PostgreSQL writes it."""
    text = session_id or ""
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if "-" not in text else text
