"""The processes of a run: PostgreSQL, servers, clients. Each is ended by its id, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from ..starvation import Failed

START_SECONDS = 30.0
KILLED_SECONDS = 5.0  # from SIGKILL to the exit
LINE_BYTES_MAX = 1 << 20
# Clients stand for other machines and must not take the servers' time. Linux may divide it by session before niceness.
AUTOGROUP = "/proc/{}/autogroup"
SMALL_SHARE = 10  # as a nice value
START_SHARE = 3  # of a server that starts: half of what those have that serve
WHOLE_SHARE = 0
SHARE_TRIES = 5
SHARE_WAIT_SECONDS = 0.1
NICE = ("sh", "-c", f'echo {SMALL_SHARE} 2>/dev/null >/proc/self/autogroup; exec nice -n {SMALL_SHARE} "$@"', "sh")
ROOT = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def open_process(command: list[str], **options: Any) -> AsyncIterator[trio.Process]:
    """A process in its own session, out of reach of the terminal's Ctrl-C. On leaving, the whole session is killed."""
    options = {"stdin": subprocess.DEVNULL, **options}
    process = await trio.lowlevel.open_process(
        command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        with trio.move_on_after(KILLED_SECONDS, shield=True):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.stdout is not None:
            await trio.aclose_forcefully(process.stdout)


async def each_line(
    process: trio.Process, take: Callable[[bytes], None], may_read: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Passes on every line of a process's stdout until its end. may_read: waited for before each read."""
    pending = b""
    assert process.stdout is not None
    while True:
        if may_read is not None:
            await may_read()
        if not (data := await process.stdout.receive_some()):
            return
        *lines, pending = (pending + bytes(data)).split(b"\n")
        if len(pending) > LINE_BYTES_MAX:
            raise Failed(f"process {process.pid} writes endless lines")
        for line in lines:
            take(line)


async def share(pid: int, nice: int) -> None:
    """Sets the share of a process's session where the kernel has such. Only root may do so ten times a second."""
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(BlockingIOError),
        wait=wait_fixed(SHARE_WAIT_SECONDS),
        stop=stop_after_attempt(SHARE_TRIES),
        sleep=trio.sleep,
        reraise=True,
    )
    with suppress(OSError):
        async for attempt in attempts:
            with attempt:
                set_share(pid, nice)


def set_share(pid: int, nice: int) -> None:
    """Sets the share of a process's session.

    Raises:
        BlockingIOError: it was changed too recently.
        OSError: this kernel does not group processes by session.
    """
    Path(AUTOGROUP.format(pid)).write_text(str(nice))


def clients_command() -> list[str]:
    return [sys.executable, "-m", "tests.verification.chaos.clients"]


def orphans_command(database_url: str) -> list[str]:
    return [*NICE, sys.executable, "-m", "lastcall", "orphans", "--json", "--database-url", database_url]
