"""Compares what is stored of conversations, their items and memories, with what the clients saw. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from .findings import Findings
from .ledger import Ledger, Visit
from .records import Item, Records, Row

WRITE_SECONDS = 0.25  # a commit is dated a little before others see it
FACT = re.compile(r"My name is \w+\.")


class ContentAudit:
    """One comparison. `run` adds to the findings."""

    def __init__(self, ledger: Ledger, records: Records, findings: Findings) -> None:
        self._ledger = ledger
        self._records = records
        self._findings = findings

    def run(self) -> None:
        for visit in self._ledger.visits.values():
            if visit.session_id and uuid_text(visit.session_id) not in self._records.deletions:
                self._acknowledged(visit)
        self._items()
        self._memories()
        self._index()
        self._erased()

    def _acknowledged(self, visit: Visit) -> None:
        for ack in visit.acks.values():
            stored = self._records.items.get(ack.item_id, [])
            if not any((item.role, item.content) == (ack.role, ack.text) for item in stored):
                self._findings.add("lost_items", f"{ack.item_id} of session {visit.session_id}: {ack.text!r:.80}")

    def _items(self) -> None:
        words: Counter[tuple[str, str]] = Counter()
        for item_id, stored in self._records.items.items():
            if len(stored) > 1:
                self._findings.add("doubled_items", f"{item_id}: {len(stored)} times")
            for item in stored:
                words[item.session_id, item.content] += item.role == "user"
                self._written(item.session_id, item.item_id, item.created)
        for (session_id, content), times in words.items():
            if times > 1:
                self._findings.add("doubled_items", f"session {session_id}: {content!r} {times} times")

    def _written(self, session_id: str, item_id: str, created: float) -> None:
        row = self._records.rows.get(session_id)
        if row is None or not row.closings:
            return
        allowed = row.closings[0] + WRITE_SECONDS
        for outage in self._ledger.outages():
            if outage.begin <= allowed and outage.end >= row.closings[0] - WRITE_SECONDS:
                allowed = max(allowed, outage.end + WRITE_SECONDS)
        if created > allowed:
            example = f"{item_id}, {created - row.closings[0]:.2f} s after {session_id}"
            lost = self._ledger.starvation.lost(row.closings[0], created, ["database"])
            self._findings.add_late("writes_after_end", example, excess=created - allowed, lost=lost)

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
                self._findings.add("memories_doubled", f"session {session_id}: {content!r} applied {times} times")

    def _index(self) -> None:
        for fault in self._records.index_faults:
            self._findings.add("index_faults", fault)

    def _finalized(self, row: Row) -> None:
        if row.memory_status != "done":
            why = f"{row.memory_status} ({row.memory_error})"
            self._findings.add("memories_missing", f"session {row.session_id} is {why}")

    def _fact(self, item: Item, content: str, sources: list[tuple[str | None, str | None]]) -> None:
        if (item.session_id, item.item_id) not in sources:
            self._findings.add("memories_missing", f"session {item.session_id}: {content!r} is not in {sources}")
        if len(sources) > 1:
            self._findings.add("memories_doubled", f"session {item.session_id}: {content!r} {len(sources)} times")

    def _erased(self) -> None:
        """Of a session that was deleted while it was active, and of an erased user, nothing is remembered."""
        gone = set()
        for visit in self._ledger.visits.values():
            deletion = self._records.deletions.get(uuid_text(visit.session_id))
            if deletion is not None and (deletion.was_active or self._ledger.struck(visit.user_id)):
                # Others come from earlier sessions of the conversation, and were acknowledged before.
                own = [ack for ack in visit.acks.values() if ack.item_id.startswith(f"item_{visit.visit_id}_")]
                gone |= {fact.group() for ack in own if (fact := FACT.match(ack.text))}
        for memory in self._records.memories:
            if memory.content in gone:
                self._findings.add("writes_after_erasure", f"{memory.content!r} of {memory.user_id}")


def uuid_text(session_id: str | None) -> str:
    """A session id in the form that PostgreSQL returns."""
    text = session_id or ""
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if "-" not in text else text
