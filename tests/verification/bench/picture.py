"""A picture of the figures: the processor time of a session and a turn on each server, with that of its PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .contestants import FLOOR, OURS, PEERS
from .rounds import PICTURED, ROWS

CONTESTANTS = (OURS, *PEERS, FLOOR)
COLOURS = dict(zip(CONTESTANTS, ("#1d4ed8", "#64748b", "#94a3b8", "#cbd5e1"), strict=True))
DATABASE_ALPHA = 0.45
INCHES_WIDE, INCHES_A_ROW = 8.0, 1.6


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Draws a row of bars for each kind of load that was measured. file: .svg or .png, by its ending."""
    rows = [name for name in PICTURED if name in result["rows"]]
    figure = Figure(figsize=(INCHES_WIDE, INCHES_A_ROW * len(rows)), layout="constrained")
    for place, name in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        _draw_row(place, ROWS[name].title, result["rows"][name])
    figure.supxlabel("µs of processor time: server, and in a lighter shade its PostgreSQL", fontsize="small")
    with rc_context({"svg.hashsalt": "lastcall"}):  # the same figures make the same file
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {})


def _draw_row(place: Axes, title: str, by_name: Mapping[str, Mapping[str, float]]) -> None:
    names = [name for name in CONTESTANTS if name in by_name]
    colours = [COLOURS[name] for name in names]
    server = [by_name[name]["server_us"] for name in names]
    database = [by_name[name]["database_us"] for name in names]
    place.barh(names, server, color=colours)
    bars = place.barh(names, database, left=server, color=colours, alpha=DATABASE_ALPHA)
    totals = [f" {ours + theirs:,.0f}" for ours, theirs in zip(server, database, strict=True)]
    place.bar_label(bars, totals, fontsize="small")
    place.set_title(title, loc="left", fontsize="medium")
    place.invert_yaxis()
    place.margins(x=0.12)
    place.tick_params(axis="x", labelsize="small")
    place.spines[["top", "right"]].set_visible(False)
