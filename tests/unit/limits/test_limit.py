"""One record per limit makes the table of the docs, the labels of the metric and the help texts."""

from __future__ import annotations

from dataclasses import fields

import pytest
from click.testing import CliRunner
from lastcall.cli.entry import lastcall
from lastcall.config import Settings
from lastcall.limits.limit import Limit, beyond
from lastcall.metrics import Metrics

from tests.support.docs_tables import limits, table_in

FLAGS = {each.name: each for each in fields(Settings) if each.metadata["flag"]}


def test_the_operators_table_is_that_of_the_code() -> None:
    """Where this fails, `python -m tests.support.docs_tables` writes the table anew."""
    assert table_in("operations.md", "limits") == limits()


@pytest.mark.parametrize("limit", Limit)
def test_a_limit_is_set_by_options_and_says_what_it_does(limit: Limit) -> None:
    assert limit.settings
    assert set(limit.settings) <= set(FLAGS)
    assert limit.default
    assert limit.beyond


def test_the_metric_has_a_series_for_each_limit_from_the_start() -> None:
    (metric,) = (each for each in Metrics(Limit).registry.collect() if each.name == "lastcall_limits_refused")
    assert {each.labels["limit"] for each in metric.samples} == {limit.value for limit in Limit}


def test_the_help_of_an_option_says_what_happens_beyond_its_limit() -> None:
    shown = "".join(CliRunner().invoke(lastcall, ["serve", "--help"]).output.split())
    limited = {setting for limit in Limit for setting in limit.settings}
    for name, field in FLAGS.items():
        assert beyond(name).startswith("Beyond it: ") is (name in limited)
        assert "".join(f"{field.metadata['help']} {beyond(name)}".split()) in shown
