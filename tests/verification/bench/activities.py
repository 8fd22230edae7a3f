"""What the load can do, one at a time: open connections, take turns, run short sessions, close."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .connection import NOBODY, Connection
from .framing import BadAnswer, text_frame

if TYPE_CHECKING:
    from .load import Load

GREETING_FRAMES = 2  # session.created, conversation.created
CREATE_FRAMES = 2  # conversation.item.added, conversation.item.done
ITEMS_UNDER_WAY = 64  # of one connection, when a conversation is filled
DONE = b'"response.done"'
RESPOND = text_frame({"type": "response.create"})


def create(text: str) -> bytes:
    """The frame of a user's message."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return text_frame({"type": "conversation.item.create", "item": item})


class Activity(ABC):
    """One command, and the owner of the connections that take part. `look` returns its result once there is one."""

    @abstractmethod
    def look(self, now: float) -> dict[str, Any] | None: ...

    def texts(self, connection: Connection, count: int, last: bytes) -> None:
        connection.left -= count
        if connection.left < 0:
            raise BadAnswer(f"{-connection.left} frames too many: {last[:200]!r}")
        if connection.left == 0:
            self.complete(connection, last)

    def closed(self, connection: Connection) -> None:
        raise BadAnswer(f"the server closed a connection with {connection.close_code}")

    def complete(self, connection: Connection, last: bytes) -> None:
        """All frames came that the connection was waiting for."""
        raise BadAnswer(f"nobody waits for this: {last[:200]!r}")


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
        connection = Connection(self._load, self, self._port, f"user{self._begun}")
        connection.left = GREETING_FRAMES
        self._group.append(connection)

    def complete(self, connection: Connection, last: bytes) -> None:
        connection.owner = NOBODY
        self._ready += 1
        if self._begun < self._count:
            self._begin()

    def look(self, now: float) -> dict[str, Any] | None:
        return {"seconds": now - self._began} if self._ready == self._count else None


class Turns(Activity):
    """Every connection of a group takes turn after turn, until one of the bounds.

    frames: of one turn. Returns turns, seconds, and their latencies in milliseconds.
    """

    def __init__(self, load: Load, group: str, question: str, frames: int, seconds: float, turns_max: int) -> None:
        self._create, self._frames, self._turns_max = create(question), frames, turns_max
        self._latencies: list[float] = []
        self._busy = len(load.groups[group])
        self._began = time.perf_counter()
        self._until = self._began + seconds
        for connection in load.groups[group]:
            connection.owner, connection.turns = self, 0
            self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        connection.left, connection.began = self._frames, time.perf_counter()
        connection.send(self._create)  # as official clients do: one event, one write, and no waiting in between
        connection.send(RESPOND)

    def complete(self, connection: Connection, last: bytes) -> None:
        expect_done(last)
        now = time.perf_counter()
        self._latencies.append((now - connection.began) * 1000)
        connection.turns += 1
        if now < self._until and connection.turns < self._turns_max:
            self._begin(connection)
        else:
            connection.owner = NOBODY
            self._busy -= 1

    def look(self, now: float) -> dict[str, Any] | None:
        if self._busy:
            return None
        return {"count": len(self._latencies), "seconds": now - self._began, "latencies": self._latencies}


class Sessions(Activity):
    """Short sessions: connect, one turn, close; each by a user of its own. Returns how many in how many seconds."""

    def __init__(
        self,
        load: Load,
        port: int,
        clients: int,
        question: str,
        frames: int,
        seconds: float,
        count_max: int,
        user: str,
    ) -> None:
        self._load, self._port, self._user = load, port, user
        self._create, self._frames, self._count_max = create(question), frames, count_max
        self._latencies: list[float] = []
        self._begun = self._busy = 0
        self._began = time.perf_counter()
        self._until = self._began + seconds
        for _ in range(clients):
            self._begin()

    def _begin(self) -> None:
        self._begun += 1
        self._busy += 1
        began = time.perf_counter()
        connection = Connection(self._load, self, self._port, f"{self._user}{self._begun}")
        connection.left, connection.began = GREETING_FRAMES, began

    def complete(self, connection: Connection, last: bytes) -> None:
        connection.turns += 1
        if connection.turns == 1:  # greeted
            connection.left = self._frames
            connection.send(self._create)
            connection.send(RESPOND)
        else:
            expect_done(last)
            connection.close()

    def closed(self, connection: Connection) -> None:
        if connection.close_code >= 0:
            super().closed(connection)
        now = time.perf_counter()
        self._latencies.append((now - connection.began) * 1000)
        self._busy -= 1
        if now < self._until and self._begun < self._count_max:
            self._begin()

    def look(self, now: float) -> dict[str, Any] | None:
        if self._busy:
            return None
        return {"count": len(self._latencies), "seconds": now - self._began, "latencies": self._latencies}


class Fill(Activity):
    """Puts so many messages into the conversation of each connection of a group."""

    def __init__(self, load: Load, group: str, count: int) -> None:
        self._count = count
        self._waiting = len(load.groups[group]) if count else 0
        for connection in load.groups[group] if count else ():
            connection.owner, connection.turns = self, 0
            self._more(connection)

    def _more(self, connection: Connection) -> None:
        items = min(ITEMS_UNDER_WAY, self._count - connection.turns)
        connection.turns += items
        connection.left = items * CREATE_FRAMES
        connection.send(create(f"message {connection.turns}") * items)

    def complete(self, connection: Connection, last: bytes) -> None:
        if connection.turns < self._count:
            self._more(connection)
        else:
            connection.owner = NOBODY
            self._waiting -= 1

    def look(self, now: float) -> dict[str, Any] | None:
        return None if self._waiting else {}


class Ask(Activity):
    """One turn on a connection of its own. Returns the answer's text."""

    def __init__(self, load: Load, port: int, question: str, frames: int) -> None:
        self._question, self._frames = question, frames
        self._text: str | None = None
        connection = Connection(load, self, port, "asking")
        connection.left = GREETING_FRAMES

    def complete(self, connection: Connection, last: bytes) -> None:
        connection.turns += 1
        if connection.turns == 1:  # greeted
            connection.left = self._frames
            connection.send(create(self._question))
            connection.send(RESPOND)
            return
        expect_done(last)
        self._text = json.loads(last)["response"]["output"][0]["content"][0]["text"]
        connection.close()

    def closed(self, connection: Connection) -> None:
        if connection.close_code >= 0:
            super().closed(connection)

    def look(self, now: float) -> dict[str, Any] | None:
        return None if self._text is None else {"text": self._text}


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


def expect_done(last: bytes) -> None:
    if not last.startswith((b'{"type":' + DONE, b'{"type": ' + DONE)):
        raise BadAnswer(f"a turn ended with {last[:200]!r}")


ACTIVITIES: dict[str, Callable[..., Activity]] = {
    "open": Open,
    "turns": Turns,
    "sessions": Sessions,
    "fill": Fill,
    "ask": Ask,
    "close": Close,
    "expect": Expect,
    "closed": Closed,
}
