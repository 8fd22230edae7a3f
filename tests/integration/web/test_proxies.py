"""Proxies in front of a server: none without keys, and with keys only those that are trusted tell of clients."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog.testing
import trio
from lastcall import logs
from lastcall.auth import key_admin
from lastcall.auth.identity import Scope
from lastcall.store.postgres import PostgresStore
from lastcall.web.app import ROUTES
from starlette.routing import Route

from tests.support.nginx import run_nginx
from tests.support.operators import OPERATOR
from tests.support.servers import TestServer, open_server

ANSWER_SECONDS = 10.0
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
WEBSOCKETS = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;"
)
FORWARDS = "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
HEALTH = {"/healthz", "/readyz"}


class Answer:
    """The head and the beginning of the body of an answer."""

    def __init__(self, data: bytes) -> None:
        self.status = int(data.split()[1])
        self.data = data

    @property
    def error(self) -> Any:
        return json.loads(self.data.partition(b"\r\n\r\n")[2])["error"]


async def talk(stream: trio.SocketStream, data: bytes) -> Answer:
    """The answer to these bytes; of a WebSocket its opening."""
    received = b""
    with trio.fail_after(ANSWER_SECONDS):
        await stream.send_all(data)
        async for part in stream:
            received += part
            if is_complete(received):
                break
    return Answer(received)


def is_complete(received: bytes) -> bool:
    """nginx keeps its client's connection, whatever the server does with its own."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and (b" 101 " in head[:16] or (length is not None and len(body) >= int(length[1])))


@asynccontextmanager
async def dial(url: str, source: str | None = None) -> AsyncIterator[trio.SocketStream]:
    """A connection. source: the address of this machine that it comes from."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 0, local_address=source) as stream:
        yield stream


def request(path: str = "/v1/memories", headers: Mapping[str, str] | None = None, method: str = "GET") -> bytes:
    fields = {"Host": "localhost", **(headers or {})}
    fields.setdefault("Connection", "close")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def ask(url: str, data: bytes, source: str | None = None) -> Answer:
    async with dial(url, source) as stream:
        return await talk(stream, data)


async def new_key(store: PostgresStore) -> dict[str, str]:
    made = await key_admin.create_key(store, "ada", Scope.SERVICE, OPERATOR)
    return {"Authorization": f"Bearer {made.key}"}


# --- without keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["203.0.113.9", ""])
@pytest.mark.parametrize("name", ["X-FORWARDED-FOR", "Forwarded", "via", "X-Real-IP", "CF-Connecting-IP"])
async def test_without_keys_nobody_comes_in_through_a_proxy(server: TestServer, name: str, value: str) -> None:
    for path, headers in (("/v1/realtime?user=ada", HANDSHAKE), ("/v1/memories?user=ada", {}), ("/metrics", {})):
        answer = await ask(server.url, request(path, {**headers, name: value}))
        assert (answer.status, answer.error["code"]) == (403, "forbidden_proxy"), path
        assert name.lower() in answer.error["message"]
        assert "lastcall keys create" in answer.error["message"]
    assert not await server.store.select("SELECT FROM conversation_sessions")  # type: ignore[attr-defined]


async def test_without_keys_each_route_is_closed_to_proxies_but_those_of_health(server: TestServer) -> None:
    routes = [
        (route.path.replace("{path}", "chat.js"), route.methods or set())
        for route in ROUTES
        if isinstance(route, Route)
    ]
    assert len(routes) == len(ROUTES)
    for path, methods in routes:
        method = "POST" if "POST" in methods else "GET"
        answer = await ask(server.url, request(path, {"Via": "1.1 cache", "Content-Length": "0"}, method))
        assert (answer.status == 200) is (path in HEALTH), path
        assert answer.status in (200, 403)


async def test_a_proxy_of_an_older_http_is_one_too(server: TestServer) -> None:
    answer = await ask(server.url, request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (answer.status, answer.error["code"]) == (403, "forbidden_proxy")
    assert (await ask(server.url, request("/readyz").replace(b"HTTP/1.1", b"HTTP/1.0"))).status == 200


async def test_a_trusted_proxy_lets_nobody_in_either(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, trusted_proxy=("127.0.0.1",)) as server:
        assert (await ask(server.url, request(headers={"X-Forwarded-For": "127.0.0.1"}))).status == 403


async def test_the_log_says_once_in_a_while_why_a_proxy_is_refused(server: TestServer) -> None:
    logs.configure(json_logs=False, level="warning")
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            await ask(server.url, request(headers={"X-Forwarded-For": "x"}))
    refused = [line for line in lines if line["event"] == "proxied_request_refused"]
    assert [(line["sign"], line["peer"]) for line in refused] == [("x-forwarded-for", "127.0.0.1")]
    assert "lastcall keys create" in refused[0]["advice"]


@pytest.mark.parametrize(
    "first",
    [
        b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    ],
)
@pytest.mark.parametrize("rest", [b"", request()])
async def test_the_proxy_protocol_is_refused_in_words(server: TestServer, first: bytes, rest: bytes) -> None:
    answer = await ask(server.url, first + rest)
    assert answer.status == 400
    assert "PROXY protocol" in answer.error["message"]


@pytest.mark.parametrize("settings", ["", FORWARDS, WEBSOCKETS + FORWARDS, "proxy_set_header X-Real-IP $remote_addr;"])
async def test_without_keys_nobody_comes_in_through_nginx(server: TestServer, settings: str) -> None:
    with run_nginx(server.url, settings) as url:
        for path in ("/", "/v1/memories?user=ada", "/v1/conversations?user=ada"):
            assert (await ask(url, request(path))).status == 403
        assert (await ask(url, request("/v1/realtime?user=ada", HANDSHAKE))).status in (400, 403, 404)
        assert (await ask(url, request("/readyz"))).status == 200


# --- with keys --------------------------------------------------------------------------------------------------------


async def test_with_keys_the_headers_of_an_untrusted_peer_are_ignored(postgres_store: PostgresStore) -> None:
    """Each request pretends to come from elsewhere: all count for the peer's own address."""
    key = await new_key(postgres_store)
    async with open_server(postgres_store, address_requests_per_second=0.1) as server:
        answers = [
            await ask(
                server.url, request(headers={**key, "X-Forwarded-For": f"203.0.113.{number}", "Forwarded": "for="})
            )
            for number in range(3)
        ]
        assert [answer.status for answer in answers] == [200, 429, 429]


