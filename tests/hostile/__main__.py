"""`scripts/hostile`: see `--help`."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .audit import figures
from .conduct import Failed, Run, conduct

SECONDS_MAX = 3_600
INPUTS_MAX = 1_000_000
CLIENTS_MAX = 500
SEED_MAX = 2**32
EXIT_BROKEN = 1
EXIT_INTERRUPTED = 130
REFRESH_SECONDS = 0.5


@click.command("scripts/hostile", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=300, show_default=True, help="At most.")
@click.option("--inputs", type=click.IntRange(1, INPUTS_MAX), default=10_000, show_default=True, help="Bad ones.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=50, show_default=True, help="Healthy ones.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Repeats the inputs; default: a random one.")
@click.option("--json", "as_json", is_flag=True, help="Progress on stderr, and every figure in stdout's last line.")
@click.option("--keep", is_flag=True, help="Keep the database and the log, and say where.")
def hostile(*, as_json: bool, keep: bool, **options: Any) -> int:
    """A real server with a real PostgreSQL, healthy clients, and beside them generated bad inputs from 49 addresses of
    this machine; then an audit. Exits with 0 only if every promise held."""
    if options["seed"] is None:
        options["seed"] = SystemRandom().randrange(SEED_MAX)
    console = Console(stderr=as_json)
    console.print(f"seed {options['seed']}", highlight=False)
    # A SIGTERM ends the run as Ctrl-C does: nothing is left behind.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with place(keep, console) as directory:
        result = figures(trio.run(shown, directory, console, options), options)
    if as_json:
        click.echo(json.dumps(result))
    else:
        say(result, console)
    return 0 if result["ok"] else EXIT_BROKEN


@contextmanager
def place(keep: bool, console: Console) -> Iterator[Path]:
    """A folder for the database and the log. As root, PostgreSQL runs as another user, who must get through."""
    directory = Path(tempfile.mkdtemp(prefix="lastcall-hostile-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        if keep:
            console.print(f"kept: {directory}", highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


async def shown(directory: Path, console: Console, options: dict[str, Any]) -> Run:
    """The run, with its progress: a bar on a terminal, else a line for each phase."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=options["inputs"], counts="")
        runs: list[Run] = []

        def phase(name: str, run: Run) -> None:
            runs[:] = [run]
            progress.update(task, description=name)
            if not console.is_terminal:
                console.print(name, highlight=False)

        async def refresh() -> None:
            while True:
                for run in runs:
                    sent, counts = run.tally.sent.total(), f"{len(run.tally.turns)} healthy turns"
                    progress.update(task, completed=sent, counts=f"{sent} bad inputs, {counts}")
                await trio.sleep(REFRESH_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refresh)
            run = await conduct(directory, options, phase)
            nursery.cancel_scope.cancel()
        return run


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a run, for people."""
    table = Table("what", "figure")
    for name, value in result.items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)
    verdict = "every promise held" if result["ok"] else f"BROKEN: {', '.join(result['broken'])}"
    console.print(f"{result['inputs']} bad inputs, seed {result['seed']}: {verdict}", highlight=False)


def main() -> int:
    try:
        return int(hostile.main(standalone_mode=False) or 0)
    except click.ClickException as mistake:
        sys.stderr.write(f"scripts/hostile: {mistake.format_message().rstrip('.')}. See scripts/hostile --help.\n")
        return 2
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            return EXIT_INTERRUPTED
        failures = group.subgroup(Failed)
        if failures is None:
            raise
        error: BaseException = failures
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        sys.stderr.write(f"scripts/hostile: {error}\n")
        return EXIT_BROKEN


if __name__ == "__main__":
    sys.exit(main())
