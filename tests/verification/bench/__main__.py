"""`scripts/bench`: see `--help`."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click
import psutil
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

from tests.support.command_line import command, conclude, folder, json_option, progress, run

from ..starvation import Failed
from .alone import QUICK, Sizes
from .answers import Answer
from .checks import check_frames, spoken
from .contestants import FASTAPI, FLOOR, OURS, STOP_SECONDS, WEBSOCKETS, Contestants
from .cpu import FOREIGN_SHARE_MAX, Meter, Usage
from .ends import Ends
from .load_client import LoadClient, open_load
from .report import result, say
from .rounds import PICTURED, ROWS, Sample, Samples, run_rounds
from .scale import Scale

ROUNDS_MAX = 100
SECONDS_MAX = 600.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.2
LOOK_SECONDS = 1.0  # at the machine, before anything runs
CHECKED = Answer(3)
PICTURE_FORMATS = (".svg", ".png")
ALONE = ("idle", "shutdown", "orphans", "stall", "beside", "length", "start", "memory")
NAMES = (*ROWS, *ALONE)


@command("scripts/bench")
@click.option(
    "--only", type=click.Choice(NAMES), multiple=True, help="A row to measure; may be repeated; default: all."
)
@click.option("--rounds", type=click.IntRange(1, ROUNDS_MAX), default=5, show_default=True, help="Alternated rounds.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, SECONDS_MAX), default=3.0, show_default=True, help="Of each measurement."
)
@click.option("--quick", is_flag=True, help="Everything once, as short and small as possible: only to see it work.")
@click.option("--pin/--no-pin", default=True, help="Give the server one processor and all else the others (Linux).")
@click.option(
    "--picture", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw it: .svg or .png."
)
@json_option
@click.option("--keep", is_flag=True, help="Keep the databases and logs, and print where they are.")
def bench(*, only: tuple[str, ...], as_json: bool, keep: bool, picture: Path | None, **options: Any) -> int:
    """Measures lastcall beside two servers as users would write them, on FastAPI and on the websockets library, and
    beside the floor: the same frames, but constant, without JSON and database.

    All do the same work: a session is a committed row, every acknowledgement waits for a commit, PostgreSQL waits for
    the disk. That their frames are equal is checked first. Ratios are those of the same round: absolute figures of one
    machine mean little. All rows take about half an hour, `memory` alone half of that.

    \b
    Exit codes:
      0  no bound was missed
      1  a bound was missed, or the run failed
      2  wrong usage
      3  the machine was too busy to measure
    """
    if options["quick"]:
        options |= {"rounds": QUICK_ROUNDS, "seconds": QUICK_SECONDS}
    if picture is not None:
        _check_picture(picture, only)
    _be_interrupted_once()
    console = Console(stderr=as_json)
    names = [name for name in NAMES if name in only] if only else list(NAMES)
    with folder("lastcall-bench-", console, keep=keep) as directory, ExitStack() as stack:
        stack.callback(_end_servers)
        _allow_open_files()
        contestants = Contestants(directory, stack, pinned=options["pin"])
        load = stack.enter_context(open_load())
        contestants.place(0, load.pid, os.getpid())
        _say_how_busy(console, load)
        figures = Bench(console, contestants, load, options).run(names)
    if picture is not None:
        from .picture import draw  # slow to import, and only for those who want one

        draw(figures, picture)
    return conclude(figures, say, console)


class Bench:
    """One run. options: rounds, seconds, quick."""

    def __init__(self, console: Console, contestants: Contestants, load: LoadClient, options: dict[str, Any]) -> None:
        self._console = console
        self._contestants = contestants
        self._load = load
        self._options = options

    def run(self, names: list[str]) -> dict[str, Any]:
        rounds = [name for name in names if name in ROWS]
        alone = [name for name in names if name not in ROWS]
        steps = self._options["rounds"] * sum(len(ROWS[name].contestants) for name in rounds) + len(alone) + 1
        with progress(self._console, TextColumn("{task.completed}/{task.total}")) as bar:
            task = bar.add_task("checking frames", total=steps)
            self._check(rounds)
            samples = self._compare(rounds, bar, task)
            scale, usages = self._measure_alone(alone, bar, task)
        return result(samples, scale, usages, self._options)

    def _check(self, rounds: list[str]) -> None:
        names = (OURS, FASTAPI, WEBSOCKETS, FLOOR) if rounds else (OURS,)
        check_frames({name: spoken(self._contestants.get(name), CHECKED) for name in names})
        self._say("frames and rows checked")

    def _compare(self, names: list[str], bar: Progress, task: TaskID) -> Samples:
        samples: Samples = {}
        rounds, seconds = self._options["rounds"], self._options["seconds"]
        warm_up = 0.0 if self._options["quick"] else seconds / 2
        for row, contestant, sample in run_rounds(names, rounds, seconds, warm_up, self._contestants, self._load):
            taken: list[Sample] = samples.setdefault(row, {}).setdefault(contestant, [])
            taken.append(sample)
            line = f"round {len(taken)}, {ROWS[row].title}, {contestant}: {sample.server_us:.0f} µs"
            bar.update(task, advance=1, description=line)
            self._say(line + (" (busy)" if sample.usage.busy else ""))
        return samples

    def _measure_alone(self, names: list[str], bar: Progress, task: TaskID) -> tuple[dict[str, Any], dict[str, Usage]]:
        sizes = QUICK if self._options["quick"] else Sizes()
        parts = (self._contestants, self._load, sizes, self._options["seconds"])
        rows = Scale(*parts).rows() | Ends(*parts).rows()
        scale, usages = {}, {}
        for name in names:
            bar.update(task, advance=1, description=name)
            scale[name], usages[name] = rows[name]()
            self._say(f"{name}: {scale[name]}" + (" (busy)" if usages[name].busy else ""))
        return scale, usages

    def _say(self, line: str) -> None:
        """Progress where there is no bar."""
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)


def _check_picture(file: Path, only: tuple[str, ...]) -> None:
    """Before half an hour is spent."""
    if file.suffix not in PICTURE_FORMATS:
        raise click.UsageError(f"--picture must end in {' or '.join(PICTURE_FORMATS)}.")
    if not file.parent.is_dir():
        raise click.UsageError(f"--picture: there is no folder {file.parent}.")
    if only and not set(only) & set(PICTURED):
        raise click.UsageError(f"--picture needs one of the rows {', '.join(PICTURED)}.")


def _be_interrupted_once() -> None:
    """A second signal would interrupt the end of the servers and leave them running; that end is bounded."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)


def _end_servers() -> None:
    """Those whose start was interrupted before anybody else knew of them: Popen had forked and not yet returned."""
    for each in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            each.kill()
            each.wait(STOP_SECONDS)


def _allow_open_files() -> None:
    """As many as this user may have, for the load and all servers: they inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say_how_busy(console: Console, load: LoadClient) -> None:
    meter = Meter(0, 0, load.pid)
    time.sleep(LOOK_SECONDS)
    usage = meter.usage()
    if usage.foreign_share > FOREIGN_SHARE_MAX:
        others = f"others use {usage.foreign_share:.0%} of its processors, load average {os.getloadavg()[0]:.1f}"
        console.print(f"the machine is busy ({others}): figures will mean little", highlight=False)


if __name__ == "__main__":
    sys.exit(run(bench, Failed))
