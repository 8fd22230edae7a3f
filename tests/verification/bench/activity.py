"""One command of the load, and the owner of the connections that take part in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .connection import Connection
from .framing import BadAnswer

GREETING_FRAMES = 2  # session.created, conversation.created


class Activity(ABC):
    """Made when its command comes; its constructor's arguments are the command's."""

    @abstractmethod
    def look(self, now: float) -> dict[str, Any] | None:
        """Its result, once there is one. now: of `time.perf_counter`."""

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
