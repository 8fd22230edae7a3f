"""The files for Prometheus and Grafana: in the forms that these load, and about metrics that a server has."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.support.processes import run_server
from tests.support.promql import OF_TARGETS, BadExpression, labels_of_result, problems, selected, series_of

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}")
IN_TEMPLATES = re.compile(r"\$labels\.(\w+)|\$value(?: \| (?:humanize|humanizePercentage|humanizeDuration))?")
UNITS = {"short", "s", "ops", "percentunit", "bytes"}  # of Grafana's
COLUMNS = 24

Series = Mapping[str, Sequence[Mapping[str, str]]]


@pytest.fixture(scope="module")
def series(database_url: str) -> Iterator[Series]:
    """What a server that nobody has talked to says: every series is there from the start."""
    with run_server("--database-url", database_url, "--agent", "echo") as server:
        yield series_of(httpx2.get(f"{server.url}/metrics").text)


def test_prometheus_is_told_where_the_rules_and_a_server_are() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in config["rule_files"]] == [True]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "lastcall", "as the rules call it"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]


def test_the_rules_have_the_form_that_prometheus_loads() -> None:
    assert set(ALERTS) == {"groups"}
    assert all(set(group) == {"name", "rules"} for group in ALERTS["groups"])
    names = [group["name"] for group in ALERTS["groups"]] + [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert (
            {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        )
        assert re.fullmatch(r"Lastcall[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert all(isinstance(text, str) and text for text in rule["annotations"].values())


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_reads_metrics_and_labels_that_a_server_has(rule: dict[str, Any], series: Series) -> None:
    assert problems(rule["expr"], series) == []


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_names_only_what_its_expression_leaves(rule: dict[str, Any], series: Series) -> None:
    left = labels_of_result(rule["expr"])
    if left is None:
        metric = selected(rule["expr"])[0].name
        left = OF_TARGETS | (set(series[metric][0]) if metric in series else set())
    for text in rule["annotations"].values():
        for inside in TEMPLATE.findall(text):
            named = IN_TEMPLATES.fullmatch(inside)
            assert named, inside
            assert named[1] is None or named[1] in left


def test_the_dashboard_has_the_form_that_grafana_loads() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(DASHBOARD)
    assert DASHBOARD["id"] is None
    ids = [each["id"] for each in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0


def test_no_panel_lies_on_another_one() -> None:
    places = [each["gridPos"] for each in DASHBOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_reads_metrics_and_labels_that_a_server_has(panel: dict[str, Any], series: Series) -> None:
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m")
        assert problems(expression, series) == []
        assert ("instance", "=~", "$instance") in selected(expression)[0].matchers
        left = labels_of_result(expression)
        shown = set(TEMPLATE.findall(target["legendFormat"]))
        assert shown <= (OF_TARGETS if left is None else left)


def test_the_dashboard_shows_what_operators_ask_for() -> None:
    queries = [target["expr"].replace("$__rate_interval", "5m") for panel in PANELS for target in panel["targets"]]
    shown = {each.name.removeprefix("lastcall_") for query in queries for each in selected(query)}
    truth = {"sessions_active", "session_rows_active", "sessions_unmatched", "sessions_orphaned", "lease_held"}
    turns = {"responses_total", "response_first_piece_seconds_bucket", "response_failures_total"}
    database = {"database_call_seconds_bucket", "database_call_failures_total", "database_connections_used"}
    backlog = {"commit_queue_rows", "memory_pending_sessions", "memory_failed_sessions"}
    assert truth | turns | database | backlog | {"lease_age_seconds", "loop_lag_seconds_bucket"} <= shown


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("rate(lastcall_turns_total[5m])", "no metric lastcall_turns_total"),
        ('lastcall_responses_total{status="done"}', "lastcall_responses_total has no status done"),
        ('lastcall_limits_refused_total{limit=~"memory|luck"}', "lastcall_limits_refused_total has no limit luck"),
        ("sum by (reason) (lastcall_responses_total)", "lastcall_responses_total has no label reason"),
        ("sum(lastcall_sessions_active", "( is not closed"),
        ("ratio(lastcall_sessions_active)", "no function ratio"),
        ("rate(lastcall_sessions_started_total[5])", "no duration: [5]"),
        ("1 > 0", "it reads no metric"),
    ],
)
def test_what_is_wrong_with_an_expression_is_found(expression: str, problem: str, series: Series) -> None:
    assert problems(expression, series) == [problem]


def test_a_metric_is_told_from_functions_and_labels() -> None:
    (one,) = selected('sum by (instance, le) (rate(a_bucket{call="commit",x=~"1|2"}[5m])) / 2')
    assert (one.name, one.matchers) == ("a_bucket", [("call", "=", "commit"), ("x", "=~", "1|2")])
    with pytest.raises(BadExpression):
        selected("a_bucket[5m")
