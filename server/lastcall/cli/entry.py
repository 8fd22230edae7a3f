"""The command line `lastcall`: its commands, and what becomes of their failures.

What is slow to import is imported inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .. import __version__
from .api_docs import api_docs
from .database_url import database_url
from .defaults import with_subcommands
from .keys import keys
from .memories import memories, retry_memories
from .orphans import orphans
from .serve import serve
from .sessions import close_session, sessions, stats

EXIT_FAILED = 1
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

# Exceptions that say what the user can change. By name: their modules are slow to import, and a module that is not
# loaded has raised nothing.
_MISTAKES = (
    ("lastcall.embedded.cluster", "EmbeddedError"),
    ("lastcall.store.postgres", "DatabaseUnusable"),
    ("lastcall.agents.select", "AgentUnavailable"),
    ("lastcall.main", "CannotListen"),
    ("lastcall.config", "BadSettings"),
)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # here, because click would write an empty line
            ctx.exit(EXIT_INTERRUPTED)


@click.group(
    "lastcall",
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="lastcall", message="%(prog)s %(version)s")
@click.pass_context
def lastcall(context: click.Context) -> None:
    """A chat server that never leaves a session open, and the questions that its operator asks."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    serve,
    with_subcommands(sessions, close_session),
    stats,
    orphans,
    with_subcommands(memories, retry_memories),
    keys,
    database_url,
    api_docs,
):
    lastcall.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; its exit code. A failure is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        _write_what_it_can(stream)
    try:
        code = lastcall.main(list(arguments), prog_name="lastcall", standalone_mode=False)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - the outermost edge
        code = _failed(error)
    _finish_stdout()
    return code if isinstance(code, int) else 0


def _failed(error: BaseException) -> int:
    """Says what went wrong in one line; the exit code."""
    leaves = list(_leaves(error))
    worst = next((leaf for leaf in leaves if not _is_mistake(leaf)), leaves[0])
    if isinstance(worst, KeyboardInterrupt | click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(worst, click.UsageError):
        path = worst.ctx.command_path if worst.ctx else "lastcall"
        _say(f"{worst.format_message().rstrip('.')}. See {path} --help.")
    elif isinstance(worst, click.ClickException):
        _say(worst.format_message())
    elif _is_mistake(worst):
        _say(str(worst))
    else:
        _say(f"failed: {type(worst).__name__}: {worst} (LASTCALL_LOG_LEVEL=debug shows where)")
        return EXIT_FAILED
    return EXIT_MISTAKE


def _say(message: str) -> None:
    from ..logs import printable, redact

    click.echo("lastcall: " + printable(redact(" ".join(message.split()))), err=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Nurseries wrap exceptions in groups, and those in groups."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _is_mistake(error: BaseException) -> bool:
    known = [getattr(sys.modules.get(module), name, None) for module, name in _MISTAKES]
    return isinstance(error, (click.ClickException, *(each for each in known if each is not None)))


def _write_what_it_can(stream: Any) -> None:
    """A character that the terminal's encoding lacks becomes a question mark, not a failure."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _finish_stdout() -> None:
    """Where nobody reads stdout any more, the interpreter would complain about it at its exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
