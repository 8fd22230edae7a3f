"""`lastcall serve`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings
from .configuration.file import configuration_file
from .doctor import config_file_checks
from .options import settings_options
from .running import run_logged

if TYPE_CHECKING:
    from pathlib import Path

    from ..main import Ready
    from ..process.inherited import InheritedSockets
    from ..runtime.service_manager import ServiceManager

# Sessions leave no cycles (tests/integration/runtime/test_garbage.py), so Python may look for some less often: at 700
# new objects, its default, it holds up the event loop again and again while many clients connect, and finds nothing.
COLLECTION_THRESHOLDS = (5_000, 1, 200)


@click.command
@settings_options()
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> int:
    """Run the chat server until SIGTERM or Ctrl-C."""
    gc.set_threshold(*COLLECTION_THRESHOLDS)  # before the imports, which create a great many objects
    settings = Settings(**values)
    from ..process.inherited import inherited_sockets
    from ..runtime.service_manager import service_manager

    manager = service_manager(os.environ)
    inherited = inherited_sockets(os.environ, supervised=manager.supervised)
    if settings.workers > 1 and not manager.supervised:
        return _supervise(settings, manager, inherited)
    _serve(settings, configuration_file(context), manager, inherited)
    return 0


def _supervise(settings: Settings, manager: ServiceManager, inherited: InheritedSockets) -> int:
    from ..process.supervisor import Supervisor

    def announce(told: Mapping[str, str]) -> None:
        announce_ready(told, json_logs=settings.json_logs, workers=settings.workers)

    supervisor = Supervisor(settings, manager, announce)
    return run_logged(supervisor.run, inherited, json_logs=settings.json_logs, level=level_of(settings))


def _serve(settings: Settings, config_file: Path | None, manager: ServiceManager, inherited: InheritedSockets) -> None:
    from ..runtime.watchdog import Watchdog

    def announce(ready: Ready) -> None:
        gc.freeze()  # what exists now lives as long as the process; collections need not scan it
        told = {name: text for name, text in asdict(ready).items() if text is not None}
        if not manager.supervised:
            announce_ready(told, json_logs=settings.json_logs)
        manager.ready(f"serving at {ready.url}", **told)

    watchdog = Watchdog(settings.drain_delay + settings.drain_seconds, reloads=settings.tls_cert is not None)
    with watchdog.installed():
        from ..logs import queued_output
        from ..main import serve as serve_until_stopped
        from ..runtime.check import log_checks

        to_person = tell if sys.stderr.isatty() and not settings.json_logs else say_nothing

        async def serve_with_warnings() -> None:
            log_checks(config_file_checks(config_file))
            await serve_until_stopped(settings, announce, watchdog, to_person, manager, inherited)

        watchdog.loop_begins()
        with queued_output():
            number = {} if manager.worker is None else {"worker": manager.worker}
            run_logged(serve_with_warnings, json_logs=settings.json_logs, level=level_of(settings), fields=number)


def level_of(settings: Settings) -> str | None:
    """Whoever asks for the access log wants to see it."""
    return settings.log_level or ("info" if settings.access_log else None)


def tell(text: str) -> None:
    """Prints a line for whoever sits at the terminal and has pressed Ctrl-C, which stands there as ^C."""
    from .. import logs

    logs.write_line(sys.stderr, f"\rlastcall: {text}")


def say_nothing(_text: str) -> None:
    """For logs, which have the events of a shutdown."""


def announce_ready(told: Mapping[str, str], *, json_logs: bool, workers: int = 1) -> None:
    """Prints one line on stdout that says that the server accepts connections. told: the fields of `Ready`."""
    from .. import logs

    url, database, agent = told["url"], told["database"], told["agent"]
    if json_logs:
        if "note" in told:
            logs.write_line(sys.stdout, logs.json_line("data_elsewhere", note=told["note"]))
        number = {} if workers == 1 else {"workers": workers}
        line = logs.json_line("ready", "info", url=url, database=database, agent=agent, **number)
    else:
        if "note" in told:
            logs.write_line(sys.stderr, f"lastcall: {told['note']}")
        line = f"lastcall is ready at {url} · database: {database} · agent: {agent}"
        line += f" · {workers} workers" if workers > 1 else ""
    logs.write_line(sys.stdout, line)