@pytest.mark.parametrize("header", ["X-Forwarded-For: {}", "Forwarded: for={}"])
async def test_behind_a_trusted_proxy_each_client_has_its_own_limits(
    postgres_store: PostgresStore, header: str
) -> None:
    name, _, form = header.partition(": ")
    key = await new_key(postgres_store)
    changes: dict[str, Any] = {"address_requests_per_second": 0.1, "address_connections_max": 2}
    async with open_server(postgres_store, trusted_proxy=("127.0.0.0/8",), **changes) as server:

        def of(address: str, **more: str) -> dict[str, str]:
            return {**key, name: form.format(address), **more}

        for address in ("203.0.113.1", "203.0.113.2"):
            answers = [await ask(server.url, request(headers=of(address))) for _ in range(2)]
            assert [answer.status for answer in answers] == [200, 429]
        async with dial(server.url) as first, dial(server.url) as second, dial(server.url) as third:
            opening = request("/v1/realtime", of("203.0.113.1", **HANDSHAKE))
            assert [(await talk(each, opening)).status for each in (first, second, third)] == [101, 101, 429]
            other = request("/v1/realtime", of("203.0.113.2", **HANDSHAKE))
            assert (await ask(server.url, other)).status == 101
        with trio.fail_after(ANSWER_SECONDS):  # the places are free again, once the server has seen their ends
            while (await ask(server.url, opening)).status != 101:
                await trio.lowlevel.checkpoint()


async def test_a_clients_address_cannot_be_forged_through_nginx(postgres_store: PostgresStore) -> None:
    key = await new_key(postgres_store)
    changes: dict[str, Any] = {"trusted_proxy": ("127.0.0.1",), "address_connections_max": 1}
    async with open_server(postgres_store, **changes) as server:
        with run_nginx(server.url, WEBSOCKETS + FORWARDS) as url:

            def opening(forged: str) -> bytes:
                return request("/v1/realtime", {**key, **HANDSHAKE, "X-Forwarded-For": forged})

            async with dial(url, "127.0.0.2") as first:
                assert (await talk(first, opening("203.0.113.1"))).status == 101
                assert (await ask(url, opening("203.0.113.2"), "127.0.0.2")).status == 429
                assert (await ask(url, opening("203.0.113.1"), "127.0.0.3")).status == 101
                forged = {**key, **HANDSHAKE, "Forwarded": "for=203.0.113.3"}
                refused = await ask(url, request("/v1/realtime", forged), "127.0.0.2")
                assert (refused.status, refused.error["code"]) == (400, "http_error")


@pytest.mark.parametrize(
    ("trusted", "origin", "status"),
    [
        (("127.0.0.1",), "https://chat.example", 101),
        (("127.0.0.1",), "http://chat.example", 403),  # a page of the same name that anybody in between can write
        (("127.0.0.1",), "https://localhost", 403),
        ((), "https://chat.example", 403),
        ((), "https://localhost", 101),
    ],
)
async def test_only_a_trusted_proxy_tells_which_origin_is_our_own(
    postgres_store: PostgresStore, trusted: tuple[str, ...], origin: str, status: int
) -> None:
    key = await new_key(postgres_store)
    told = {"X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "https", "Origin": origin}
    async with open_server(postgres_store, trusted_proxy=trusted) as server:
        assert (await ask(server.url, request("/v1/realtime", {**key, **HANDSHAKE, **told}))).status == status
        http = await ask(server.url, request(headers={**key, **told}))
        assert http.status == (200 if status == 101 else 403)


async def test_pages_come_through_a_proxy_once_there_is_a_key(postgres_store: PostgresStore) -> None:
    await new_key(postgres_store)
    async with open_server(postgres_store) as server, httpx2.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/", headers={"X-Forwarded-For": "203.0.113.1"})).status_code == 200
