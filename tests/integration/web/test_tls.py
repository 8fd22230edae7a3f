"""TLS: only the new and the whole of it, and the endings that hold without it hold within it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog.testing
import trio
import trustme
from lastcall import listener, logs
from lastcall.config import BadSettings, Settings
from lastcall.store.postgres import PostgresStore
from lastcall.transport.tls import tls_context
from openai import OpenAI
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.support.servers import TestServer, open_server
from tests.support.waiting import eventually

PATIENCE_SECONDS = 10.0


class Authority:
    """A certificate for this machine, and those who trust it."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key, self.root = (directory / name for name in ("cert.pem", "key.pem", "root.pem"))
        issued.private_key_pem.write_to_path(str(self.key))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(self.cert), append=True)
        self.ca.cert_pem.write_to_path(str(self.root))

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def server(postgres_store: PostgresStore, authority: Authority) -> AsyncIterator[TestServer]:
    async with open_server(
        postgres_store, tls_cert=authority.cert, tls_key=authority.key, handshake_seconds=1.0
    ) as running:
        yield running


async def dial(server: TestServer) -> trio.SocketStream:
    parts = urlsplit(server.url)
    return await trio.open_tcp_stream(str(parts.hostname), parts.port or 0)


class Caller:
    """A client whose TLS and TCP can be ended apart."""

    def __init__(self, ws: WebSocketConnection, raw: trio.SocketStream, session_id: str) -> None:
        self.ws = ws
        self.raw = raw
        self.session_id = session_id


@asynccontextmanager
async def call(server: TestServer, context: ssl.SSLContext) -> AsyncIterator[Caller]:
    raw = await dial(server)
    stream = trio.SSLStream(raw, context, server_hostname="localhost")
    try:
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, "localhost", "/v1/realtime?user=ada")
            session_id = json.loads(await ws.get_message())["session"]["id"].removeprefix("sess_")
            yield Caller(ws, raw, session_id)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(raw)


async def row(server: TestServer, caller: Caller) -> Any:
    store = server.store
    assert isinstance(store, PostgresStore)
    rows = await store.select(
        "SELECT is_active, end_reason, close_code FROM conversation_sessions WHERE session_id = $1::uuid",
        caller.session_id,
    )
    return rows[0]


async def test_the_ready_url_says_https(server: TestServer) -> None:
    assert server.url.startswith("https://127.0.0.1:")


async def test_http_is_served_within_tls(server: TestServer, authority: Authority) -> None:
    async with httpx2.AsyncClient(base_url=server.url, verify=authority.client()) as client:
        for _ in range(2):  # on one connection
            assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/v1/memories/")).headers["location"].startswith("https://")
        page = await client.get("/")
    assert page.status_code == 200
    assert "strict-transport-security" not in page.headers


async def test_the_official_client_holds_a_turn_over_wss(server: TestServer, authority: Authority) -> None:
    def turn() -> str:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="unused")
        options: Any = {"ssl": authority.client()}
        with client.realtime.connect(model="lastcall", websocket_connection_options=options) as connection:
            connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello over TLS"}]}
            )
            connection.response.create()
            for event in connection:
                if event.type == "response.done":
                    return str(event.response.status)
        return "nothing"

    assert await trio.to_thread.run_sync(turn) == "completed"


# --- the handshake ----------------------------------------------------------------------------------------------------


async def is_hung_up(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(PATIENCE_SECONDS):
        try:
            while await stream.receive_some(4096):
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 64, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b""]
)
async def test_a_client_without_tls_is_disconnected_in_time(
    server: TestServer, authority: Authority, first: bytes
) -> None:
    async with await dial(server) as stream, call(server, authority.client()) as bystander:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(first)
        assert await is_hung_up(stream)
        await bystander.ws.ping()


