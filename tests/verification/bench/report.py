"""The figures, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .bounds import judged
from .cpu import FOREIGN_SHARE_MAX, WAITED_SHARE_MAX, Usage
from .rounds import ROWS, Sample, Samples

BUSY_SHARE_MAX = 0.2  # of all measurements
STYLES = {"goal": "green", "must": "yellow", "missed": "red"}


def result(
    samples: Samples, scale: Mapping[str, Any], usages: Mapping[str, Usage], options: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures. ok: no bound was missed, on a machine that was not busy; a quick run is not judged."""
    rows = {
        name: {contestant: _medians(taken) for contestant, taken in by_name.items()}
        for name, by_name in samples.items()
    }
    measured = [sample.usage for by_name in samples.values() for taken in by_name.values() for sample in taken]
    measured += usages.values()
    busy = sum(usage.busy for usage in measured)
    bounds = judged(samples, scale)
    missed = [bound["title"] for bound in bounds if bound["verdict"] == "missed"]
    too_busy = busy > BUSY_SHARE_MAX * len(measured) and not options["quick"]
    return {
        "ok": bool(options["quick"]) or not (missed or too_busy),
        "too_busy": too_busy,
        "quick": options["quick"],
        "rounds": options["rounds"],
        "seconds": options["seconds"],
        "measurements": len(measured),
        "busy_measurements": busy,
        "foreign_share": round(median(usage.foreign_share for usage in measured), 3),
        "waited_share": round(median(usage.waited_share for usage in measured), 3),
        "load_bound": _load_bound(samples),
        "missed": missed,
        "bounds": bounds,
        "rows": rows,
        "samples": {
            name: {contestant: [each.figures() for each in taken] for contestant, taken in by_name.items()}
            for name, by_name in samples.items()
        },
        "scale": dict(scale),
    }


def _medians(samples: list[Sample]) -> dict[str, float]:
    """Over the rounds. Ratios are not taken of these, but within each round."""
    figures = [sample.figures() for sample in samples]
    names = ("server_us", "database_us", "load_us", "per_second", "p50_ms", "p99_ms")
    return {name: median(each[name] for each in figures) for name in names}


def _load_bound(samples: Samples) -> list[str]:
    """Where the load used more than the server, so that it may have been the bottleneck."""
    return [
        f"{row} / {contestant}"
        for row, by_name in samples.items()
        for contestant, taken in by_name.items()
        if median(sample.load_us - sample.server_us for sample in taken) > 0
    ]


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the result for people."""
    for name, by_name in result["rows"].items():
        _say_row(ROWS[name].title, by_name, console)
    for name, figures in result["scale"].items():
        console.print(f"{name}: " + ", ".join(f"{key} {each}" for key, each in figures.items()), highlight=False)
    if result["bounds"]:
        _say_bounds(result["bounds"], console)
    for each in result["load_bound"]:
        console.print(f"the load used more than the server, and may have been the bottleneck: {each}", highlight=False)
    console.print(verdict(result), highlight=False)


def _say_row(title: str, by_name: Mapping[str, Mapping[str, float]], console: Console) -> None:
    right = ("server µs", "PostgreSQL µs", "load µs", "a second", "p50 ms", "p99 ms")
    table = Table("", title=title, title_justify="left")
    for each in right:
        table.add_column(each, justify="right")
    for contestant, figures in by_name.items():
        cpu = (f"{figures[name]:.0f}" for name in ("server_us", "database_us", "load_us", "per_second"))
        table.add_row(contestant, *cpu, f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}")
    console.print(table)


def _say_bounds(bounds: list[dict[str, Any]], console: Console) -> None:
    table = Table("against the better peer of the same round", "must", "goal", "measured", "range", "")
    for bound in bounds:
        sign, (low, high) = "≥" if bound["more_is_better"] else "≤", bound["range"]
        style = STYLES[bound["verdict"]]
        table.add_row(
            bound["title"],
            f"{sign} {bound['must']:g}",
            f"{sign} {bound['goal']:g}",
            f"{bound['measured']:.2f} {bound['unit']}",
            f"{low:.2f}–{high:.2f}" if low != high else "",
            f"[{style}]{bound['verdict']}[/{style}]",
        )
    console.print(table)


def verdict(result: Mapping[str, Any]) -> str:
    """The last line."""
    if result["quick"]:
        return "a quick run: everything works, and no figure means anything"
    if result["too_busy"]:
        lost = f"in {result['busy_measurements']} of {result['measurements']} measurements"
        bounds = f"over {FOREIGN_SHARE_MAX:.0%} of it, or the server waited over {WAITED_SHARE_MAX:.0%} of the time"
        medians = f"medians {result['foreign_share']:.0%}, {result['waited_share']:.0%}"
        return f"the machine was too busy to measure: {lost} others had {bounds} ({medians})"
    return f"missed: {'; '.join(result['missed'])}" if result["missed"] else "every bound was met"
