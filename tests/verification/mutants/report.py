"""The figures of a run of mutants, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .run import Verdict


def figures(verdicts: Sequence[Verdict], unsound: Sequence[Verdict], seconds: float, processes: int) -> dict[str, Any]:
    """Every figure of a run. unsound: what broke without a mistake. seconds: of wall time."""
    caught = [verdict for verdict in verdicts if verdict.promise]
    return {
        "mutants": len(verdicts),
        "caught": len(caught),
        "survived": [verdict.name for verdict in verdicts if not verdict.promise],
        "broken_without_a_mutant": [verdict.example for verdict in unsound],
        "seeds_most": max((verdict.seeds for verdict in caught), default=0),
        "seconds": round(seconds, 1),
        "processes": processes,
        "verdicts": [_row(verdict) for verdict in verdicts],
        "ok": len(caught) == len(verdicts) and not unsound,
    }


def _row(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__slots__}


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a run, for people."""
    table = Table("mistake", "promise that was reported", "seeds")
    for verdict in result["verdicts"]:
        others = ", ".join(verdict["others"])
        reported = verdict["promise"] or f"[red]NONE[/red]{f' (but {others})' if others else ''}"
        table.add_row(escape(verdict["name"]), reported, "a test" if verdict["test"] else str(verdict["seeds"]))
        if not verdict["seeds"] and not verdict["promise"]:
            table.add_row(escape(verdict["example"]))
    console.print(table)
    for example in result["broken_without_a_mutant"]:
        console.print(f"broken without any mistake: {escape(example)}", style="red", highlight=False, soft_wrap=True)
    verdict = "every mistake was seen" if result["ok"] else "IT DID NOT HOLD"
    console.print(f"{result['caught']} of {result['mutants']} in {result['seconds']:g} s: {verdict}", highlight=False)
