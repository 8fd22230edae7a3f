"""The output of a run: progress while it lasts, then the table, the broken promises and the verdict."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn
from rich.table import Table

from tests.support.command_line import progress

from .expected_end import lines
from .faults.chaos_run import ChaosRun
from .findings import FINDINGS, Findings
from .plan import DATABASE_FAULTS, LINK_FAULTS, ROW_FAULTS, SERVER_FAULTS

SYSTEM_FAULTS = SERVER_FAULTS + LINK_FAULTS + DATABASE_FAULTS
LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
REFRESH_SECONDS = 0.5


class Display:
    """Shows a progress bar on a terminal, and a line every ten seconds elsewhere."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._phase = "starting"
        self._began = 0.0

    def phase(self, name: str) -> None:
        self._phase = name
        if name == "running":
            self._began = trio.current_time()
        if not self._console.is_terminal:
            self._console.print(name, highlight=False)

    async def show(self, run: ChaosRun) -> None:
        if not self._console.is_terminal:
            while True:
                await trio.sleep(LINE_SECONDS)
                self._console.print(f"{self._phase}: {_counts(run)}", highlight=False, soft_wrap=True)
        with progress(self._console, TextColumn("{task.fields[counts]}")) as bar:
            task = bar.add_task(self._phase, total=self._seconds, counts="")
            while True:
                done = trio.current_time() - self._began if self._began else 0.0
                bar.update(task, description=self._phase, completed=min(done, self._seconds), counts=_counts(run))
                await trio.sleep(REFRESH_SECONDS)


def _counts(run: ChaosRun) -> str:
    visits = run.ledger.visits.values()
    sessions = sum(visit.created is not None for visit in visits)
    ended = run.ledger.clients_ended
    live = sum(visit.is_open and visit.client_process not in ended for visit in visits)
    faults = sum(fault.kind in SYSTEM_FAULTS for fault in run.ledger.faults)
    rows = sum(fault.kind in ROW_FAULTS for fault in run.ledger.faults)
    return (
        f"{sessions} sessions, {live} open, {faults} server and database faults, {rows} rows closed or deleted by hand"
    )


def figures(run: ChaosRun, findings: Findings) -> dict[str, Any]:
    """Returns every figure of a run. Times in seconds; a line without samples has measured None."""
    visits = [visit for visit in run.ledger.visits.values() if visit.created is not None]
    faults = Counter(fault.kind for fault in run.ledger.faults)
    faults["client_reset"] = sum(visit.how == "reset" for visit in visits)
    broken, unjudged = any(findings.broken.values()), any(findings.unjudged.values())
    return {
        "seconds": run.pace.seconds,
        "seed": run.seed,
        "sessions": len(visits),
        "turns": sum(visit.turns for visit in visits),
        "acknowledged_items": sum(len(visit.acks) for visit in visits),
        "webhooks_received": len(run.receiver.receipts),
        "webhooks_accepted": sum(each.accepted for each in run.receiver.receipts),
        "faults": dict(sorted(faults.items())),
        "by_fault": _by_fault(run, faults, findings),
        "left_out": run.left_out,
        "timeline": [
            {"fault": fault.kind, "target": fault.target, "begin": round(fault.begin, 3), "end": round(fault.end, 3)}
            for fault in run.ledger.faults
            if fault.kind in SYSTEM_FAULTS
        ],
        "server_or_database_faults": sum(faults[kind] for kind in SYSTEM_FAULTS),
        "broken": {str(promise): count for promise, count in findings.promises().items()},
        "findings": dict(findings.broken),
        "examples": dict(findings.examples),
        "unjudged": dict(findings.unjudged),
        "unjudged_examples": dict(findings.unjudged_examples),
        "lost_seconds": run.ledger.starvation.totals(),
        "unmeasured_ends": findings.unmeasured,
        "samples": len(run.samples),
        "listings": len(run.listings),
        "table": _table(run, findings),
        "ok": not broken and not unjudged,
        "too_busy": unjudged and not broken,
    }


def _table(run: ChaosRun, findings: Findings) -> list[dict[str, Any]]:
    rows = []
    for name, line in lines(run.pace).items():
        measured = findings.table[name]
        seen = measured.samples > 0
        rows.append(
            {
                "line": line.title,
                "bound_row": round(line.bound_row, 3),
                "measured_row": round(max(measured.row, 0.0), 3) if seen else None,
                "p99_row": _rounded(measured.p99),
                "bound_p99": line.bound_p99,
                "bound_end": line.bound_end,
                "measured_end": round(measured.end, 3) if seen and line.bound_end is not None else None,
                "samples": measured.samples,
                "unjudged": measured.unjudged,
                "late_but_within_p99": measured.crowded,
                "within": measured.within,
            }
        )
    return rows


def _by_fault(run: ChaosRun, faults: Counter[str], findings: Findings) -> dict[str, dict[str, Any]]:
    """Each kind of fault: how often, and how long what it made wrong stayed so: rows, or sockets."""
    return {
        fault: {
            "count": faults[fault],
            "ends": findings.faults[fault].samples if fault in findings.faults else 0,
            "bound": findings.faults[fault].bound if fault in findings.faults else None,
            "p99": _rounded(findings.faults[fault].p99) if fault in findings.faults else None,
            "worst": _rounded(findings.faults[fault].row) if fault in findings.faults else None,
        }
        for fault in run.only
        if fault != "agent"
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 3)


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the result for people."""
    columns = ("row true again within", "99 %", "worst", "session_end off by at most", "worst", "ends")
    table = Table("what happens", *columns)
    for line in result["table"]:
        style = "red" if line["within"] is False else "yellow" if line["unjudged"] else None
        seconds = [_seconds(line[key]) for key in ("bound_row", "p99_row", "measured_row", "bound_end", "measured_end")]
        table.add_row(line["line"], *seconds, str(line["samples"]), style=style)
    console.print(table)
    console.print(_fault_table(result["by_fault"]))
    for promise, count in result["broken"].items():
        console.print(f"{promise}: {f'broken {count} times' if count else 'held'}", style="red" if count else None)
        for kind, examples in result["examples"].items():
            if FINDINGS[kind] == promise:
                _say_kind(kind, result["findings"][kind], examples, console)
    for kind, examples in result["unjudged_examples"].items():
        _say_kind(f"too busy to judge: {kind}", result["unjudged"][kind], examples, console)
    faults, sessions = result["server_or_database_faults"], result["sessions"]
    summary = (
        f"{sessions} sessions, {result['webhooks_accepted']} accepted webhooks, {faults} server and database faults"
    )
    summary += f", seed {result['seed']}"
    console.print(f"{summary}: {_verdict(result)}", highlight=False)


def _fault_table(by_fault: dict[str, dict[str, Any]]) -> Table:
    """A fault without ends of its own must have no effect, or is in the lines above."""
    table = Table("fault", "times", "its ends", "bound", "99 %", "worst")
    for fault, each in by_fault.items():
        seconds = [_seconds(each[key]) for key in ("bound", "p99", "worst")]
        table.add_row(fault, str(each["count"]), str(each["ends"]), *seconds)
    return table


def _say_kind(kind: str, count: int, examples: list[str], console: Console) -> None:
    console.print(f"  {kind}: {count}", highlight=False)
    for example in examples:
        console.print(f"    {escape(example)}", highlight=False)


def _verdict(result: dict[str, Any]) -> str:
    if result["ok"]:
        return "every promise held"
    return "the machine was too busy to judge" if result["too_busy"] else "PROMISES WERE BROKEN"


def _seconds(value: float | None) -> str:
    with suppress(TypeError):
        return f"{value:.3g} s"
    return "–"
