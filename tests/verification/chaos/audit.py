"""Compares the database with the ledger, promise by promise. Pure: findings are returned, with examples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from .expected_end import (
    BACK_SECONDS,
    CLOCK_SECONDS,
    ExpectedEnd,
    Line,
    closing_by_hand,
    excused_until,
    expected_end,
    lines,
)
from .findings import Findings, Measured, allowed_end
from .ledger import Ledger, ServerLife, Visit
from .plan import Pace
from .records import Item, OrphanListing, Records, Row, Sample

DURATION_SECONDS = 0.001
WRITE_SECONDS = 0.25  # a commit is dated a little before others see it
FACT = re.compile(r"My name is \w+\.")
VANISHED = "client_vanished"  # the end_reason of a client that answered no ping


class Audit:
    """One comparison. `run` returns the findings."""

    def __init__(
        self, ledger: Ledger, records: Records, samples: list[Sample], listings: list[OrphanListing], pace: Pace
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._samples = samples
        self._listings = listings
        self._pace = pace
        self._lines: dict[str, Line] = lines(pace)
        self._visits = {visit.session_id: visit for visit in ledger.visits.values() if visit.session_id}
        self._expected: dict[str, ExpectedEnd] = {}
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
        for listing in self._listings:
            self._listing(listing)
        for life in self._ledger.lives:
            self._exit(life)
        return self.findings

    # --- each session

    def _visit(self, visit: Visit) -> None:
        """Compares what the client saw with its row."""
        row = self._records.rows.get(_uuid(visit.session_id))
        if row is None:
            self.findings.add("missing_rows", f"session {visit.session_id} of {visit.user_id}")
            return
        life = self._life(row) or self._ledger.life_of(visit)
        self._acknowledged(visit)
        self._start(visit, row)
        if not row.is_active and row.closings:
            self._ghost(visit, row, life)
            self._timing(visit, row, life)
        if life is not None:
            self._explained(visit, row, life)

    def _life(self, row: Row) -> ServerLife | None:
        lives = [life for life in self._ledger.lives if life.pid == row.pid and life.started <= row.start]
        return lives[-1] if lives else None

    def _start(self, visit: Visit, row: Row) -> None:
        latest = visit.created if visit.created is not None else float("inf")
        if not visit.opened - CLOCK_SECONDS <= row.start <= latest + CLOCK_SECONDS:
            self.findings.add("time_errors", f"{row.session_id}: session_start is outside its connection's opening")

    def _acknowledged(self, visit: Visit) -> None:
        for ack in visit.acks.values():
            stored = self._records.items.get(ack.item_id, [])
            if not any((item.role, item.content) == (ack.role, ack.text) for item in stored):
                self.findings.add("lost_items", f"{ack.item_id} of session {visit.session_id}: {ack.text!r:.80}")

    def _ghost(self, visit: Visit, row: Row, life: ServerLife | None) -> None:
        """Whether the socket outlived the row. How late the client read is not in these moments."""
        closed = row.closings[0]
        limit = excused_until(closed, life, self._ledger) + CLOCK_SECONDS
        for ack in visit.acks.values():
            if ack.at > limit:
                example = f"{ack.item_id} acknowledged {ack.at - closed:.2f} s after {row.session_id} closed"
                lost = self._lost(closed, ack.at, self._server(life))
                self.findings.add_late("late_acknowledgements", example, excess=ack.at - limit, lost=lost)
        ended = visit.socket_ended_earliest
        if visit.how == "stopped" or (ended is not None and ended <= limit):
            return
        if ended is None:
            self.findings.add("ghost_sockets", f"{row.session_id} ({row.reason}) served to the end of the run")
            return
        example = f"{row.session_id} ({row.reason}) served {ended - closed:.2f} s after its end"
        lost = self._lost(closed, ended, self._server(life))
        self.findings.add_late("ghost_sockets", example, excess=ended - limit, lost=lost)

    def _explained(self, visit: Visit, row: Row, life: ServerLife) -> None:
        if visit.gone is None or visit.leaving is not None:
            return
        since = visit.gone - self._pace.ping_interval - self._pace.ping_timeout - BACK_SECONDS
        away = any(begin <= visit.gone and end + 2 * BACK_SECONDS >= since for begin, end in self._ledger.outages())
        frozen = any(begin <= visit.gone and end + 2 * BACK_SECONDS >= since for begin, end in life.frozen)
        told = [moment for moment in (life.killed, life.terminated) if moment is not None]
        ended = bool(told) and min(told) <= visit.gone + CLOCK_SECONDS
        if not (away or frozen or ended or closing_by_hand(visit.session_id, self._ledger)):
            self._unexplained(visit, row, life)

    def _unexplained(self, visit: Visit, row: Row, life: ServerLife) -> None:
        """Of all such ends, only an unanswered ping is about time: the client may have had none to answer in."""
        example = f"{visit.session_id} ({row.reason}): close code {visit.code}"
        if row.reason != VANISHED or visit.gone is None:
            self.findings.add("unexplained_ends", example)
            return
        begin = visit.gone - self._pace.ping_timeout - CLOCK_SECONDS
        lost = self._lost(begin, visit.gone, [*self._client(visit), *self._server(life)])
        self.findings.add_late("unexplained_ends", example, excess=self._pace.ping_timeout - CLOCK_SECONDS, lost=lost)

    # --- time that was lost to other processes

    def _lost(self, begin: float, end: float, sources: list[str]) -> float:
        return self._ledger.starvation.lost(begin, end, sources)

    def _server(self, life: ServerLife | None) -> list[str]:
        return ["database", *([f"server:{life.pid}"] if life is not None else ())]

    def _client(self, visit: Visit) -> list[str]:
        return [f"clients:{visit.client_process}"]

    def _sources(self, line: str, visit: Visit, row: Row, life: ServerLife) -> list[str]:
        """The processes that the line's rows wait for, and no others: a busy neighbour explains nothing."""
        if line in (
            "killed",
            "killed_only",
            "frozen",
        ):  # any other server may close the row; the runner sent the signal
            others = [
                source for source in self._ledger.starvation.sources("server") if source not in self._server(life)
            ]
            return ["runner", "database", *others]
        if line == "shutdown":
            return ["runner", *self._server(life)]
        return [*self._server(life), *(self._client(visit) if row.reason == VANISHED else ())]

    # --- times

    def _timing(self, visit: Visit, row: Row, life: ServerLife | None) -> None:
        if row.end is None or row.ended_at is None or life is None:
            return
        if closing_by_hand(visit.session_id, self._ledger):
            self._revoked(visit, row, life)
            return
        expected = expected_end(visit, row, life, self._ledger, self._pace)
        if expected is None:
            self.findings.unmeasured += 1
            return
        self._expected[row.session_id] = expected
        sources = self._sources(expected.line, visit, row, life)
        # The client may have paused between its note and its end.
        paused = expected.latest - expected.earliest if expected.line in ("client", "database") else 0.0
        self._measure_row(expected.line, row.session_id, expected.origin, row.closings[0], sources, paused)
        self._measure_end(expected, row, sources)
        if expected.line == "frozen" and visit.socket_ended is not None:
            self._woken(visit, life)

    def _revoked(self, visit: Visit, row: Row, life: ServerLife) -> None:
        """A row that somebody else closed is true from then on; only the socket can be late."""
        ended = visit.socket_ended_earliest
        if ended is None or visit.how == "stopped" or row.end is None or row.ended_at is None:
            self.findings.unmeasured += 1
            return
        known = excused_until(row.closings[0], life, self._ledger) - BACK_SECONDS
        self._measure_row("revoked", row.session_id, known, ended, self._server(life))
        self._end_off("revoked", row.session_id, abs(row.end - row.ended_at), 0.0)

    def _woken(self, visit: Visit, life: ServerLife) -> None:
        ended = visit.socket_ended_earliest
        woke = [end for begin, end in life.frozen if ended is not None and visit.opened < begin <= ended]
        if ended is not None and woke and ended > woke[-1]:
            known = excused_until(woke[-1], None, self._ledger) - BACK_SECONDS
            self._measure_row("woken", str(visit.session_id), known, ended, self._server(life))

    def _measure_row(
        self, name: str, session_id: str, origin: float, until: float, sources: list[str], paused: float = 0.0
    ) -> None:
        """Adds one end to a line of the table: `until` is when the row, or the socket, was right again."""
        line, measured, seconds = self._lines[name], self.findings.table[name], until - origin
        measured.samples += 1
        measured.rows.append(seconds)
        measured.row = max(measured.row, seconds)
        if seconds > line.bound_row:
            kind = "late_sockets" if line.of_socket else "late_rows"
            example = f"{session_id} ({name}): {seconds:.3f} s > {line.bound_row:g} s"
            lost = self._lost(origin, until, sources) + paused
            self._count_late(measured, kind, example, seconds - line.bound_row, lost)

    def _measure_end(self, expected: ExpectedEnd, row: Row, sources: list[str]) -> None:
        """The end may be dated late by a server that noticed late, or by a database that dated it late."""
        assert row.end is not None
        off = expected.off(row.end)
        noticing = self._lost(min(row.end, expected.earliest), max(row.end, expected.latest), sources)
        dating = self._lost(row.closings[0] - off, row.closings[0], sources)
        self._end_off(expected.line, row.session_id, off, max(noticing, dating))

    def _end_off(self, name: str, session_id: str, off: float, lost: float) -> None:
        line, measured = self._lines[name], self.findings.table[name]
        measured.end = max(measured.end, off)
        if line.bound_end is not None and off > allowed_end(line):
            example = f"{session_id} ({name}): session_end is off by {off:.3f} s"
            self._count_late(measured, "time_errors", example, off - allowed_end(line), lost)

    def _count_late(self, measured: Measured, kind: str, example: str, excess: float, lost: float) -> None:
        if self.findings.add_late(kind, example, excess=excess, lost=lost):
            measured.broken += 1
        else:
            measured.unjudged += 1

    # --- each row

    def _row(self, row: Row) -> None:
        if row.is_active:
            self.findings.add("orphans", f"{row.session_id} of {row.user_id}")
            return
        if len(row.closings) > 1:
            self.findings.add("ends_rewritten", f"{row.session_id}: {len(row.closings)} times")
        if row.end is None or row.ended_at is None or row.duration is None:
            self.findings.add("duration_errors", f"{row.session_id} is closed without its times")
        elif abs(row.duration - (row.end - row.start)) > DURATION_SECONDS or row.end < row.start:
            self.findings.add("duration_errors", f"{row.session_id}: {row.duration} s")
        self._swept(row)

    def _swept(self, row: Row) -> None:
        """A sweep may close only the sessions of a server that was gone, or frozen past its lease."""
        life = self._life(row)
        if row.reason != "owner_died" or life is None or row.ended_at is None:
            return
        gone = [at for at in (life.killed, life.terminated, life.died) if at is not None and at <= row.ended_at]
        since = row.ended_at - self._pace.lease - BACK_SECONDS
        frozen = [begin for begin, end in life.frozen if begin <= row.ended_at and end >= since]
        if not gone and not frozen:
            self.findings.add("healthy_swept", f"{row.session_id} of the living process {row.pid}")

    def _exit(self, life: ServerLife) -> None:
        away = any(begin <= (life.died or begin) and end >= life.started for begin, end in self._ledger.outages())
        if life.killed is not None or (life.ready is None and away):
            return
        if life.terminated is None:
            self.findings.add("crashes", f"process {life.pid} exited by itself with {life.exit_code}")
        elif life.exit_code != 0:
            self.findings.add("unclean_exits", f"process {life.pid} exited with {life.exit_code} after SIGTERM")

    # --- items and memories

    def _items(self) -> None:
        words: Counter[tuple[str, str]] = Counter()
        for item_id, stored in self._records.items.items():
            if len(stored) > 1:
                self.findings.add("doubled_items", f"{item_id}: {len(stored)} times")
            for item in stored:
                words[item.session_id, item.content] += item.role == "user"
                self._written(item.session_id, item.item_id, item.created)
        for (session_id, content), times in words.items():
            if times > 1:
                self.findings.add("doubled_items", f"session {session_id}: {content!r} {times} times")

    def _written(self, session_id: str, item_id: str, created: float) -> None:
        row = self._records.rows.get(session_id)
        if row is None or not row.closings:
            return
        allowed = row.closings[0] + WRITE_SECONDS
        for begin, end in self._ledger.outages():
            if begin <= allowed and end >= row.closings[0] - WRITE_SECONDS:
                allowed = max(allowed, end + WRITE_SECONDS)
        if created > allowed:
            example = f"{item_id}, {created - row.closings[0]:.2f} s after {session_id}"
            lost = self._lost(row.closings[0], created, ["database"])
            self.findings.add_late("writes_after_end", example, excess=created - allowed, lost=lost)

    def _memories(self) -> None:
        """Each fact of a session must be there once, from that session and item, and applied once."""
        remembered = defaultdict(list)
        for memory in self._records.memories:
            remembered[memory.user_id, memory.content].append((memory.session_id, memory.item_id))
        said = [item for stored in self._records.items.values() for item in stored if item.role == "user"]
        for session_id in {item.session_id for item in said}:
            if not self._records.rows[session_id].is_active:  # else it is an orphan, and reported as one
                self._finalized(self._records.rows[session_id])
        for item in said:
            row, fact = self._records.rows[item.session_id], FACT.match(item.content)
            if fact and row.memory_status == "done":
                self._fact(item, fact.group(), remembered[row.user_id, fact.group()])
        for (session_id, content), times in self._records.effects.items():
            if times > 1:
                self.findings.add("memories_doubled", f"session {session_id}: {content!r} applied {times} times")

    def _finalized(self, row: Row) -> None:
        if row.memory_status != "done":
            why = f"{row.memory_status} ({row.memory_error})"
            self.findings.add("memories_missing", f"session {row.session_id} is {why}")

    def _fact(self, item: Item, content: str, sources: list[tuple[str | None, str | None]]) -> None:
        if (item.session_id, item.item_id) not in sources:
            self.findings.add("memories_missing", f"session {item.session_id}: {content!r} is not in {sources}")
        if len(sources) > 1:
            self.findings.add("memories_doubled", f"session {item.session_id}: {content!r} {len(sources)} times")

    # --- samples

    def _sample(self, sample: Sample) -> None:
        """Compares what the view said at one moment, beyond the published bounds."""
        for session_id, state in sample.states.items():
            expected = self._expected.get(session_id)
            limit = expected.origin + self._lines[expected.line].bound_row + CLOCK_SECONDS if expected else float("inf")
            if expected is not None and sample.at > limit:
                example = f"{session_id} {state} {sample.at - expected.origin:.2f} s after its end"
                lost = self._lost(expected.origin, sample.at, self._sources_of(session_id, expected.line))
                self.findings.add_late("view_disagrees", example, excess=sample.at - limit, lost=lost)
            elif state == "orphaned" and self._healthy(session_id, sample.at):
                self.findings.add("view_disagrees", f"{session_id} called orphaned, but its server is healthy")

    def _sources_of(self, session_id: str, line: str) -> list[str]:
        visit, row = self._visits[session_id.replace("-", "")], self._records.rows[session_id]
        life = self._life(row) or self._ledger.life_of(visit)
        assert life is not None  # it had an expected end
        return self._sources(line, visit, row, life)

    def _listing(self, listing: OrphanListing) -> None:
        for session_id in listing.orphans:
            row = self._records.rows[session_id]
            if row.closings and row.closings[0] < listing.began - CLOCK_SECONDS:
                self.findings.add("listing_disagrees", f"{session_id} called orphaned after its end")
            elif self._healthy(session_id, listing.ended):
                self.findings.add("listing_disagrees", f"{session_id} called orphaned, but its server is healthy")

    def _healthy(self, session_id: str, at: float) -> bool:
        """Whether nothing could make the owner look dead at a moment."""
        row = self._records.rows.get(session_id)
        life = self._life(row) if row is not None else None
        if life is None:
            return False
        since = at - self._pace.lease - BACK_SECONDS
        ends = [end for end in (life.killed, life.terminated, life.died) if end is not None]
        troubles = [*life.frozen, *self._ledger.outages()]
        return not (ends and min(ends) <= at) and not any(begin <= at and end >= since for begin, end in troubles)


def _uuid(session_id: str | None) -> str:
    """A session id in the form that PostgreSQL returns."""
    text = session_id or ""
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if "-" not in text else text
