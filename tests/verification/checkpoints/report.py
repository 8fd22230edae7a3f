"""Reports a proof: progress while it runs, then its figures, for people or for machines."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..promises import PROMISES
from .proof import Outcome, Proof
from .strike import KINDS, Strike

EXAMPLES_MAX = 20
CHECKED = [promise for promise, entry in PROMISES.items() if "checkpoints" in entry.provers]


def command(strike: Strike) -> str:
    """The command that replays a strike."""
    seed = f" --seed {strike.seed}" if strike.seed else ""
    name = shlex.quote(strike.scenario)
    return f"scripts/simulate --checkpoints --scenario {name} --at {strike.at} --with {strike.kind}{seed}"


def replay(outcome: Outcome, seed: int) -> str:
    if outcome.strike is not None:
        return command(outcome.strike)
    return f"scripts/simulate --checkpoints --scenario {shlex.quote(outcome.scenario)} --seed {seed}"


def figures(proof: Proof, seconds: float, processes: int) -> dict[str, Any]:
    """Every figure of a proof. seconds: of wall time."""
    return {
        "seed": proof.seed,
        "scenarios": len(proof.checkpoints),
        "checkpoints": sum(proof.checkpoints.values()),
        "strikes": {kind: sum(counts[kind] for counts in proof.planned.values()) for kind in KINDS},
        "runs": proof.runs,
        "broken": {promise: proof.promises[promise] for promise in CHECKED},
        "broken_runs": len(proof.failing),
        "seconds": round(seconds, 3),
        "processes": processes,
        "table": [
            {
                "scenario": name,
                "checkpoints": checkpoints,
                "strikes": {kind: proof.planned[name][kind] for kind in KINDS},
                "end_reasons": dict(proof.reasons[name].most_common()),
                "broken_runs": proof.broken[name],
            }
            for name, checkpoints in proof.checkpoints.items()
        ],
        "examples": [
            {"replay": replay(outcome, proof.seed), "broken": outcome.examples}
            for outcome in proof.failing[:EXAMPLES_MAX]
        ],
        "ok": not proof.failing,
    }


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a proof, for people."""
    table = Table("scenario", "checkpoints", "strikes", "end reasons", "broken")
    for line in result["table"]:
        figures = [str(line["checkpoints"]), str(sum(line["strikes"].values())), _words(line["end_reasons"])]
        table.add_row(
            line["scenario"], *figures, str(line["broken_runs"]), style="red" if line["broken_runs"] else None
        )
    console.print(table)
    for example in result["examples"]:
        console.print(f"replay: {example['replay']}", highlight=False, soft_wrap=True, markup=False)
        for broken in example["broken"]:
            console.print(f"    {escape(broken)}", highlight=False, soft_wrap=True)
    console.print(f"strikes: {_words(result['strikes'])}", highlight=False)
    console.print(verdict(result), highlight=False)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def verdict(result: dict[str, Any]) -> str:
    """Sums the proof up in one line."""
    mean = result["checkpoints"] / result["scenarios"]
    return (
        f"{result['scenarios']} scenarios × {mean:.0f} checkpoints each ({result['checkpoints']}),"
        f" {result['runs']} runs in {result['seconds']:.0f} s, {result['broken_runs']} broken"
    )
