"""A browser without a screen: it keeps cookies, and tells the server from which page it asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import trio
from lastcall.protocol.endpoint import PATH
from trio_websocket import WebSocketConnection, wrap_client_stream

from .authorization import UNUSED, rejected_status
from .identity_provider import IdentityProvider


class Browser:
    """url: of the server. As a browser, it sends the Origin of the page with what changes something."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []  # as the last answer set them

    async def ask(
        self, method: str, path: str, *, origin: str | None = None, headers: dict[str, str] | None = None, **rest: Any
    ) -> httpx2.Response:
        """origin: of the page; None: the server's own. "": none is sent."""
        sent = {} if method == "GET" and origin is None else {"origin": self.url if origin is None else origin}
        sent = {name: value for name, value in sent.items() if value} | (headers or {})
        if self.cookies:
            sent["cookie"] = self.cookie
        async with httpx2.AsyncClient(base_url=self.url, verify=UNUSED) as client:
            answer = await client.request(method, path, headers=sent, **rest)
        self.set_cookies = answer.headers.get_list("set-cookie")
        for line in self.set_cookies:
            name, _, value = line.split(";")[0].partition("=")
            if value.strip('"'):
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    @asynccontextmanager
    async def socket(self, origin: str | None = None, query: str = "") -> AsyncIterator[WebSocketConnection]:
        parts = urlsplit(self.url)
        extra = [(b"cookie", self.cookie.encode())] if self.cookies else []
        if origin != "":
            extra.append((b"origin", (origin or self.url).encode()))
        stream = await trio.open_tcp_stream(str(parts.hostname), parts.port or 0)
        try:
            async with trio.open_nursery() as nursery:
                yield await wrap_client_stream(
                    nursery, stream, parts.netloc, PATH + query, subprotocols=["realtime"], extra_headers=extra
                )
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def user(self, origin: str | None = None) -> str | int:
        """The user of a session that it begins; else the code of the error, or the status."""
        try:
            async with self.socket(origin) as ws:
                with trio.fail_after(10):
                    first = json.loads(await ws.get_message())
                return str(first["session"]["user"] if first["type"] == "session.created" else first["error"]["code"])
        except BaseExceptionGroup as rejected:
            return rejected_status(rejected)

    async def signed_in(self) -> str | None:
        """Who is signed in, as the page is told."""
        answer = await self.ask("GET", "/sign-in")
        assert answer.status_code == 200, answer.text
        user: str | None = answer.json()["user"]
        return user

    async def to_provider(self, path: str = "/") -> str:
        """Begins to sign in; the address at the provider to which the page goes on."""
        answer = await self.ask("POST", "/sign-in/provider", json={"path": path})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["url"])

    async def back(self, url: str) -> str:
        """Comes back from the provider; where the server sends the browser then."""
        parts = urlsplit(url)
        answer = await self.ask("GET", f"{parts.path}?{parts.query}")
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def sign_in_at(self, provider: IdentityProvider, path: str = "/") -> str:
        """The whole way; where the server sends the browser in the end."""
        url = await self.to_provider(path)
        return await self.back(provider.authorize(dict(parse_qsl(urlsplit(url).query))))
