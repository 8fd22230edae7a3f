"""Compares what the receiver of webhooks got with what is stored of sessions. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import defaultdict
from typing import Any

from .audit_contents import uuid_text
from .findings import Findings
from .receipts import Receipt
from .records import Clock, Records, Row

ENDED, REMEMBERED = "session.ended", "memory.done"
SIGNED_SECONDS = 60.0  # between the signature, which has whole seconds of the database's clock, and its arrival
SAME_SECONDS = 0.001  # as exact as a time in an event is


class WebhookAudit:
    """One comparison. `run` adds to the findings. secret: as the receiver was given it."""

    def __init__(
        self, records: Records, receipts: list[Receipt], secret: str, clock: Clock, findings: Findings
    ) -> None:
        self._records = records
        self._receipts = receipts
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._clock = clock
        self._findings = findings
        self._tries: dict[tuple[str, str], list[Receipt]] = defaultdict(list)  # by event and session

    def run(self) -> None:
        for receipt in self._receipts:
            self._signed(receipt)
            event = json.loads(receipt.body)
            self._tries[event["type"], uuid_text(event["data"]["session_id"].removeprefix("sess_"))].append(receipt)
        self._reported()
        for (kind, session_id), tries in self._tries.items():
            self._same(f"{kind} of {session_id}", tries)
            self._true(kind, session_id, json.loads(tries[-1].body)["data"])
        self._apart()

    def _signed(self, receipt: Receipt) -> None:
        message_id, timestamp = receipt.headers["webhook-id"], receipt.headers["webhook-timestamp"]
        digest = hmac.digest(self._key, f"{message_id}.{timestamp}.".encode() + receipt.body, hashlib.sha256)
        if receipt.headers["webhook-signature"] != f"v1,{base64.b64encode(digest).decode()}":
            self._findings.add("bad_signatures", f"{message_id}: {receipt.headers['webhook-signature']}")
        signed = self._clock(float(timestamp))
        if signed is None or abs(signed - receipt.at) > SIGNED_SECONDS:
            self._findings.add("bad_signatures", f"{message_id}: dated {timestamp}, and received at {receipt.at:.0f}")

    def _reported(self) -> None:
        """Everything that ended, and everything that was remembered, was accepted by the receiver at least once."""
        accepted = {about for about, tries in self._tries.items() if any(each.accepted for each in tries)}
        closed = [row.session_id for row in self._records.rows.values() if not row.is_active]
        # What somebody deletes later has ended all the same.
        closed += [each.session_id for each in self._records.deletions.values() if not each.was_active]
        for session_id in closed:
            if (ENDED, session_id) not in accepted:
                self._findings.add("ends_unreported", session_id)
        for row in self._records.rows.values():
            if row.memory_status == "done" and (REMEMBERED, row.session_id) not in accepted:
                self._findings.add("memories_unreported", row.session_id)

    def _same(self, what: str, tries: list[Receipt]) -> None:
        """However often it came, under one id, in the same words."""
        if len({each.headers["webhook-id"] for each in tries}) > 1:
            self._findings.add("reports_differ", f"{what} came under several ids")
        bodies = list({each.body for each in tries})
        if len(bodies) > 1:
            self._findings.add("reports_differ", f"{what} came in {len(bodies)} forms: {bodies[0]!r}, {bodies[1]!r}")

    def _apart(self) -> None:
        ids: dict[str, tuple[str, str]] = {}
        for about, tries in self._tries.items():
            for each in tries:
                if ids.setdefault(each.headers["webhook-id"], about) != about:
                    self._findings.add("reports_differ", f"{about} has the id of another event")

    def _true(self, kind: str, session_id: str, data: dict[str, Any]) -> None:
        """Whether it happened, and as its row says."""
        row, deletion = self._records.rows.get(session_id), self._records.deletions.get(session_id)
        if row is not None:
            self._as_stored(kind, row, data)
        elif deletion is None or deletion.was_active:
            self._findings.add("reports_unfounded", f"{kind} of {session_id}, which was not closed")

    def _as_stored(self, kind: str, row: Row, data: dict[str, Any]) -> None:
        happened = not row.is_active if kind == ENDED else row.memory_status == "done"
        said = [data["user"], self._clock(data["started_at"]), self._clock(data["ended_at"])]
        stored = [row.user_id, row.start, row.end]
        if kind == ENDED:
            said += [data["end_reason"], data["seconds"], self._clock(data["row_closed_at"])]
            stored += [row.reason, row.duration, row.ended_at]
        if not happened or not all(map(_equal, said, stored)):
            self._findings.add("reports_unfounded", f"{kind} of {row.session_id} says {said}, its row {stored}")


def _equal(said: Any, stored: Any) -> bool:
    if isinstance(said, float | int) and isinstance(stored, float | int):
        return abs(said - stored) <= SAME_SECONDS
    return bool(said == stored)
