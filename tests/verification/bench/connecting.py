"""The commands that open and close connections."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .activity import GREETING_FRAMES, Activity
from .connection import NOBODY, Connection

if TYPE_CHECKING:
    from .load import Load


class Open(Activity):
    """Opens connections into a group, so many at once, and waits until each is greeted. seconds: for all."""

    def __init__(self, load: Load, group: str, port: int, count: int, at_once: int = 64) -> None:
        self._load, self._port, self._count = load, port, count
        self._group = load.groups.setdefault(group, [])
        self._began, self._begun, self._ready = time.perf_counter(), 0, 0
        for _ in range(min(at_once, count)):
            self._begin()

    def _begin(self) -> None:
        self._begun += 1
        connection = Connection(self._load, self, self._port, self._load.new_user())
        connection.left = GREETING_FRAMES
        self._group.append(connection)

    def complete(self, connection: Connection, last: bytes) -> None:
        connection.owner = NOBODY
        self._ready += 1
        if self._begun < self._count:
            self._begin()

    def look(self, now: float) -> dict[str, Any] | None:
        return {"seconds": now - self._began} if self._ready == self._count else None


class Close(Activity):
    """Closes a group, and waits until the server has closed too."""

    def __init__(self, load: Load, group: str) -> None:
        connections = load.groups.pop(group, [])
        self._waiting = len(connections)
        for connection in connections:
            connection.owner = self
            connection.close()

    def closed(self, connection: Connection) -> None:
        self._waiting -= 1

    def look(self, now: float) -> dict[str, Any] | None:
        return None if self._waiting else {}


class Expect(Activity):
    """From now on the server may close this group; `Closed` tells when it has."""

    def __init__(self, load: Load, group: str) -> None:
        connections = load.groups.pop(group)
        self.waiting = len(connections)
        self.codes: Counter[int] = Counter()
        for connection in connections:
            connection.owner = self
        load.expected = self

    def closed(self, connection: Connection) -> None:
        self.waiting -= 1
        self.codes[connection.close_code] += 1

    def look(self, now: float) -> dict[str, Any] | None:
        return {}


class Closed(Activity):
    """Waits until the server has closed what was expected. Returns the Unix time of the last end, and close codes."""

    def __init__(self, load: Load) -> None:
        assert load.expected is not None
        self._expected = load.expected

    def look(self, now: float) -> dict[str, Any] | None:
        return None if self._expected.waiting else {"at": time.time(), "codes": dict(self._expected.codes)}
