"""One row of the source, as the session that it tells of: when it really began and ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from uuid import UUID, uuid5

from ..auth.identity import USER_CHARS_MAX, canonical_user
from ..store.imports.source import Row
from ..store.records import EndReason
from .columns import ACTIVE, DURATION, END, ID, START, USER, ColumnMapping
from .times import BadTime, read_end, read_time

ID_CHARS_MAX = 1_000
DURATION_OFF_SECONDS = 1.0  # from which on a stored duration counts as wrong
SECONDS_MAX = 10 * 366 * 86_400.0  # of a duration; a longer one is taken for a mistake
AT_START = "its start"
BY_DURATION = "its duration"
_SESSIONS = UUID("4b1f4f0e-6f0b-5d0e-9d0c-5a3c1f6f7a01")
_CONVERSATIONS = UUID("4b1f4f0e-6f0b-5d0e-9d0c-5a3c1f6f7a02")
_ACTIVE_WORDS = {"true", "t", "yes", "y", "on", "1", "active", "open", "live", "running", "ongoing", "connected"}


class BadRow(ValueError):
    """A row that cannot be imported; the message says why, without the row's values."""


@dataclass(frozen=True, slots=True)
class AdoptedSession:
    """A session of the source. The ids follow from the source and the original id: imported again, it is the same.

    was_active: nobody had closed it. dated_by: what its end was taken from, where it was active or its end missing.
    duration_was_wrong: the row's own duration was another one. ended_too_soon: its end stood before its start.
    """

    session_id: UUID
    conversation_id: UUID
    user_id: str
    original_id: str
    session_start: datetime
    session_end: datetime
    was_active: bool
    dated_by: str | None
    duration_was_wrong: bool
    ended_too_soon: bool

    @property
    def end_reason(self) -> EndReason:
        return EndReason.OWNER_DIED if self.was_active else EndReason.BY_HAND


class RowReader:
    """Reads rows.

    Args:
        source: Its name, part of what makes a session's id.
        mapping: Which column holds what.
        names: The columns of a row, in their order.
        zone: Of times that have none.
        now: When the import began; no session ends later.
    """

    def __init__(
        self, source: str, mapping: ColumnMapping, names: Sequence[str], zone: tzinfo | None, now: datetime
    ) -> None:
        self._source = source
        self._mapping = mapping
        self._at: Mapping[str, int] = {name: number for number, name in enumerate(names)}
        self._zone = zone
        self._now = now

    def read(self, row: Row) -> AdoptedSession:
        """The session. Raises `BadRow`, and `ZoneMissing` where a time has none and no zone was given."""
        original = self.original_id(row)
        if not original:
            raise BadRow(f"{self._mapping.columns[ID]} is empty")
        if len(original) > ID_CHARS_MAX:
            raise BadRow(f"{self._mapping.columns[ID]} has more than {ID_CHARS_MAX} characters")
        user = self._user(row)
        start = self._start(row)
        own_end, active = self._end(row, start), self._is_active(row)
        dated_by: str | None
        if own_end is None:
            end, dated_by = self._evidence(row, start, is_active=active)
        else:
            end, dated_by = own_end, self._mapping.columns[END] if active else None
        seconds = self._duration(row)
        right = (max(end, start) - start).total_seconds()
        return AdoptedSession(
            uuid5(_SESSIONS, f"{self._source}\0{original}"),
            uuid5(_CONVERSATIONS, f"{self._source}\0{original}"),
            user,
            original,
            start,
            min(max(end, start), self._now),
            active,
            dated_by,
            seconds is not None and abs(seconds - right) >= DURATION_OFF_SECONDS,
            end < start,
        )

    def original_id(self, row: Row) -> str:
        return self._value(row, ID) or ""

    def _value(self, row: Row, role: str) -> str | None:
        name = self._mapping.columns.get(role)
        return None if name is None else row[self._at[name]]

    def _user(self, row: Row) -> str:
        user = (self._value(row, USER) or "").strip()
        if not user:
            raise BadRow(f"{self._mapping.columns[USER]} is empty")
        if len(user) > USER_CHARS_MAX:
            raise BadRow(f"{self._mapping.columns[USER]} has more than {USER_CHARS_MAX} characters")
        if "\0" in user or "\0" in self.original_id(row):
            raise BadRow("it holds a NUL character")
        try:
            return canonical_user(user)
        except ValueError:
            return user  # such a name cannot be given today, but commands find it

    def _start(self, row: Row) -> datetime:
        text = self._value(row, START)
        if not text:
            raise BadRow(f"{self._mapping.columns[START]} is empty")
        try:
            start = read_time(text, self._zone)
        except BadTime as error:
            raise BadRow(f"{self._mapping.columns[START]} is not a time") from error
        if start > self._now:
            raise BadRow(f"{self._mapping.columns[START]} is in the future (is --time-zone right?)")
        return start

    def _end(self, row: Row, start: datetime) -> datetime | None:
        text = self._value(row, END)
        try:
            return read_end(text, start, self._zone) if text else None
        except BadTime as error:
            raise BadRow(f"{self._mapping.columns[END]} is not a time") from error

    def _is_active(self, row: Row) -> bool:
        if ACTIVE not in self._mapping.columns:
            return not self._value(row, END)
        return (self._value(row, ACTIVE) or "").strip().lower() in _ACTIVE_WORDS

    def _duration(self, row: Row) -> float | None:
        try:
            seconds = float(self._value(row, DURATION) or "nan")
        except ValueError:
            return None
        return seconds if 0 <= seconds <= SECONDS_MAX else None

    def _evidence(self, row: Row, start: datetime, *, is_active: bool) -> tuple[datetime, str]:
        """The end of a session whose row has none, and what tells it. Of a closed one, its duration does so best."""
        seconds = self._duration(row)
        if not is_active and seconds is not None:
            return start + timedelta(seconds=seconds), BY_DURATION
        for name in self._mapping.last_seen:
            text = row[self._at[name]]
            try:
                seen = read_end(text, start, self._zone) if text else start
            except BadTime:
                continue
            if start < seen <= self._now:
                return seen, name
        return start, AT_START
