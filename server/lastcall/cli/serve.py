"""`lastcall serve`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from ..runtime.start_up import (
    at_low_priority,
    import_hypercorn,
    import_structlog,
    keep_for_good,
    no_collections,
    session_gives_way,
)
from .options import settings_options
from .running import run_logged

if TYPE_CHECKING:
    from ..main import Ready


@click.command
@settings_options()
def serve(**values: Any) -> None:
    """Run the chat server until SIGTERM or Ctrl-C."""
    settings = Settings(**values)
    with no_collections():  # server/lastcall/runtime/garbage.py does it in its own time
        _serve(settings)


def _serve(settings: Settings) -> None:
    take_share_back = session_gives_way()
    serve_until_stopped = at_low_priority(_import_server)
    keep_for_good()  # before the server's own collector begins

    def announce(ready: Ready) -> None:
        take_share_back()
        keep_for_good()
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
