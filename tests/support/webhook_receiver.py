"""A receiver of webhooks with real sockets, in threads of its own, that misbehaves where it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import OpenAI

from tests.support.threads import in_a_thread

HOLD_SECONDS_MAX = 30.0
VERIFIER = OpenAI(
    api_key="unused"
).webhooks  # of the official client: it verifies what is signed after Standard Webhooks


@dataclass(frozen=True)
class Received:
    """A request that came in whole. id: its `webhook-id`."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def verify(self, secret: str) -> None:
        """Raises where it was not signed with this secret, or not in the last minutes."""
        VERIFIER.verify_signature(self.body, self.headers, secret=secret)


Behaviour = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def close(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


class Receiver:
    """received: in the order in which they came. behave: what is done with each; by default it is accepted.

    busy: how many are being handled.
    """

    def __init__(self, port: int = 0) -> None:
        self.received: list[Received] = []
        self.behave: Behaviour = answer(204)
        self.released = threading.Event()  # ends what `hold` holds
        self.busy = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def hold(self, handler: BaseHTTPRequestHandler) -> None:
        """Says nothing until it is released, and then that it failed."""
        self.released.wait(HOLD_SECONDS_MAX)
        answer(500)(handler)

    def handle(self, handler: BaseHTTPRequestHandler, received: Received) -> None:
        with self._lock:
            self.received.append(received)
            self.busy += 1
        try:
            self.behave(handler)
        finally:
            with self._lock:
                self.busy -= 1

    async def count(self) -> int:
        return len(self.received)

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        with in_a_thread(self._server):
            try:
                yield self
            finally:
                self.released.set()


class _Server(ThreadingHTTPServer):
    receiver: Receiver
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that has gone is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.receiver.handle(self, Received(self.path, headers, body))

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def open_receiver(port: int = 0) -> Iterator[Receiver]:
    with Receiver(port).running() as receiver:
        yield receiver
