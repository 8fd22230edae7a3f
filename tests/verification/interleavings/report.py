"""What a run says: counts while it lasts, figures and the broken orders at its end."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .model import NAMES
from .orders import Failure, Orders
from .together import Meetings

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
REFRESH_SECONDS = 0.5
LENGTHS = (4, 8, 12)  # for which orders are counted
EXAMPLES_MAX = 5


async def show(console: Console, orders: Orders, meetings: Meetings) -> None:
    """Progress, until cancelled."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(LINE_SECONDS)
            console.print(_counts(orders, meetings), highlight=False)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("starting")
        while True:
            progress.update(task, description=_counts(orders, meetings))
            await asyncio.sleep(REFRESH_SECONDS)


def _counts(orders: Orders, meetings: Meetings) -> str:
    failures = len(orders.failures) + len(meetings.failures)
    return (
        f"length {orders.length}: {orders.states} states, {orders.steps} statements; "
        f"{meetings.pairs} pairs, {meetings.triples} triples; {failures} broken"
    )


def figures(orders: Orders, meetings: Meetings) -> dict[str, Any]:
    """Every figure of a run, for machines. `covered`: orders of at most so many statements."""
    failures = [*orders.failures, *meetings.failures]
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
            "scenes": meetings.scenes,
            "pairs": meetings.pairs,
            "triples": meetings.triples,
            "outcomes": dict(sorted(meetings.outcomes.items())),
            "dated_early": meetings.early,
            "complete": meetings.complete,
            "seconds": round(meetings.seconds, 1),
        },
        "broken": [{"order": each.order, "broken": list(each.broken), "replay": replay(each)} for each in failures],
        "ok": not failures,
    }


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
        "gone on from twice",
        highlight=False,
    )
    how = ", ".join(f"{count} {name}" for name, count in together["outcomes"].items())
    cut = "" if together["complete"] else ", cut off"
    console.print(
        f"{together['pairs']} pairs and {together['triples']} triples at the same time in {together['scenes']} scenes: "
        f"{how}; {together['dated_early']} ends dated early ({together['seconds']} s{cut})",
        highlight=False,
    )
    for each in result["broken"][:EXAMPLES_MAX]:
        console.print(escape(each["order"]), style="red", highlight=False, soft_wrap=True)
        for line in each["broken"]:
            console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)
        console.print(f"    {escape(each['replay'])}", highlight=False, soft_wrap=True)
    verdict = "every promise held" if result["ok"] else f"{len(result['broken'])} ORDERS BROKE PROMISES"
    console.print(verdict, highlight=False)
