"""Servers of the standard library that run in a thread, beside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer

POLL_SECONDS = 0.02


@contextmanager
def in_a_thread(server: HTTPServer) -> Iterator[None]:
    """Serves for as long as the block lasts, and is closed then."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
