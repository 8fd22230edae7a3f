"""A client in a real browser: the JavaScript that runs under Node, on a page of another origin than the server's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.threads import in_a_thread

from . import frames
from .node import FOLDER
from .program import Failed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START = """async (name) => {
    const { Client } = await import(`./${name}.mjs`);
    window.received = [];
    window.client = new Client((frame) => received.push(frame));
}"""
DO = "async ([verb, args]) => (await client[verb](...args)) ?? null"


class _Handler(SimpleHTTPRequestHandler):
    def do_POST(self) -> None:
        """The backend of a page, which is told what it is to answer: the token and the address for a session."""
        body = json.dumps(dict(parse_qsl(urlsplit(self.path).query))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""


@contextmanager
def serve_pages() -> Iterator[str]:
    """Serves tests/system/node; yields the pages' origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(FOLDER)))
    with in_a_thread(server):
        yield f"http://127.0.0.1:{server.server_port}"


class PageClient:
    """A client on a page of its own. `frames` are the events that it has received."""

    def __init__(self, page: Page) -> None:
        self.frames: list[dict[str, Any]] = []
        self._page = page

    def do(self, verb: str, *arguments: object) -> Any:
        """Has the client do something; returns its result. Raises `Failed`, and for any frame that breaks the rules."""
        from playwright.sync_api import Error

        try:
            result = self._page.evaluate(DO, [verb, list(arguments)])
        except Error as error:
            raise Failed(f"{verb}: {error}") from None
        finally:
            received = self._page.evaluate("received.splice(0)")
            self.frames.extend(received)
        for frame in received:
            frames.check(frame)
        return result


def open_page(browser: Browser, origin: str, name: str) -> PageClient:
    """A client of `../node` on a page of that origin. The browser takes certificates that nobody it knows signed."""
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.goto(f"{origin}/page.html")
    page.evaluate(START, name)
    return PageClient(page)
