"""`lastcall serve`."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from .configuration.file import configuration_file
from .doctor import config_file_checks
from .options import settings_options
from .running import run_logged

if TYPE_CHECKING:
    from ..main import Ready

# Sessions leave no cycles (tests/integration/runtime/test_garbage.py), so Python may look for some less often: at 700
# new objects, its default, it holds up the event loop again and again while many clients connect, and finds nothing.
COLLECTION_THRESHOLDS = (5_000, 1, 200)


@click.command
@settings_options()
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> None:
    """Run the chat server until SIGTERM or Ctrl-C."""
    gc.set_threshold(*COLLECTION_THRESHOLDS)  # before the imports, which create a great many objects
    settings = Settings(**values)
    config_file = configuration_file(context)

    def announce(ready: Ready) -> None:
        gc.freeze()  # what exists now lives as long as the process; collections need not scan it
        announce_ready(ready, json_logs=settings.json_logs)

    from ..runtime.watchdog import Watchdog

    watchdog = Watchdog(settings.drain_seconds, reloads=settings.tls_cert is not None)
    with watchdog.installed():
        from ..logs import queued_output
        from ..main import serve as serve_until_stopped
        from ..runtime.check import log_checks

        async def serve_with_warnings(*args: Any) -> None:
            log_checks(config_file_checks(config_file))
            await serve_until_stopped(*args)

        watchdog.loop_begins()
        with queued_output():
            run_logged(
                serve_with_warnings,
                settings,
                announce,
                watchdog,
                tell if sys.stderr.isatty() and not settings.json_logs else say_nothing,
                json_logs=settings.json_logs,
                level=settings.log_level,
            )


def tell(text: str) -> None:
    """Prints a line for whoever sits at the terminal and has pressed Ctrl-C, which stands there as ^C."""
    from .. import logs

    logs.write_line(sys.stderr, f"\rlastcall: {text}")


def say_nothing(_text: str) -> None:
    """For logs, which have the events of a shutdown."""


def announce_ready(ready: Ready, *, json_logs: bool) -> None:
    """Prints one line on stdout that says that the server accepts connections."""
    from .. import logs

    if json_logs:
        if ready.note:
            logs.write_line(sys.stdout, logs.json_line("data_elsewhere", note=ready.note))
        line = logs.json_line("ready", url=ready.url, database=ready.database, agent=ready.agent)
    else:
        if ready.note:
            logs.write_line(sys.stderr, f"lastcall: {ready.note}")
        line = f"lastcall is ready at {ready.url} · database: {ready.database} · agent: {ready.agent}"
    logs.write_line(sys.stdout, line)
