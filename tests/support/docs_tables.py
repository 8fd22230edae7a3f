"""The tables of docs/ that are made from the code. `python -m tests.support.docs_tables` writes them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lastcall.limits.limit import Limit
from lastcall.logs.events import EVENTS
from lastcall.protocol.errors import CODES
from lastcall.realtime.services import server_metrics
from prometheus_client.metrics_core import Metric

from tests.support.log_events import logged_events
from tests.verification.bench.bounds import BOUNDS
from tests.verification.partitions.measured import MEASURED
from tests.verification.partitions.sizing import SESSIONS_A_DAY, Machine, rows

LISTED_VALUES_MAX = 8  # of a label; more make no table
DOCS = Path(__file__).parents[2] / "docs"


def error_codes() -> str:
    rows = ((f"`{name}`", str(code.status), code.when) for name, code in CODES.items())
    return _table(("code", "status", "when"), rows)


def limits() -> str:
    rows = ((f"`{limit}`", _flags(limit), limit.default, limit.beyond) for limit in Limit)
    return _table(("`limit`", "settings", "default", "beyond it"), rows)


def bounds() -> str:
    rows = ((each.title, each.shown(each.must), each.shown(each.goal)) for each in BOUNDS)
    return _table(("what", "must", "goal"), rows)


def sizes() -> str:
    return _table(("sessions a day", *(f"{each:,}" for each in SESSIONS_A_DAY)), rows(MEASURED, Machine()))


def events() -> str:
    logged = logged_events()
    rows = (
        (f"`{name}`", ", ".join(sorted(logged[name].levels)), ", ".join(_code(sorted(logged[name].fields))), when)
        for name, when in EVENTS.items()
    )
    return _table(("event", "level", "fields", "when"), rows)


def metrics() -> str:
    """Those of this package; `process_…` are the client library's, and depend on the system."""
    own = [each for each in server_metrics().registry.collect() if each.name.startswith("lastcall_")]
    rows = ((f"`{_sample_name(each)}`", each.type, _labels(each), each.documentation) for each in own)
    return _table(("metric", "type", "labels", "what"), rows)


def _sample_name(metric: Metric) -> str:
    return metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")


def _labels(metric: Metric) -> str:
    """Each label, with its values where these are few and not those of this machine."""
    names = dict.fromkeys(name for sample in metric.samples for name in sample.labels if name != "le")
    shown = []
    for name in names:
        values = dict.fromkeys(sample.labels[name] for sample in metric.samples if name in sample.labels)
        listed = metric.type != "info" and len(values) <= LISTED_VALUES_MAX
        shown.append(f"`{name}`: {', '.join(values)}" if listed else f"`{name}`")
    return "; ".join(shown)


def _code(names: Iterable[str]) -> Iterable[str]:
    return (f"`{name}`" for name in names)


def _flags(limit: Limit) -> str:
    return ", ".join(f"`--{setting.replace('_', '-')}`" for setting in limit.settings)


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [" | ".join(row) for row in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines[1:])])


# By page and by the marker around the table.
TABLES: Mapping[tuple[str, str], Callable[[], str]] = {
    ("protocol.md", "error codes"): error_codes,
    ("operations.md", "limits"): limits,
    ("performance.md", "bounds"): bounds,
    ("scaling.md", "sizes"): sizes,
    ("reference.md", "events"): events,
    ("reference.md", "metrics"): metrics,
}


def table_in(page: str, marker: str) -> str:
    """The table between two markers on a page."""
    return _split(page, marker)[1]


def write_tables() -> None:
    for (page, marker), table in TABLES.items():
        before, _, after = _split(page, marker)
        (DOCS / page).write_text(f"{before}{table()}\n{after}")


def _split(page: str, marker: str) -> tuple[str, str, str]:
    """The page before a table, the table, and the page after it."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- end of {marker} -->"
    before, _, rest = (DOCS / page).read_text().partition(begin)
    table, found, after = rest.partition(end)
    assert found, f"docs/{page} has no table between {begin!r} and {end!r}"
    return before + begin, table.rstrip("\n"), found + after


if __name__ == "__main__":
    write_tables()
