"""A command at a terminal of its own: what it prints there is seen, and what is typed there it gets."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

WAIT_SECONDS = 30.0
READ_BYTES = 65_536
CTRL_C, CTRL_D = "\x03", "\x04"


class AtTerminal:
    """A running `lastcall` with these arguments."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, theirs = os.openpty()
        quiet = termios.tcgetattr(theirs)
        quiet[3] &= ~termios.ECHO  # what is typed is not what is seen here
        termios.tcsetattr(theirs, termios.TCSANOW, quiet)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lastcall", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._seen = ""

    def types(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, wanted: str) -> str:
        """Waits for a text, without colours, and returns what came before and with it."""
        until = time.monotonic() + WAIT_SECONDS
        while wanted not in self._seen:
            ready, _, _ = select.select([self._terminal], [], [], max(until - time.monotonic(), 0))
            assert ready, f"{wanted!r} did not come: {self._seen!r}"
            try:
                read = os.read(self._terminal, READ_BYTES)
            except OSError:  # the terminal is closed, as its program has ended
                raise AssertionError(f"it ended before {wanted!r}: {self._seen!r}") from None
            self._seen = click.unstyle(self._seen + read.decode(errors="replace"))
        before, _, self._seen = self._seen.partition(wanted)
        return before + wanted

    def ends(self) -> int:
        """Waits for its end; the exit code."""
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)


def _take_terminal() -> None:
    """So that Ctrl-C there is a signal for it, also where a shell in whose background this runs has it ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def at_terminal(*arguments: str) -> Iterator[AtTerminal]:
    command = AtTerminal(*arguments)
    try:
        yield command
    finally:
        command.close()
