"""Times of other tables."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from lastcall.adoption.columns import BadImport
from lastcall.adoption.times import BadTime, ZoneMissing, read_end, read_time, read_zone

TEN = datetime(2026, 1, 5, 10, tzinfo=UTC)
BERLIN = read_zone("Europe/Berlin")


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05 10:00:00+00",
        "2026-01-05T10:00:00Z",
        " 2026-01-05 11:00:00.000+01:00 ",
        "2026-01-05 04:30-05:30",
        str(int(TEN.timestamp())),
        f"{TEN.timestamp():.3f}",
        str(int(TEN.timestamp() * 1000)),
    ],
)
def test_a_time_with_a_zone_or_in_unix_time_needs_none(text: str) -> None:
    assert read_time(text, None) == read_time(text, BERLIN) == TEN


def test_a_time_without_a_zone_is_read_in_the_one_that_is_given() -> None:
    assert read_time("2026-01-05 11:00", BERLIN) == TEN
    assert read_time("2026-01-05 12:30", read_zone("+02:30")) == TEN
    assert read_time("20260105", UTC) == TEN.replace(hour=0)
    with pytest.raises(ZoneMissing):
        read_time("2026-01-05 11:00", None)


@pytest.mark.parametrize("text", ["", "soon", "infinity", "2026-13-01", "9" * 30, "0044-03-15 10:00:00+00 BC"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadTime):
        read_time(text, UTC)


def test_an_end_in_the_hour_that_comes_twice_is_behind_its_start() -> None:
    start = read_time("2026-10-25 02:50", BERLIN)  # the first 02:50 of that night
    assert read_end("2026-10-25 02:10", start, BERLIN) == datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert read_end("2026-10-25 01:10", start, BERLIN) < start


@pytest.mark.parametrize("name", ["Nowhere", "+25:00", "../etc/passwd", ""])
def test_an_unknown_zone_is_told(name: str) -> None:
    with pytest.raises(BadImport, match="--time-zone"):
        read_zone(name)
