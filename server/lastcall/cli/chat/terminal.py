"""The terminal, pipe or file that a person talks through."""

from __future__ import annotations

import codecs
import os
import stat
import sys

import click
import trio

from ...logs import printable

READ_BYTES = 65_536
LINE_CHARS_MAX = 200_000
PROMPT = "> "


class Terminal:
    """Reads lines from stdin, without a thread: one that waits in read would keep the process from ending.

    shown: whether a person is there, to whom prompts and notes are shown.
    """

    def __init__(self) -> None:
        self._stdin = sys.stdin.fileno()
        self._waits = not stat.S_ISREG(os.fstat(self._stdin).st_mode)  # a file is always ready, and epoll refuses it
        self._decoder = codecs.getincrementaldecoder(sys.stdin.encoding or "utf-8")("replace")
        self._rest = ""
        self._over = False
        self._at_start = True
        self.shown = sys.stdin.isatty() and sys.stdout.isatty()

    async def line(self) -> str | None:
        """The next line, without its end; None at the end of all."""
        while "\n" not in self._rest and not self._over:
            await self._read()
            if len(self._rest) > LINE_CHARS_MAX:
                raise click.UsageError(f"A line has more than {LINE_CHARS_MAX:,} characters.")
        line, newline, self._rest = self._rest.partition("\n")
        return line.removesuffix("\r") if line or newline else None

    def prompt(self) -> None:
        if self.shown:
            self._write(PROMPT)

    def answered(self) -> None:
        """The answer is over: the next thing stands on a line of its own."""
        self._fresh_line()
        if self.shown:
            self._write("\n")

    def piece(self, text: str) -> None:
        self._write(printable(text))

    def note(self, text: str) -> None:
        """Goes to stderr, so that a pipe holds answers alone."""
        self._fresh_line()
        click.echo(click.style(printable(text), dim=True), err=True)
        self._at_start = True

    def _fresh_line(self) -> None:
        if not self._at_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            click.echo(text, nl=False)
            self._at_start = text.endswith("\n")

    async def _read(self) -> None:
        if self._waits:
            await trio.lowlevel.wait_readable(self._stdin)
        else:
            await trio.lowlevel.checkpoint()
        data = os.read(self._stdin, READ_BYTES)
        self._over = not data
        self._rest += self._decoder.decode(data, final=self._over)
        self._at_start = True  # the terminal has shown what was typed, with its newline
