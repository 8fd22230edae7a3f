"""The catalogue of events names each that the code logs, and no other."""

from __future__ import annotations

import re

from lastcall.logs.events import EVENTS

from tests.support.docs_tables import events, metrics, table_in
from tests.support.log_events import logged_events


def test_the_catalogue_names_what_is_logged() -> None:
    """An event that is missing needs a line in logs/events.py; then `python -m tests.support.docs_tables`."""
    assert set(logged_events()) == set(EVENTS)


def test_events_are_named_alike() -> None:
    assert [name for name in EVENTS if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert [name for name, when in EVENTS.items() if not when or when.endswith(".")] == []


def test_what_ends_or_begins_is_no_debugging() -> None:
    """Events of a life cycle are told without being asked for."""
    for name in (
        "session_started",
        "session_ended",
        "instance_started",
        "instance_stopped",
        "lease_lost",
        "worker_crashed",
    ):
        assert "debug" not in logged_events()[name].levels


def test_the_tables_of_the_docs_are_those_of_the_code() -> None:
    """Where this fails, `python -m tests.support.docs_tables` writes them anew."""
    assert table_in("reference.md", "events") == events()
    assert table_in("reference.md", "metrics") == metrics()
