"""The measurement of partitions, and what is computed from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.support.docs_tables import sizes as sizes_table
from tests.support.docs_tables import table_in

from .partitions.__main__ import STEPS, partitions
from .partitions.measured import MEASURED
from .partitions.sizing import DAY_SECONDS, PEAK, TURNS_OF_SESSION, Machine, need


def test_the_page_has_the_sizes() -> None:
    """Where this fails, `python -m tests.support.docs_tables` writes the table anew."""
    assert table_in("scaling.md", "sizes") == sizes_table()


def test_what_is_needed_is_what_a_turn_and_a_session_take_times_their_number() -> None:
    plain = replace(MEASURED, wal_turn_bytes=100.0, wal_session_bytes=50.0, server_turn_us=0.0, server_session_us=0.0)
    found = need(DAY_SECONDS, plain)
    assert found.turns_a_second == PEAK * TURNS_OF_SESSION
    assert found.wal_bytes_a_second == PEAK * (TURNS_OF_SESSION * 100.0 + 50.0)
    assert found.processes == 2
    assert need(100 * DAY_SECONDS, plain).storage_bytes == pytest.approx(100 * found.storage_bytes)


def test_what_ends_first_is_what_takes_most_of_a_machine() -> None:
    found = need(10**6, MEASURED)
    assert found.ends_first(Machine(disk_bytes=1.0)).startswith("storage: ")
    assert found.ends_first(Machine(disk_bytes=1e30, cores=10**6, connections=1)).startswith("connections: ")
    assert found.ends_first(Machine(1000, 1e30, 1e30, 10**6)).startswith("none; ")


@pytest.mark.slow
def test_each_form_is_measured_and_left_behind_is_nothing() -> None:
    asked = ["--json", "--rounds", "1", "--sessions", "40", "--turns", "1", "--partitions", "0", "--partitions", "4"]
    answer = CliRunner().invoke(partitions, asked, standalone_mode=False)
    assert answer.exception is None, answer.output
    found = json.loads(answer.stdout.splitlines()[-1])
    for form in found["forms"].values():
        (sample,) = form["samples"]
        assert all(sample[step]["cpu_us"] > 0 for step in STEPS)
        assert sample["turn"]["wal_bytes"] > 500