@asynccontextmanager
async def full(store: PostgresStore, authority: Authority) -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose address has no connection left."""
    settings: dict[str, Any] = {"tls_cert": authority.cert, "tls_key": authority.key, "address_connections_max": 1}
    async with (
        open_server(store, **settings) as server,
        call(server, authority.client()),
        httpx2.AsyncClient(base_url=server.url, verify=authority.client()) as client,
    ):
        yield client


async def test_an_address_with_too_many_connections_is_told_so_within_tls(
    postgres_store: PostgresStore, authority: Authority
) -> None:
    async with full(postgres_store, authority) as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_refusals_within_tls_cost_a_bounded_number_of_handshakes(
    postgres_store: PostgresStore, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REFUSED_HANDSHAKES_PER_SECOND", 0.001)
    async with full(postgres_store, authority) as client:
        assert (await client.get("/healthz")).status_code == 429
        with pytest.raises(httpx2.TransportError):
            await client.get("/healthz")


async def test_tls_below_1_2_is_refused(server: TestServer, authority: Authority) -> None:
    context = authority.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    stream = trio.SSLStream(await dial(server), context, server_hostname="localhost")
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_accepted_versions_close_with_close_notify(
    server: TestServer, authority: Authority, version: ssl.TLSVersion
) -> None:
    """A stream that is cut short would raise: the end of an answer must not be forged."""
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    stream = trio.SSLStream(await dial(server), context, server_hostname="localhost")
    await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := await stream.receive_some(4096):
        answer += chunk
    assert answer.endswith(b'{"status":"ok"}')
    assert stream.selected_alpn_protocol() is None
    await trio.aclose_forcefully(stream)


# --- endings ----------------------------------------------------------------------------------------------------------


async def test_a_clients_close_is_answered_and_ends_the_session(server: TestServer, authority: Authority) -> None:
    async with call(server, authority.client()) as caller:
        await caller.ws.aclose(4242)
        assert caller.ws.closed is not None
        ended = await eventually(lambda: row(server, caller), lambda row: not row["is_active"])
    assert (ended["end_reason"], ended["close_code"]) == ("client_closed", 4242)


@pytest.mark.parametrize("how", ["rst", "fin", "tls farewell"])
async def test_a_client_that_is_gone_without_a_close_frame_ends_at_once(
    server: TestServer, authority: Authority, how: str
) -> None:
    async with call(server, authority.client()) as caller:
        if how == "rst":
            caller.raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.raw.socket.close()
        elif how == "fin":
            await caller.raw.send_eof()
        else:
            await caller.ws._stream.aclose()
        ended = await eventually(lambda: row(server, caller), lambda row: not row["is_active"], within=2.0)
    assert (ended["end_reason"], ended["close_code"]) == ("client_lost", None)


async def close_code(ws: WebSocketConnection) -> int:
    try:
        while True:
            await ws.get_message()
    except ConnectionClosed as closed:
        return closed.reason.code if closed.reason else 0


async def test_a_shutdown_says_1012_and_takes_no_longer(server: TestServer, authority: Authority) -> None:
    async with call(server, authority.client()) as caller:
        began = trio.current_time()
        server.signals.begin()
        assert await close_code(caller.ws) == 1012
        await server.ended.wait()
        assert trio.current_time() - began < 3.0


async def test_the_last_words_arrive_though_the_client_goes_on_sending(
    server: TestServer, authority: Authority
) -> None:
    """Closing with unread input resets a socket, and the peer then loses what it has not read."""
    async with call(server, authority.client()) as caller, trio.open_nursery() as nursery:

        async def chatter() -> None:
            try:
                while True:
                    await caller.ws.send_message("x" * 10_000)
            except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(chatter)
        await caller.ws.send_message("y" * 2_000_000)
        with trio.fail_after(PATIENCE_SECONDS):
            assert await close_code(caller.ws) == 1009
        nursery.cancel_scope.cancel()


# --- a new certificate ------------------------------------------------------------------------------------------------


async def serial(server: TestServer, authority: Authority) -> str:
    """Of the certificate that a new connection gets."""
    stream = trio.SSLStream(await dial(server), authority.client(), server_hostname="localhost")
    await stream.do_handshake()
    certificate: Any = stream.getpeercert()
    await trio.aclose_forcefully(stream)
    return str(certificate["serialNumber"])


def replace_certificate(authority: Authority, into: Path) -> None:
    issued = authority.ca.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(into / "cert.pem"))
    issued.private_key_pem.write_to_path(str(into / "key.pem"))


async def test_a_new_certificate_is_for_new_connections(
    postgres_store: PostgresStore, authority: Authority, tmp_path: Path
) -> None:
    """Files that cannot be used, or not yet, change nothing; a later request tries again."""
    replace_certificate(authority, tmp_path)
    logs.configure(json_logs=False, level="info")
    settings: dict[str, Any] = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}

    async def reloaded() -> list[str]:
        return [each["event"] for each in logged if each["event"].startswith("certificate")]

    async with open_server(postgres_store, **settings) as server, call(server, authority.client()) as caller:
        first = await serial(server, authority)
        with structlog.testing.capture_logs() as logged:
            certificate = (tmp_path / "cert.pem").read_bytes()
            for wrong in (b"", b"no certificate", authority.cert.read_bytes()):
                logged.clear()
                (tmp_path / "cert.pem").write_bytes(wrong)
                server.signals.reload.set()
                await eventually(reloaded, lambda events: events == ["certificate_not_reloaded"])
                assert str(tmp_path) in next(each["error"] for each in logged if "error" in each)
                assert await serial(server, authority) == first
            (tmp_path / "cert.pem").write_bytes(certificate)
            logged.clear()
            replace_certificate(authority, tmp_path)
            server.signals.reload.set()
            await eventually(reloaded, lambda events: events == ["certificate_reloaded"])
        assert await serial(server, authority) != first
        await caller.ws.ping()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(Settings()) is None


def test_incomplete_or_mismatched_certificate_files_are_reported(authority: Authority, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(stranger))
    for settings, word in (
        (Settings(tls_key=authority.key), "go together"),
        (Settings(tls_cert=authority.cert, tls_key=stranger), "cannot use"),
        (Settings(tls_cert=stranger, tls_key=authority.key), "cannot use"),
        (Settings(tls_cert=authority.cert, tls_key=tmp_path / "none.pem"), "none.pem"),
    ):
        with pytest.raises(BadSettings, match=word):
            tls_context(settings)
