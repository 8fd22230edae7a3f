"""Compares the database with the ledger, promise by promise. Pure: findings are returned, with examples."""

from __future__ import annotations

from .audit_contents import ContentAudit, uuid_text
from .expected_end import CLOCK_SECONDS, START_SECONDS_MAX, ExpectedEnd, Line, excused_until, expected_end, lines
from .findings import Findings, Measured, allowed_end
from .ledger import BACK_SECONDS, Ledger, ServerLife, Visit
from .plan import Pace
from .records import Deletion, OrphanListing, Records, Row, Sample

DURATION_SECONDS = 0.001
VANISHED = "client_vanished"  # the end_reason of a client that answered no ping
ROW_GONE_CODE = 4001
TAKEN_OVER = frozenset({"killed", "killed_elsewhere", "killed_only", "frozen", "cut", "cut_elsewhere"})
"""Lines whose rows another server closes."""


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
        ContentAudit(self._ledger, self._records, self.findings).run()
        for sample in self._samples:
            self._sample(sample)
        for listing in self._listings:
            self._listing(listing)
        for life in self._ledger.lives:
            self._exit(life)
            self._started(life)
        self.findings.judge_crowds(self._lines)
        return self.findings

    # --- each session

    def _visit(self, visit: Visit) -> None:
        """Compares what the client saw with its row."""
        row = self._records.rows.get(uuid_text(visit.session_id))
        if row is None:
            self._without_row(visit)
            return
        life = self._life(row) or self._ledger.life_of(visit)
        self._start(visit, row)
        if not row.is_active and row.closings:
            self._ghost(visit, f"{row.session_id} ({row.reason})", row.closings[0], life)
            self._timing(visit, row, life)
        if life is not None:
            self._explained(visit, row.reason, life)

    def _without_row(self, visit: Visit) -> None:
        """It is missing, but for a row that the run itself has deleted."""
        deletion = self._records.deletions.get(uuid_text(visit.session_id))
        fault = self._ledger.struck(visit.session_id, visit.user_id, by=("row_deleted", "user_erased"))
        if deletion is None or fault is None:
            self.findings.add("missing_rows", f"session {visit.session_id} of {visit.user_id}")
        elif deletion.was_active:
            self._deleted(visit, deletion, fault)

    def _deleted(self, visit: Visit, deletion: Deletion, fault: str) -> None:
        life, ended = self._ledger.life_of(visit), visit.socket_ended_earliest
        self._ghost(visit, f"{deletion.session_id} (deleted)", deletion.committed, life)
        if ended is None or visit.how == "stopped":
            self.findings.unmeasured += 1
            return
        known = excused_until(deletion.committed, life, self._ledger) - BACK_SECONDS
        self._measure_row("deleted", deletion.session_id, fault, known, ended, self._server(life))
        self._code(visit, life, deletion.committed)

    def _life(self, row: Row) -> ServerLife | None:
        lives = [
            life
            for life in self._ledger.lives
            if life.pid == row.pid and life.hostname in (None, row.hostname) and life.started <= row.start
        ]
        return lives[-1] if lives else None

    def _start(self, visit: Visit, row: Row) -> None:
        latest = visit.created if visit.created is not None else float("inf")
        if not visit.opened - CLOCK_SECONDS <= row.start <= latest + CLOCK_SECONDS:
            self.findings.add("time_errors", f"{row.session_id}: session_start is outside its connection's opening")

    def _ghost(self, visit: Visit, name: str, closed: float, life: ServerLife | None) -> None:
        """Whether the socket outlived the row. How late the client read is not in these moments."""
        limit = excused_until(closed, life, self._ledger) + CLOCK_SECONDS
        for ack in visit.acks.values():
            if ack.at > limit:
                example = f"{ack.item_id} acknowledged {ack.at - closed:.2f} s after {name} closed"
                lost = self._lost(closed, ack.at, self._server(life))
                self.findings.add_late("late_acknowledgements", example, excess=ack.at - limit, lost=lost)
        ended = visit.socket_ended_earliest
        if ended is not None and life is not None and life.died is not None:
            ended = min(ended, life.died)  # the kernel closes what a dead process held, however late that is read
        if visit.how == "stopped" or (ended is not None and ended <= limit):
            return
        if ended is None:
            self.findings.add("ghost_sockets", f"{name} served to the end of the run")
            return
        example = f"{name} served {ended - closed:.2f} s after its end"
        lost = self._lost(closed, ended, self._server(life))
        self.findings.add_late("ghost_sockets", example, excess=ended - limit, lost=lost)

    def _code(self, visit: Visit, life: ServerLife | None, closed: float) -> None:
        """A socket that is closed because of its row says so, unless something else ended it in that moment.

        Without a code nothing is known: a client that sends in that moment is reset, and does not get to read it.
        """
        if visit.gone is None or visit.leaving is not None or visit.code in (0, ROW_GONE_CODE) or visit.gone < closed:
            return
        if life is None or not self._disturbed(visit.gone, closed - BACK_SECONDS, life):
            self.findings.add("wrong_codes", f"{visit.session_id}: close code {visit.code}")

    def _explained(self, visit: Visit, reason: str | None, life: ServerLife) -> None:
        if visit.gone is None or visit.leaving is not None:
            return
        since = visit.gone - self._pace.ping_interval - self._pace.ping_timeout - BACK_SECONDS
        struck = self._ledger.struck(visit.session_id, visit.user_id) is not None
        if not (struck or self._disturbed(visit.gone, since - 2 * BACK_SECONDS, life)):
            self._unexplained(visit, reason, life)

    def _disturbed(self, at: float, since: float, life: ServerLife) -> bool:
        """Whether a server had reason to end a connection: a fault that went on until `since`, or its own end.

        A short cut of its link is no reason, nor is a host of its URL that hangs.
        """
        times = [(outage.begin, outage.end) for outage in self._ledger.outages()]
        times += [*life.frozen, *((cut.begin, cut.end) for cut in life.fatal_cuts())]
        told = [moment for moment in (life.killed, life.terminated) if moment is not None]
        return any(begin <= at and end >= since for begin, end in times) or (
            bool(told) and min(told) <= at + CLOCK_SECONDS
        )

    def _unexplained(self, visit: Visit, reason: str | None, life: ServerLife) -> None:
        """Of all such ends, only an unanswered ping is about time: the client may have had none to answer in."""
        example = f"{visit.session_id} ({reason}): close code {visit.code}"
        if reason != VANISHED or visit.gone is None:
            self.findings.add("unexplained_ends", example)
            return
        begin = visit.gone - self._pace.ping_timeout - CLOCK_SECONDS
        lost = self._lost(begin, visit.gone, [*self._client(visit), *self._server(life)])
        self.findings.add_late("unexplained_ends", example, excess=self._pace.ping_timeout - CLOCK_SECONDS, lost=lost)

    # --- time that was lost to other processes

    def _lost(self, begin: float, end: float, sources: list[str]) -> float:
        return self._ledger.starvation.lost(begin, end, sources)

    def _server(self, life: ServerLife | None) -> list[str]:
        """What a session of a server waits for: the database, the server itself, and its link if it has one."""
        if life is None:
            return ["database"]
        return ["database", f"server:{life.process}", *(["link"] if life.linked else ())]

    def _client(self, visit: Visit) -> list[str]:
        return [f"clients:{visit.client_process}"]

    def _sources(self, line: str, visit: Visit, row: Row, life: ServerLife) -> list[str]:
        """The processes that the line's rows wait for, and no others: a busy neighbour explains nothing."""
        if line in TAKEN_OVER:  # any other server may close the row; the runner caused the fault
            servers = self._ledger.starvation.sources("server")
            return ["runner", "database", *(source for source in servers if source not in self._server(life))]
        if line == "shutdown":
            return ["runner", *self._server(life)]
        return [*self._server(life), *(self._client(visit) if row.reason == VANISHED else ())]

    # --- times

    def _timing(self, visit: Visit, row: Row, life: ServerLife | None) -> None:
        if row.end is None or row.ended_at is None or life is None:
            return
        if self._ledger.struck(visit.session_id) == "row_closed":
            self._revoked(visit, row, life)
            return
        expected = expected_end(visit, row, life, self._ledger, self._pace)
        if expected is None:
            self.findings.unmeasured += 1
            return
        self._expected[row.session_id] = expected
        sources = self._sources(expected.line, visit, row, life)
        # The client may have paused between its note and its end.
        paused = (
            expected.latest - expected.earliest if expected.line not in (*TAKEN_OVER, "vanished", "shutdown") else 0
        )
        name, fault = row.session_id, expected.fault
        self._measure_row(expected.line, name, fault, expected.origin, row.closings[0], sources, paused)
        if not row.clock_set:  # else no date of its end would be right
            self._measure_end(expected, row, sources)
        if visit.socket_ended is not None and expected.line in ("frozen", "cut", "cut_elsewhere"):
            self._woken(visit, expected, life)

    def _revoked(self, visit: Visit, row: Row, life: ServerLife) -> None:
        """A row that somebody else closed is true from then on; only the socket can be late."""
        ended = visit.socket_ended_earliest
        if ended is None or visit.how == "stopped" or row.end is None or row.ended_at is None:
            self.findings.unmeasured += 1
            return
        known = excused_until(row.closings[0], life, self._ledger) - BACK_SECONDS
        self._measure_row("revoked", row.session_id, "row_closed", known, ended, self._server(life))
        self._end_off("revoked", row.session_id, abs(row.end - row.ended_at), 0.0)
        self._code(visit, life, row.closings[0])

    def _woken(self, visit: Visit, expected: ExpectedEnd, life: ServerLife) -> None:
        """The sockets of a server that others took for dead, once it runs again, or has its link back."""
        ended = visit.socket_ended_earliest
        troubles = life.frozen if expected.line == "frozen" else [(cut.begin, cut.end) for cut in life.fatal_cuts()]
        woke = [end for begin, end in troubles if ended is not None and visit.opened < begin <= ended]
        if ended is not None and woke and ended > woke[-1]:
            known = excused_until(woke[-1], None, self._ledger) - BACK_SECONDS
            line = "woken" if expected.line == "frozen" else "relinked"
            self._measure_row(line, str(visit.session_id), "", known, ended, self._server(life))

    def _measure_row(
        self,
        name: str,
        session_id: str,
        fault: str,
        origin: float,
        until: float,
        sources: list[str],
        paused: float = 0.0,
    ) -> None:
        """Adds one end to a line of the table: `until` is when the row, or the socket, was right again."""
        line, measured, seconds = self._lines[name], self.findings.table[name], until - origin
        measured.add(seconds, line.bound_row)
        if fault:
            self.findings.faults[fault].add(seconds, line.bound_row)
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
            measured.late_rows += kind == "late_rows"

    # --- each row

    def _row(self, row: Row) -> None:
        if row.is_active:
            self.findings.add("orphans", f"{row.session_id} of {row.user_id}")
            return
        if len(row.closings) > 1:
            self.findings.add("ends_rewritten", f"{row.session_id}: {len(row.closings)} times")
        lasted = row.lasted
        if lasted is None and row.end is not None:
            lasted = row.end - row.start
        if lasted is None or row.ended_at is None or row.duration is None:
            self.findings.add("duration_errors", f"{row.session_id} is closed without its times")
        elif abs(row.duration - lasted) > DURATION_SECONDS or lasted < 0.0:
            self.findings.add("duration_errors", f"{row.session_id}: {row.duration} s")
        self._swept(row)

    def _swept(self, row: Row) -> None:
        """A sweep may close only the sessions of a server that was gone, or out of reach for longer than it may be."""
        life = self._life(row)
        if row.reason != "owner_died" or life is None or not row.closings:
            return
        at = row.closings[0]
        gone = [moment for moment in (life.killed, life.terminated, life.died) if moment is not None and moment <= at]
        frozen = [begin for begin, end in life.frozen if begin <= at and end >= at - life.lease - BACK_SECONDS]
        cut = [each for each in life.fatal_cuts() if life.may_be_reaped(each) - CLOCK_SECONDS <= at]
        if not gone and not frozen and not any(each.end >= at - life.lease - BACK_SECONDS for each in cut):
            self.findings.add(
                "healthy_swept", f"{row.session_id} of the living process {life.process}{_since(life, at)}"
            )

    def _exit(self, life: ServerLife) -> None:
        away = any(
            each.begin <= (life.died or each.begin) and each.end >= life.started for each in self._ledger.outages(life)
        )
        if life.killed is not None or (life.ready is None and away):
            return
        if life.terminated is None:
            self.findings.add("crashes", f"process {life.process} exited by itself with {life.exit_code}")
        elif life.exit_code != 0:
            self.findings.add("unclean_exits", f"process {life.process} exited with {life.exit_code} after {life.by}")

    def _started(self, life: ServerLife) -> None:
        """How long a server took to start while the first host of its URL did not answer."""
        if not any(cut.how == "hung" and cut.begin <= life.started <= cut.end for cut in life.cuts):
            return
        if life.ready is None:
            self.findings.add("late_starts", f"process {life.process} exited with {life.exit_code}")
        elif (excess := life.ready - life.started - START_SECONDS_MAX) > 0.0:
            lost = self._lost(life.started, life.ready, self._server(life))
            self.findings.add_late("late_starts", f"process {life.process}", excess=excess, lost=lost)

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
            row = self._records.rows.get(session_id)
            if row is not None and row.closings and row.closings[0] < listing.began - CLOCK_SECONDS:
                self.findings.add("listing_disagrees", f"{session_id} called orphaned after its end")
            elif self._healthy(session_id, listing.ended):
                self.findings.add("listing_disagrees", f"{session_id} called orphaned, but its server is healthy")

    def _healthy(self, session_id: str, at: float) -> bool:
        """Whether nothing could make the owner look dead at a moment."""
        row = self._records.rows.get(session_id)
        life = self._life(row) if row is not None else None
        if life is None:
            return False
        since = at - life.lease - BACK_SECONDS
        ends = [end for end in (life.killed, life.terminated, life.died) if end is not None]
        troubles = [*life.frozen, *((outage.begin, outage.end) for outage in self._ledger.outages(life))]
        return not (ends and min(ends) <= at) and not any(begin <= at and end >= since for begin, end in troubles)


def _since(life: ServerLife, at: float) -> str:
    """How long a cut had lasted by then, for an example."""
    cut = [each for each in life.cuts if each.begin <= at]
    return f", {at - cut[-1].begin:.2f} s after its link was cut" if cut else ""
