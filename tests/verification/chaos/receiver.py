"""A receiver of webhooks that misbehaves: `python -m tests.verification.chaos.receiver`, in a process of its own.

Each line on stdin sets its mood: well, slow, fails, cuts or down. Each answer on stdout is that mood with the port,
once it holds. Between them, each request that came in whole is a line `["received", AT, STATUS, HEADERS, BODY]`, where
the status 0 says that it was not answered.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from random import Random

import h11
import trio

from .commands import lines_of_stdin

WELL, SLOW, FAILS, CUTS, DOWN = MOODS = ("well", "slow", "fails", "cuts", "down")
MOODY_SHARE = 0.7  # of requests, whatever the mood but down
SLOW_SECONDS = (0.1, 2.0)
HANGING_SHARE = 0.03  # of the slow ones: beyond the time that a server waits
HANGING_SECONDS = 12.0
FAILURES = (500, 503, 429, 404, 307)
CONNECTIONS_MAX = 256
BODY_BYTES_MAX = 65_536
IDLE_SECONDS = 60.0  # that a connection may be silent
CHUNK_BYTES = 65_536
BACKLOG = 64
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the next close is a reset
HEADERS = (b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"content-type")


class Cut(Exception):
    """This connection is to be reset."""


class Receiver:
    """One port. It is the same one again after it was down."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._random = Random(0)
        self._mood = WELL
        self._listening: trio.CancelScope | None = None
        self._closed = trio.Event()
        self._streams: set[trio.SocketStream] = set()
        self.port = 0

    async def set(self, mood: str) -> None:
        """Returns once that holds."""
        assert mood in MOODS, mood
        self._mood = mood
        if mood == DOWN:
            await self._close()
        elif self._listening is None:
            await self._nursery.start(self._listen)

    async def _close(self) -> None:
        for stream in self._streams:
            _reset(stream)
        if self._listening is not None:
            self._listening.cancel()
            await self._closed.wait()

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        listener = trio.SocketListener(_listening_socket(self.port))
        self.port, self._closed = listener.socket.getsockname()[1], trio.Event()
        with trio.CancelScope() as self._listening:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener], handler_nursery=self._nursery)
        self._listening = None
        self._closed.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        if len(self._streams) >= CONNECTIONS_MAX or self._mood == DOWN:
            _reset(stream)
            return
        self._streams.add(stream)
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._exchange(stream, connection):
                connection.start_next_cycle()
        except (Cut, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.ProtocolError):
            _reset(stream)
        finally:
            self._streams.discard(stream)
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        """One request and its answer. Returns whether another one may come."""
        mood = self._mood if self._random.random() < MOODY_SHARE else WELL
        cut = self._random.choice(("head", "body", "answer")) if mood == CUTS else ""
        request = await _next(stream, connection)
        if not isinstance(request, h11.Request):
            return False
        if cut == "head":
            raise Cut
        body = await _body(stream, connection)
        if mood == SLOW:
            hangs = self._random.random() < HANGING_SHARE
            await trio.sleep(HANGING_SECONDS if hangs else self._random.uniform(*SLOW_SECONDS))
        status = self._random.choice(FAILURES) if mood == FAILS else 204
        _note(0 if cut == "body" else status, dict(request.headers), body)
        if cut == "body":
            raise Cut
        await _answer(stream, connection, status, whole=cut != "answer")
        return connection.our_state is h11.DONE


async def _body(stream: trio.SocketStream, connection: h11.Connection) -> bytes:
    body = b""
    while isinstance(event := await _next(stream, connection), h11.Data):
        body += event.data
        if len(body) > BODY_BYTES_MAX:
            raise Cut
    if not isinstance(event, h11.EndOfMessage):
        raise Cut
    return body


async def _answer(stream: trio.SocketStream, connection: h11.Connection, status: int, *, whole: bool) -> None:
    response = h11.Response(status_code=status, headers=[("content-length", "0"), ("location", "/elsewhere")])
    data = (connection.send(response) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    if not whole:
        await stream.send_all(data[: len(data) // 2])
        raise Cut
    await stream.send_all(data)


async def _next(stream: trio.SocketStream, connection: h11.Connection) -> object:
    with trio.fail_after(IDLE_SECONDS):
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(CHUNK_BYTES))
    return event


def _note(status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    """Before the answer: what a receiver has accepted, it knows."""
    shown = {name.decode(): headers.get(name, b"").decode("latin-1") for name in HEADERS}
    _write(["received", time.time(), status, shown, body.decode("latin-1")])


def _write(line: object) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _listening_socket(port: int) -> trio.socket.SocketType:
    """Bound before anybody is told: a port that was given back could be another's."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(BACKLOG)
    return trio.socket.from_stdlib_socket(listening)


def _reset(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() >= 0:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.socket.close()


async def run() -> None:
    """Until stdin ends."""
    async with trio.open_nursery() as nursery:
        receiver = Receiver(nursery)
        async for mood in lines_of_stdin():
            await receiver.set(mood.decode())
            _write([mood.decode(), receiver.port])
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(run)
