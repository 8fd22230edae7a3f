"""Times as other tables write them: with or without a zone, or as Unix seconds or milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .columns import BadImport

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
MILLISECONDS_FROM = 100_000_000_000  # as seconds, that would be the year 5138


class BadTime(ValueError):
    """A text that is no time; the message says so."""


class ZoneMissing(Exception):
    """A time without a zone, where none was given."""


def read_zone(name: str) -> tzinfo:
    """The zone of a name like Europe/Berlin, UTC or +02:00. Raises `BadImport`."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    if offset := _OFFSET.fullmatch(name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadImport(f"--time-zone {name} is not known here; pass one like UTC, Europe/Berlin or +02:00") from error


def read_time(text: str, zone: tzinfo | None) -> datetime:
    """The time, in UTC. zone: of times that have none.

    Raises:
        BadTime: It is none.
        ZoneMissing: It has no zone, and none was given.
    """
    text = text.strip()
    try:
        if _NUMBER.fullmatch(text) and len(text) != len("YYYYMMDD"):
            number = float(text)
            return datetime.fromtimestamp(number / 1000 if abs(number) >= MILLISECONDS_FROM else number, UTC)
        return _placed(datetime.fromisoformat(text), zone).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BadTime(f"{text!r} is not a time") from error


def _placed(time: datetime, zone: tzinfo | None) -> datetime:
    if time.tzinfo is not None:
        return time
    if zone is None:
        raise ZoneMissing
    return time.replace(tzinfo=zone)


def read_end(text: str, start: datetime, zone: tzinfo | None) -> datetime:
    """As `read_time`. Where clocks go back, an hour occurs twice: an end too early for the first is in the second."""
    end = read_time(text, zone)
    if end < start and zone is not None:
        again = end.astimezone(zone).replace(fold=1).astimezone(UTC)
        if again > end and end.astimezone(zone).replace(tzinfo=None) == again.astimezone(zone).replace(tzinfo=None):
            return again
    return end
