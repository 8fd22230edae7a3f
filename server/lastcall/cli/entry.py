"""The command line `lastcall`: its commands, and the exit code and message of each failure.

Slow imports are inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .. import __version__
from .api_docs import api_docs
from .chat.command import chat
from .configuration.config import config
from .database.adopt import import_sessions
from .database.migrate import migrate
from .database.prune import prune
from .database.url import database_url
from .doctor import doctor
from .keys import keys
from .memories import edit_memory, forget_memory, memories, retry_memories, users
from .serve import serve
from .sessions.listing import close_session, sessions
from .sessions.orphans import orphans
from .sessions.showing import show_session
from .sessions.stats import stats
from .sessions.top import top
from .webhooks import webhooks

EXIT_FAILED = 1
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

# Exceptions whose message tells users what to change. By name, because their modules are slow to import; a module that
# is not loaded cannot have raised one.
_MISTAKES = (
    ("lastcall.embedded.programs", "EmbeddedError"),
    ("lastcall.store.address", "BadAddress"),
    ("lastcall.store.postgres", "DatabaseUnusable"),
    ("lastcall.agents.agent", "AgentUnavailable"),
    ("lastcall.transport.port", "CannotListen"),
    ("lastcall.store.postgres.instances", "ConnectionLimitTooLow"),
    ("lastcall.sessions.instance", "LeaseNotHeld"),
    ("lastcall.config", "BadSettings"),
    ("lastcall.cli.chat.wire", "Lost"),
    ("lastcall.adoption.columns", "BadImport"),
)


class DefaultGroup(click.Group):
    """A command that also has subcommands; arguments that name none of them go to the default one."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def with_subcommands(default: click.Command, *others: click.Command) -> DefaultGroup:
    """Returns a group with the name and help of its default command."""
    group = DefaultGroup(default.name, help=default.help, short_help=default.short_help)
    names = ", ".join(f"lastcall {default.name} {other.name}" for other in others)
    default.epilog = f"See also: {names}."
    group.add_command(default, DefaultGroup.default)
    for other in others:
        group.add_command(other)
    return group


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would print an empty line
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
    """A chat server that never leaves a session open, and the commands to operate it."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    serve,
    chat,
    with_subcommands(sessions, show_session, close_session),
    top,
    stats,
    orphans,
    with_subcommands(memories, edit_memory, forget_memory, retry_memories),
    users,
    keys,
    webhooks,
    import_sessions,
    migrate,
    prune,
    doctor,
    config,
    database_url,
    api_docs,
):
    lastcall.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; a failure is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        _replace_unencodable(stream)
    try:
        code = lastcall.main(list(arguments), prog_name="lastcall", standalone_mode=False)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - the outermost edge
        code = _failed(error)
    _finish_stdout()
    return code if isinstance(code, int) else 0


def _failed(error: BaseException) -> int:
    """Prints what went wrong in one line and returns the exit code."""
    leaves = list(_leaves(error))
    worst = next((leaf for leaf in leaves if not _is_mistake(leaf)), leaves[0])
    if isinstance(worst, KeyboardInterrupt | click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(worst, click.exceptions.NoArgsIsHelpError) and worst.ctx is not None:
        click.echo(worst.ctx.get_help())
        return 0  # as `lastcall` by itself
    if isinstance(worst, click.UsageError):
        path = worst.ctx.command_path if worst.ctx else "lastcall"
        message = worst.format_message().rstrip(".")
        _say(f"{message}{'' if message.endswith('?') else '.'} See {path} --help.")
    elif isinstance(worst, click.ClickException):
        _say(worst.format_message())
    elif _is_mistake(worst):
        _say(str(worst))
    else:
        _say(f"failed: {type(worst).__name__}: {worst} (LASTCALL_LOG_LEVEL=debug shows where)")
        return EXIT_FAILED
    return EXIT_MISTAKE


def _say(message: str) -> None:
    from ..logs import cut, printable, redact

    click.echo("lastcall: " + printable(redact(cut(" ".join(message.split())))), err=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Unwraps the nested exception groups of nurseries."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _is_mistake(error: BaseException) -> bool:
    known = [getattr(sys.modules.get(module), name, None) for module, name in _MISTAKES]
    return isinstance(error, (click.ClickException, *(each for each in known if each is not None)))


def _replace_unencodable(stream: Any) -> None:
    """Prints a question mark for a character that the terminal's encoding lacks."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _finish_stdout() -> None:
    """Flushes stdout; if its reader is gone, keeps the interpreter from complaining at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
