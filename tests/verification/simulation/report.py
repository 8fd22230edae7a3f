"""Reports a simulation: progress while it runs, then its figures, for people or for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..promises import PROMISES, Promise
from .coverage import SEEDS_MIN, missing
from .run import Outcome

EXAMPLES_MAX = 20
CHECKED = [promise for promise, entry in PROMISES.items() if "simulation" in entry.provers]
TABLES = {
    "reason": "end reasons",
    "ending": "clients' endings",
    "opening": "clients' openings",
    "request": "clients' requests",
    "fault": "faults",
    "agent": "agents' behaviour",
    "overlap": "two endings at once",
    "store": "trouble of store operations",
    "process": "process exits",
    "memory": "memory status",
    "state": "timed faults",
    "error": "error events to clients",
    "log": "servers' log lines",
}


class Total:
    """Adds up the outcomes of all seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.sessions = 0
        self.visits = 0
        self.acknowledged = 0
        self.virtual_seconds = 0.0
        self.broken: Counter[Promise] = Counter(dict.fromkeys(CHECKED, 0))
        self.counts: dict[str, Counter[str]] = {}
        self.failing: dict[int, list[str]] = {}

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.sessions += outcome.sessions
        self.visits += outcome.visits
        self.acknowledged += outcome.acknowledged
        self.virtual_seconds += outcome.virtual_seconds
        self.broken.update(outcome.broken)
        for kind, names in outcome.counts.items():
            self.counts.setdefault(kind, Counter()).update(names)
        if outcome.broken:
            self.failing[outcome.seed] = outcome.examples

    @property
    def missing(self) -> list[str] | None:
        """What was never reached; None if there were too few seeds to expect it."""
        return missing(self.counts) if self.seeds >= SEEDS_MIN else None

    @property
    def ok(self) -> bool:
        return not self.failing and not self.missing


def replay(seed: int) -> str:
    """The command that replays a seed."""
    return f"scripts/simulate --seed {seed} --trace"


def figures(total: Total, seconds: float, processes: int) -> dict[str, Any]:
    """Every figure of a run. seconds: of wall time."""
    failing = sorted(total.failing)
    return {
        "seeds": total.seeds,
        "sessions": total.sessions,
        "connections": total.visits,
        "acknowledged_items": total.acknowledged,
        "seconds": round(seconds, 3),
        "sessions_per_second": round(total.sessions / seconds, 1),
        "processes": processes,
        "virtual_seconds": round(total.virtual_seconds, 1),
        "broken": dict(total.broken),
        "broken_promises": sum(total.broken.values()),
        "failing_seeds": failing,
        "examples": [example for seed in failing for example in total.failing[seed]][:EXAMPLES_MAX],
        "replay": [replay(seed) for seed in failing[:EXAMPLES_MAX]],
        "coverage": {kind: dict(sorted(names.items())) for kind, names in sorted(total.counts.items())},
        "coverage_missing": total.missing,
        "ok": total.ok,
    }


def counts_of(total: Total) -> str:
    return f"{total.sessions} sessions, {sum(total.broken.values())} promises broken"


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a run, for people."""
    table = Table("kind", "occurrences")
    for kind, title in TABLES.items():
        names = result["coverage"].get(kind, {})
        table.add_row(title, ", ".join(f"{escape(name)} {count}" for name, count in names.items()))
    console.print(table)
    for promise, count in result["broken"].items():
        console.print(f"{promise}: {count}", style="red" if count else None, highlight=False)
    for example in result["examples"]:
        console.print(f"    {escape(example)}", highlight=False, soft_wrap=True)
    for name in result["coverage_missing"] or ():
        console.print(f"never reached: {escape(name)}", style="red", highlight=False)
    for replay in result["replay"]:
        console.print(f"replay: {replay}", highlight=False, soft_wrap=True)
    rate = f"{result['sessions_per_second']:g} a second in {result['processes']} processes"
    verdict = "every promise held" if result["ok"] else _failure(result)
    console.print(f"{result['seeds']} seeds, {result['sessions']} sessions, {rate}: {verdict}", highlight=False)


def _failure(result: dict[str, Any]) -> str:
    return "PROMISES WERE BROKEN" if result["broken_promises"] else "NOT EVERYTHING WAS REACHED"
