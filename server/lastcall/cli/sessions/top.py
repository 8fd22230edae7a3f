"""`lastcall top`: what happens now, over all servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..kinds import Seconds
from ..options import question_options
from ..running import ask
from ..tables import Column, moment, one_line, print_json, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...store.operators.census import TruthReport
    from ...store.operators.sessions import DetailsReport
    from ...store.reports import Rows

SECONDS = 1.0
SESSIONS_MAX = 100  # that are asked for; as many are shown as there is room
LINES_OF_OTHERS = 12  # beside the sessions: the line that counts, the servers of a small deployment, headings
COLOURS = {"green": "green", "red": "bold red", "unknown": "yellow"}


class Now(NamedTuple):
    """What is asked for each time."""

    truth: TruthReport
    pending: int
    failed: int
    sessions: list[DetailsReport]


@click.command
@click.option(
    "--seconds", type=Seconds(min=0.2), default=SECONDS, show_default=True, help="How often it looks; at a terminal."
)
@question_options
def top(*, seconds: float, as_json: bool, **database: Any) -> None:
    """Show what happens now, over all servers: rows and sockets, servers, active sessions; until Ctrl-C.

    In a pipe, and with --json, once.
    """
    live = sys.stdout.isatty() and not as_json

    async def question(store: Rows) -> Now | None:
        if not live:
            return await _look(store)
        await _watch(store, seconds)
        return None

    found = None
    try:
        found = ask(question, **database)
    except* KeyboardInterrupt:  # the way out
        pass
    if as_json and found is not None:
        print_json(found._asdict())
    elif found is not None:
        _print(found)


async def _look(store: Rows) -> Now:
    from ...store.operators.census import read_truth
    from ...store.operators.sessions import memory_counts, page_of_sessions

    truth = await read_truth(store)
    pending, failed = await memory_counts(store)
    return Now(truth, pending, failed, await page_of_sessions(store, SESSIONS_MAX, active=True))


async def _watch(store: Rows, seconds: float) -> None:
    """Looks again and again; through an outage of the database, too."""
    import trio
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from ...store.errors import StoreError

    console = Console(highlight=False, emoji=False)
    shown: RenderableType = Text("…")
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = _picture(await _look(store), console.width, max(console.height - LINES_OF_OTHERS, 1))
                live.update(shown, refresh=True)
            except StoreError as error:
                live.update(Group(Text(f"as of before: {one_line(str(error))}", style="yellow"), shown), refresh=True)
            await trio.sleep(seconds)


def _print(now: Now) -> None:
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(_picture(now, console.width, SESSIONS_MAX))
    click.echo(capture.get().rstrip())


def _picture(now: Now, width: int, sessions_max: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    truth = now.truth
    sign = {"green": "=", "red": "≠", "unknown": "?"}[truth.state]
    line = Text(f"rows active {truth.rows} {sign} sockets live {truth.sockets}", style=COLOURS[truth.state])
    notes = [f"{one_line(each)} has not counted of late" for each in truth.silent]
    notes += [f"session {each.session_id} lacks its {each.lacks}" for each in truth.unmatched]
    notes += ["no server runs"] * (not any(each.runs for each in truth.servers))
    memory = f"memory: {now.pending} pending, {now.failed} failed"
    servers = [
        [one_line(each.hostname), str(each.pid), each.version, str(each.sockets or 0), moment(each.started_at)]
        for each in truth.servers
        if each.runs
    ]
    sessions = [
        [one_line(each.user_id), str(each.session_id), moment(each.session_start), each.state]
        for each in now.sessions[:sessions_max]
    ]
    more = truth.rows - len(sessions)
    return Group(
        line,
        *(Text(f"  {note}") for note in notes[:sessions_max]),
        Text(f"{memory}\n"),
        table_of(_SERVER_COLUMNS, servers, width) if servers else Text(),
        Text(),
        table_of(_SESSION_COLUMNS, sessions, width) if sessions else Text("No active sessions."),
        Text(f"and {more} more" if more > 0 and sessions else ""),
    )


_SERVER_COLUMNS = (
    Column("server", whole=False),
    Column("process", "right"),
    Column("version"),
    Column("sockets", "right"),
    Column("since (UTC)"),
)
_SESSION_COLUMNS = (Column("user", whole=False), Column("session"), Column("started (UTC)"), Column("state"))
