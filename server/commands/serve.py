"""`lastcall serve`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from ..start_up import at_low_priority, import_hypercorn, import_structlog, session_gives_way
from .options import settings_options
from .running import run_logged

if TYPE_CHECKING:
    from ..main import Ready

# By generation, each in collections of the one before. A session's objects form no cycles and go with its last
# reference; at Python's own 700 the collector looked through the living ones ten times a second in vain.
COLLECT_AFTER_OBJECTS = (5_000, 5, 5)


@click.command
@settings_options()
def serve(**values: Any) -> None:
    """Run the chat server until SIGTERM or Ctrl-C."""
    settings = Settings(**values)
    # What start-up makes lives as long as the process. Looking through it took a sixth of the time of a start; and
    # later, each time that the collector came to its oldest generation, an eighth of a second of every session's.
    gc.disable()
    take_share_back = session_gives_way()
    serve_until_stopped = at_low_priority(_import_server)

    def announce(ready: Ready) -> None:
        take_share_back()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER_OBJECTS)
        gc.enable()
        announce_ready(ready, json_logs=settings.json_logs)

    run_logged(serve_until_stopped, settings, announce, json_logs=settings.json_logs, level=settings.log_level)


def _import_server() -> Callable[..., Awaitable[None]]:
    import_structlog()
    import_hypercorn()
    from ..main import serve as serve_until_stopped

    return serve_until_stopped


def announce_ready(ready: Ready, *, json_logs: bool) -> None:
    """Tells that the server takes connections: one line on stdout."""
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
