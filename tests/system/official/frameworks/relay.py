"""A relay between a client and a server that passes every byte on as it is, and keeps the events in between.

So that the frames of clients that show none, or not as they were, can be checked as strictly as those of the others.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from wsproto.frame_protocol import FrameProtocol, Opcode

CHUNK_BYTES = 65_536
CONNECT_SECONDS = 5.0
END_SECONDS = 5.0
WAIT_SECONDS = 10.0  # for an event
LOOK_SECONDS = 0.2  # between two looks at whether the relay has ended


class Way:
    """One direction of a connection: its events, once the bytes are those of a WebSocket."""

    def __init__(self, events: list[dict[str, Any]], changed: threading.Condition, *, to_client: bool) -> None:
        self._events = events
        self._changed = changed
        self._head: bytes | None = b""
        self._frames = FrameProtocol(client=to_client, extensions=[])
        self._message = ""

    def take(self, chunk: bytes) -> None:
        """Reads what was passed on. Raises for bytes that are no frame."""
        if self._head is not None:
            self._head += chunk
            _, end, chunk = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = None
        self._frames.receive_bytes(chunk)
        for frame in self._frames.received_frames():
            if frame.opcode is Opcode.TEXT or (frame.opcode is Opcode.CONTINUATION and self._message):
                assert isinstance(frame.payload, str)
                self._message += frame.payload
                if frame.message_finished:
                    with self._changed:
                        self._events.append(json.loads(self._message))
                        self._changed.notify_all()
                    self._message = ""


class Relay:
    """Listens on `url` and leads to a server. `sent` are the clients' events, `received` the server's."""

    def __init__(self, target: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._changed = threading.Condition()
        self._target = urlsplit(target)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_SECONDS)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, task: Any, *arguments: object) -> None:
        thread = threading.Thread(target=task, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while not self._ended.is_set():
                with suppress(TimeoutError):
                    near, _ = self._listener.accept()
                    self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        """Serves one connection. Where the server cannot be reached, it is closed, as the server's would be."""
        address = (self._target.hostname, self._target.port)
        with near, suppress(OSError), socket.create_connection(address, CONNECT_SECONDS) as far:
            far.settimeout(None)
            near.settimeout(None)
            ways = {
                near: (far, Way(self.sent, self._changed, to_client=False)),
                far: (near, Way(self.received, self._changed, to_client=True)),
            }
            while not self._ended.is_set():
                for source in select.select([near, far], [], [], LOOK_SECONDS)[0]:
                    sink, way = ways[source]
                    chunk = source.recv(CHUNK_BYTES)
                    if not chunk:
                        return
                    self._note(way, chunk)
                    sink.sendall(chunk)

    def _note(self, way: Way, chunk: bytes) -> None:
        """Keeps the events before the bytes go on: what a client has seen is in the list."""
        try:
            way.take(chunk)
        except Exception as error:  # noqa: BLE001 - the test is told; the bytes go on
            self.failures.append(repr(error))

    def wait_for(self, kind: str, start: int = 0) -> dict[str, Any]:
        """The first event of a type that the server has sent, or sends soon, from the position `start` on."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self.received[start:] if each["type"] == kind), None)

        with self._changed:
            event = self._changed.wait_for(found, WAIT_SECONDS)
        assert event is not None, f"no {kind}: {[each['type'] for each in self.received[start:]]}"
        return event

    def close(self) -> None:
        """Ends all connections."""
        self._ended.set()
        for thread in self._threads:
            thread.join(END_SECONDS)


@contextmanager
def open_relay(target: str) -> Iterator[Relay]:
    """A relay to the server with that URL, which may be restarted meanwhile."""
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
