"""The load, in a process of its own: `python -m tests.verification.bench.load`.

Reads commands as lines of JSON from stdin, and writes an answer for each to stdout. Between commands it keeps its
connections: it answers pings and close frames. It knows frames only as far as it must, so that it costs less than what
it measures.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import sys
import time
from collections.abc import Callable
from typing import Any

from .activity import Activity
from .connecting import Close, Closed, Expect, Open
from .connection import Connection
from .framing import BadAnswer
from .turns import Ask, Fill, Sessions, Turns

SILENCE_SECONDS = 30.0  # without any progress of a command
STDIN, READ_BYTES = 0, 65_536
COMMANDS: dict[str, Callable[..., Activity]] = {
    "open": Open,
    "turns": Turns,
    "sessions": Sessions,
    "fill": Fill,
    "ask": Ask,
    "close": Close,
    "expect": Expect,
    "closed": Closed,
}


class Load:
    """The connections by group, and the one command that is running."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.groups: dict[str, list[Connection]] = {}
        self.expected: Expect | None = None
        self._users = 0
        self._activity: Activity | None = None
        self._commands: list[dict[str, Any]] = []
        self._rest = b""
        self._open = True
        self._failure = ""  # of a connection while no command ran: the answer to the next one

    def new_user(self) -> str:
        """Somebody without a past: what a server brings back from earlier sessions would grow from round to round."""
        self._users += 1
        return f"user{self._users}"

    def run(self) -> None:
        """Serves commands until stdin ends."""
        self.selector.register(STDIN, selectors.EVENT_READ, self._read_commands)
        progress = time.perf_counter()
        while self._open:
            ready = self.selector.select(SILENCE_SECONDS / 10)
            for key, mask in ready:
                handle: Callable[[int], None] = key.data
                try:
                    handle(mask)
                except (BadAnswer, OSError) as error:
                    self._fail(str(error))
            now = time.perf_counter()
            progress = now if ready or self._activity is None else progress
            self._go_on(now, now - progress)

    def _go_on(self, now: float, silent: float) -> None:
        if self._activity is None and self._commands:
            command = self._commands.pop(0)
            self._activity = COMMANDS[command.pop("do")](self, **command)
        if self._activity is None:
            return
        if silent > SILENCE_SECONDS:
            self._fail(f"no frame for {SILENCE_SECONDS:.0f} s")
        if self._failure:
            self._answer({"error": self._failure})
            self._failure = ""
        elif (result := self._activity.look(now)) is not None:
            self._answer(result)

    def _fail(self, message: str) -> None:
        self._failure = self._failure or message

    def _answer(self, result: dict[str, Any]) -> None:
        self._activity = None
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()

    def _read_commands(self, mask: int) -> None:
        data = os.read(STDIN, READ_BYTES)
        self._open = bool(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._commands += map(json.loads, lines)


if __name__ == "__main__":
    gc.disable()  # nothing here makes circles, and a collection would be a pause of the clients
    Load().run()
