"""The gate over real sockets: refused clients get an immediate reply and leave nothing behind."""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
import trio
from lastcall.config import Settings
from lastcall.limits import descriptors
from lastcall.limits.descriptors import SOCKETS_MIN, SPARE_DESCRIPTORS, socket_allowance
from lastcall.limits.limit import SPARE_SOCKETS
from lastcall.runtime.check import CheckStatus
from lastcall.store.postgres import PostgresStore

from tests.support.clients import connect
from tests.support.raw_wire import HANDSHAKE
from tests.support.refusals import answer_to, sessions
from tests.support.servers import open_server
from tests.support.waiting import eventually

REFUSED_SECONDS = 0.5
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("data", [HANDSHAKE, GET, b""])
async def test_an_address_with_too_many_connections_gets_429_and_no_row(
    postgres_store: PostgresStore, data: bytes
) -> None:
    async with open_server(postgres_store, address_connections_max=2) as server, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(connect(server.url))
        status, headers, error = await answer_to(server.url, data)
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["retry-after"]) >= 1
        assert await sessions(postgres_store) == 2


async def is_refused(url: str) -> bool:
    """Whether a silent connection gets an immediate refusal."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
        with trio.move_on_after(REFUSED_SECONDS):
            return bool(await stream.receive_some())
    return False


async def test_an_address_may_come_again_once_it_has_left(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, address_connections_max=1) as server:
        async with connect(server.url):
            assert await is_refused(server.url)
        assert not await eventually(lambda: is_refused(server.url), lambda refused: not refused)


async def test_an_address_that_connects_too_often_gets_429(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, address_connections_per_second=0.1) as server:
        async with connect(server.url):
            status, headers, _ = await answer_to(server.url, HANDSHAKE)
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 10


async def test_an_address_beyond_its_request_rate_gets_429_and_a_closed_connection(
    postgres_store: PostgresStore,
) -> None:
    async with open_server(postgres_store, address_requests_per_second=0.2) as server:
        status, headers, error = await answer_to(server.url, GET * 3)
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        assert (headers["retry-after"], headers["connection"]) == ("5", "close")
        async with connect(server.url) as client:
            await client.ask("Still there?")


def test_where_files_are_few_there_are_fewer_sockets_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(connections_max=100)
    for have, sockets, status in (
        (10_000, 100 + SPARE_SOCKETS, CheckStatus.OK),
        (SPARE_DESCRIPTORS + 50, 50, CheckStatus.WARN),
        (10, SOCKETS_MIN, CheckStatus.WARN),
    ):
        monkeypatch.setattr(descriptors, "allow_descriptors", lambda _wanted, have=have: have)
        allowance = socket_allowance(settings)
        assert (allowance.sockets, allowance.check.status) == (sockets, status)
