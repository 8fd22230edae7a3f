"""The frame of the commands that prove something: their options, exit codes, interrupts and last line."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

EXIT_BROKEN = 1  # also where there is no result
EXIT_USAGE = 2
EXIT_TOO_BUSY = 3
EXIT_INTERRUPTED = 130
SEED_MAX = 2**32
Wanted = TypeVar("Wanted", bound=BaseException)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Progress on stderr, and every figure in stdout's last line."
)


class TooBusy(Exception):
    """There is no result because the machine had no time for the run; the message is one line."""


def command(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """A command of this name, as people call it. It returns its exit code."""
    return click.command(name, context_settings={"help_option_names": ["-h", "--help"]})


def run(called: click.Command, *failures: type[Exception]) -> int:
    """Runs a command; its exit code. What is wrong is said in one line on stderr.

    failures: what keeps a command from a result through no mistake of its caller's; the message is one line.
    """
    try:
        with _interruptible():
            return int(called.main(standalone_mode=False) or 0)
    except BaseException as error:
        # At any depth: nurseries wrap what ends them in groups.
        if unwrapped(error, KeyboardInterrupt, click.Abort):
            return EXIT_INTERRUPTED
        if mistake := unwrapped(error, click.ClickException):
            assert isinstance(mistake, click.ClickException)
            _say(called, f"{mistake.format_message().rstrip('.')}. See {called.name} --help.")
            return EXIT_USAGE
        if busy := unwrapped(error, TooBusy):
            _say(called, str(busy))
            return EXIT_TOO_BUSY
        if failure := unwrapped(error, *failures):
            _say(called, str(failure))
            return EXIT_BROKEN
        raise


def conclude(result: dict[str, Any], say: Callable[[dict[str, Any], Console], None], console: Console) -> int:
    """Says what came out: for machines in stdout's last line, where the console is stderr.

    The exit code follows from `ok` and, where a command has it, `too_busy`.
    """
    if console.stderr:
        click.echo(json.dumps(result))
    else:
        say(result, console)
    if result["ok"]:
        return 0
    return EXIT_TOO_BUSY if result.get("too_busy") else EXIT_BROKEN


def progress(console: Console, *columns: ProgressColumn) -> Progress:
    """A bar with its description and these columns. Nothing where there is no terminal."""
    shown = (TextColumn("{task.description}"), BarColumn(), *columns, TimeElapsedColumn())
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def folder(prefix: str, console: Console, *, keep: bool = False) -> Iterator[Path]:
    """A folder for databases and logs. As root, PostgreSQL runs as another user, who must get through."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        if keep:
            console.print(f"kept: {directory}", highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A SIGTERM ends the run as Ctrl-C does: nothing is left behind. A shell's background jobs ignore SIGINT."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    hear_hangups()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear_hangups() -> None:
    """Under nohup a closed terminal still ends nothing, but the servers that are started here do not inherit that."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a program that is started has the default instead


def unwrapped(error: BaseException, *kinds: type[Wanted]) -> Wanted | None:
    """The first exception of these kinds in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := unwrapped(each, *kinds))), None)
    return error if isinstance(error, kinds) else None


def _say(called: click.Command, message: str) -> None:
    sys.stderr.write(f"{called.name}: {message}\n")
