"""Reports a run: counts while it runs, then its figures and the failures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..promises import PROMISES, Promise
from .model import NAMES
from .orders import Failure, Orders
from .overlap_lane import Overlaps

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
REFRESH_SECONDS = 0.5
LENGTHS = (4, 8, 12)  # for which orders are counted
EXAMPLES_MAX = 5


async def show(console: Console, orders: Orders, overlaps: Overlaps) -> None:
    """Progress, until cancelled."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(LINE_SECONDS)
            console.print(_counts(orders, overlaps), highlight=False)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("starting")
        while True:
            progress.update(task, description=_counts(orders, overlaps))
            await asyncio.sleep(REFRESH_SECONDS)


def _counts(orders: Orders, overlaps: Overlaps) -> str:
    failures = len(orders.failures) + len(overlaps.failures)
    return (
        f"length {orders.length}: {orders.states} states, {orders.steps} statements; "
        f"{overlaps.pairs} pairs, {overlaps.triples} triples; {failures} broken"
    )


def figures(orders: Orders, overlaps: Overlaps) -> dict[str, Any]:
    """Every figure of a run, for machines. covered: numbers of orders of at most so many statements."""
    failures = [*orders.failures, *overlaps.failures]
    lengths = sorted({*(length for length in LENGTHS if orders.complete or length < orders.length), orders.length})
    return {
        "orders": {
            "kinds": len(NAMES),
            "states": orders.states,
            "statements": orders.steps,
            "length": orders.length,
            "complete": orders.complete,
            "covered": {str(length): orders.orders(length) for length in lengths},
            "compared": orders.compared,
            "seconds": round(orders.seconds, 1),
        },
        "together": {
            "setups": overlaps.setups,
            "pairs": overlaps.pairs,
            "triples": overlaps.triples,
            "outcomes": dict(sorted(overlaps.outcomes.items())),
            "dated_early": overlaps.early,
            "complete": overlaps.complete,
            "seconds": round(overlaps.seconds, 1),
        },
        "broken": broken_by_promise(failures),
        "failures": [
            {"order": each.order, "broken": list(map(str, each.broken)), "replay": replay(each)} for each in failures
        ],
        "ok": not failures,
    }


def broken_by_promise(failures: Sequence[Failure]) -> dict[Promise, int]:
    """How many failures broke each promise."""
    counts = Counter(promise for each in failures for promise in {broken.promise for broken in each.broken})
    return {promise: counts[promise] for promise, entry in PROMISES.items() if "interleavings" in entry.provers}


def replay(failure: Failure) -> str:
    return f'scripts/simulate --interleavings --only "{failure.order}"'


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a run, for people."""
    orders, together = result["orders"], result["together"]
    longest, covered = list(orders["covered"].items())[-1]
    reach = "every order of any length" if orders["complete"] else f"every order of up to {longest} statements"
    console.print(
        f"{reach} of {orders['kinds']} statements: {orders['states']} states, {orders['statements']} statements sent "
        f"in {orders['seconds']} s, which covers {covered:.3g} orders of up to {longest}; {orders['compared']} states "
        "compared",
        highlight=False,
    )
    how = ", ".join(f"{count} {name}" for name, count in together["outcomes"].items())
    cut = "" if together["complete"] else ", stopped early"
    console.print(
        f"{together['pairs']} pairs and {together['triples']} triples at the same time in {together['setups']} setups: "
        f"{how}; {together['dated_early']} ends dated early ({together['seconds']} s{cut})",
        highlight=False,
    )
    for each in result["failures"][:EXAMPLES_MAX]:
        console.print(escape(each["order"]), style="red", highlight=False, soft_wrap=True)
        for line in each["broken"]:
            console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)
        console.print(f"    {escape(each['replay'])}", highlight=False, soft_wrap=True)
    verdict = "every promise held" if result["ok"] else f"{len(result['failures'])} ORDERS BROKE PROMISES"
    console.print(verdict, highlight=False)
