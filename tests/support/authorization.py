"""A server with keys, and clients with every kind of credential."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import jwt
import trio
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.protocol.endpoint import PATH
from lastcall.protocol.ids import parse_public_id
from lastcall.store.postgres import PostgresStore
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from tests.support.operators import OPERATOR
from tests.support.servers import TestServer

SECRET = "the identity provider's own secret"
AUDIENCE = "lastcall"
DONE_SECONDS = 10.0
UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a client would otherwise load all authorities, each time


@dataclass
class World:
    """A server with keys, two users with a conversation each, and what anybody could present.

    tokens: by who. cookies: of those who have one, who ask as from the server's own page.
    """

    server: TestServer
    store: PostgresStore
    tokens: dict[str, str | None] = field(default_factory=dict)
    conversations: dict[str, str] = field(default_factory=dict)
    ids: dict[str, UUID] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    async def key(self, who: str, subject: str, scope: Scope) -> None:
        made = await key_admin.create_key(self.store, subject, scope, OPERATOR)
        self.tokens[who], self.ids[who] = made.key, made.key_id

    async def secret(self, who: str, maker: str = "service", **body: Any) -> None:
        answer = await self.ask("POST", "/v1/realtime/client_secrets", maker, json=body)
        assert answer.status_code == 200, answer.text
        self.tokens[who], self.ids[who] = answer.json()["value"], UUID(answer.json()["id"])

    async def ask(self, method: str, path: str, who: str, **rest: Any) -> httpx2.Response:
        token = self.tokens[who]
        headers = {"authorization": f"Bearer {token}"} if token is not None else self._of_page(who)
        headers |= rest.pop("headers", {})
        async with httpx2.AsyncClient(base_url=self.server.url, verify=UNUSED) as client:
            return await client.request(method, path, headers=headers, **rest)

    @asynccontextmanager
    async def socket(
        self,
        who: str,
        query: str = "",
        *,
        path: str = PATH,
        by_header: bool = True,
        headers: Mapping[str, str] | None = None,
        more_subprotocols: Sequence[str] = (),
    ) -> AsyncIterator[WebSocketConnection]:
        """Raises `ConnectionRejected` for an HTTP answer. by_header: else by subprotocols, as browsers do."""
        token, parts = self.tokens[who], urlsplit(self.server.url)
        extra = [(name.encode(), value.encode()) for name, value in {**self._of_page(who), **(headers or {})}.items()]
        if by_header and token is not None:
            extra.append((b"authorization", f"Bearer {token}".encode()))
        offered = [] if by_header else ["realtime", *([f"openai-insecure-api-key.{token}"] if token else [])]
        offered += more_subprotocols
        stream = await trio.open_tcp_stream(str(parts.hostname), parts.port or 0)
        try:
            async with trio.open_nursery() as nursery:
                yield await wrap_client_stream(
                    nursery, stream, parts.netloc, f"{path}{query}", subprotocols=offered, extra_headers=extra
                )
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    def _of_page(self, who: str) -> dict[str, str]:
        """The headers of a browser."""
        return {"cookie": self.cookies[who], "origin": self.server.url} if who in self.cookies else {}

    async def begin(self, who: str, query: str = "", **rest: Any) -> Any:
        """An HTTP status; else (error code, close code); else the user of the session that began, of any kind."""
        with trio.fail_after(DONE_SECONDS):
            try:
                return await self._begin(who, query, **rest)
            except BaseExceptionGroup as rejected:
                return rejected_status(rejected)

    async def _begin(self, who: str, query: str, **rest: Any) -> Any:
        async with self.socket(who, query, **rest) as ws:
            first = json.loads(await ws.get_message())
            if first["type"] == "error":
                return first["error"]["code"], await closed(ws)
            session_id = parse_public_id("sess", first["session"]["id"])
            rows = await self.store.select(
                "SELECT user_id FROM conversation_sessions WHERE session_id = $1", session_id
            )
            return rows[0]["user_id"]


def rejected_status(group: BaseExceptionGroup[BaseException]) -> int:
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConnectionRejected)
    assert json.loads(error.body or b"")["error"]["message"]
    return int(error.status_code)


async def closed(ws: WebSocketConnection) -> int:
    try:
        while True:
            await ws.get_message()
    except ConnectionClosed as closed:
        return closed.reason.code if closed.reason else 0


def token(**changes: Any) -> str:
    claims = {"sub": "ada", "aud": AUDIENCE, "exp": time.time() + 600} | changes
    return jwt.encode(claims, SECRET, algorithm="HS256")
