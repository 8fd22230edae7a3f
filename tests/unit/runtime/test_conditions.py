"""What the server has to do without is told in one line, until it is back."""

from __future__ import annotations

from lastcall.runtime.conditions import Conditions


def test_each_part_that_is_away_is_told_with_its_latest_reason() -> None:
    conditions = Conditions()
    assert conditions.away() is None
    conditions.set("database", "it ended")
    conditions.set("model", "no memory")
    conditions.set("database", "the disk is full")
    assert conditions.away() == "database is away: the disk is full; model is away: no memory"
    conditions.clear("database")
    conditions.clear("database")
    assert conditions.away() == "model is away: no memory"
    conditions.clear("model")
    assert conditions.away() is None
