"""The commands that say something: turns, short sessions, a long conversation, one question."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from .activity import GREETING_FRAMES, Activity
from .connection import NOBODY, Connection
from .framing import BadAnswer, text_frame

if TYPE_CHECKING:
    from .load import Load

CREATE_FRAMES = 2  # conversation.item.added, conversation.item.done
ITEMS_UNDER_WAY = 64  # of one connection, when a conversation is filled
DONE = b'"response.done"'
RESPOND = text_frame({"type": "response.create"})


def create(text: str) -> bytes:
    """The frame of a user's message."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return text_frame({"type": "conversation.item.create", "item": item})


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
    ) -> None:
        self._load, self._port = load, port
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
        connection = Connection(self._load, self, self._port, self._load.new_user())
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
        connection = Connection(load, self, port, load.new_user())
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


def expect_done(last: bytes) -> None:
    if not last.startswith((b'{"type":' + DONE, b'{"type": ' + DONE)):
        raise BadAnswer(f"a turn ended with {last[:200]!r}")
