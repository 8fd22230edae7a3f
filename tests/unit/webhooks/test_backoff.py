"""The waits between tries."""

from __future__ import annotations

import pytest
from lastcall.store.webhooks.outbox import BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN, JITTER, TRIES_MAX
from lastcall.webhooks.deliverer import backoff_seconds

DAY_SECONDS = 86_400.0


def test_waits_grow_from_seconds_to_hours_and_no_further() -> None:
    waits = [backoff_seconds(attempts) for attempts in range(1, 2_000)]
    assert waits[0] == pytest.approx(BACKOFF_SECONDS_MIN, rel=JITTER)
    assert waits[1] == pytest.approx(3 * BACKOFF_SECONDS_MIN, rel=JITTER)
    assert max(waits) <= BACKOFF_SECONDS_MAX * (1 + JITTER)


def test_all_tries_take_about_a_day() -> None:
    assert 0.5 * DAY_SECONDS < sum(backoff_seconds(attempts) for attempts in range(1, TRIES_MAX)) < 1.5 * DAY_SECONDS
