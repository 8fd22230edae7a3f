"""Metrics have names, units and labels as Prometheus wants them, and no more series than there are reasons."""

from __future__ import annotations

import math
import re

import pytest
from lastcall.metrics import CountsByLabel
from lastcall.protocol.errors import CODES, RESPONSE_FAILURES
from lastcall.realtime.services import server_metrics
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

OWN = [each for each in server_metrics().registry.collect() if not each.name.startswith("process_")]
LABELS_MAX = 1
SERIES_MAX = 32  # of one metric and server, without the buckets of a histogram
NOT_BASE_UNITS = r"_(ms|milliseconds|minutes|hours|kb|mb|mib|kilobytes|percent)(_|$)"
UNITS = ("_seconds", "_bytes", "_rows", "_sessions")
STATES = ("_open", "_used", "_active", "_held", "_unmatched", "_orphaned", "_pending", "_failed")


@pytest.mark.parametrize("metric", OWN, ids=[each.name for each in OWN])
def test_a_metric_keeps_the_rules(metric: Metric) -> None:
    assert re.fullmatch(r"lastcall(_[a-z]+)+", metric.name)
    assert not re.search(NOT_BASE_UNITS, metric.name)
    assert metric.documentation
    assert not metric.documentation.endswith(".")
    assert metric.type in ("counter", "gauge", "histogram", "info")
    names = {sample.name for sample in metric.samples}
    if metric.type == "counter":
        assert names == {f"{metric.name}_total"}
    elif metric.type == "histogram":
        assert metric.name.endswith("_seconds")
    elif metric.type == "gauge":
        assert metric.name.endswith(UNITS + STATES)


@pytest.mark.parametrize("metric", OWN, ids=[each.name for each in OWN])
def test_a_metric_has_few_series_and_all_from_the_start(metric: Metric) -> None:
    series = [sample for sample in metric.samples if "le" not in sample.labels]
    assert 0 < len(series) <= SERIES_MAX
    for sample in series:
        assert metric.type == "info" or len(sample.labels) <= LABELS_MAX
        assert all(re.fullmatch(r"[a-z_]+", name) for name in sample.labels)


def test_what_nobody_knew_beforehand_makes_one_more_series() -> None:
    registry = CollectorRegistry()
    counts = CountsByLabel(registry, "failures", "Failures", "code", ["known"])
    for code in ("known", "mine", "yours", "x" * 1000):
        counts.count(code)
    (metric,) = registry.collect()
    assert {each.labels["code"]: each.value for each in metric.samples} == {"known": 1, "other": 3}


def test_a_response_is_counted_with_its_error_code() -> None:
    metrics = server_metrics()
    metrics.count_response("completed", 0.2)
    metrics.count_response("failed", None, failure="upstream_timeout")
    metrics.count_response("failed", None, failure="a_code_of_somebody's_agent")
    sample = metrics.registry.get_sample_value
    assert sample("lastcall_responses_total", {"status": "failed"}) == 2
    assert sample("lastcall_response_failures_total", {"code": "upstream_timeout"}) == 1
    assert sample("lastcall_response_failures_total", {"code": "other"}) == 1
    assert sample("lastcall_response_first_piece_seconds_count") == 1


def test_a_call_of_the_database_is_timed_whether_it_fails_or_not() -> None:
    metrics = server_metrics()
    metrics.count_database_call("commit", 0.02, failed=False)
    metrics.count_database_call("commit", 7.0, failed=True)
    sample = metrics.registry.get_sample_value
    assert sample("lastcall_database_call_seconds_count", {"call": "commit"}) == 2
    assert math.isclose(sample("lastcall_database_call_seconds_sum", {"call": "commit"}) or 0, 7.02)
    assert sample("lastcall_database_call_failures_total", {"call": "commit"}) == 1
    assert sample("lastcall_database_call_failures_total", {"call": "query"}) == 0


def test_the_codes_of_failed_responses_are_codes_of_the_protocol() -> None:
    assert set(RESPONSE_FAILURES) <= set(CODES)
    assert {code for code in CODES if code.startswith(("upstream_", "agent_"))} <= set(RESPONSE_FAILURES)
