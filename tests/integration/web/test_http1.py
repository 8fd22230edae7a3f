"""HTTP on one accepted connection: real sockets, a clock that jumps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import structlog.testing
import trio
from lastcall.transport.http.http1 import (
    CONNECTION_SECONDS,
    HEAD_BYTES_MAX,
    KEEP_ALIVE_SECONDS,
    LAST_REQUEST_SECONDS,
    HttpServer,
)
from lastcall.web.middleware import BODY_BYTES_MAX, REQUEST_SECONDS, Bounded
from starlette.types import Message, Receive, Scope, Send
from trio.testing import MockClock, wait_all_tasks_blocked

GET = b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"
LAST_GET = b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
SEND_SECONDS = 10.0
PATIENCE_SECONDS = 3600.0  # of the jumping clock: far beyond every bound under test


class Replayed(trio.abc.HalfCloseableStream):
    """A socket whose first bytes were read by somebody else, and whose sends have a deadline."""

    def __init__(self, head: bytes, stream: trio.SocketStream) -> None:
        self._head = head
        self._stream = stream
        self.socket = stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        head, self._head = self._head, b""
        return head or bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(SEND_SECONDS) as deadline:
            await self._stream.send_all(data)
        if deadline.cancelled_caught:
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it was asked: `/hello`, `/echo` the body, `/large`, `/hang`, `/fail`, `/fail-late`."""
    path = scope["path"]
    body = b"hello"
    if path == "/echo":
        body = (await receive())["body"]
    elif path == "/large":
        body = b"x" * 1_000_000
    elif path == "/hang":
        await trio.sleep_forever()
    elif path == "/fail":
        raise RuntimeError("a secret")
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    if path == "/fail-late":
        raise RuntimeError("a secret")
    await send({"type": "http.response.body", "body": body})


@dataclass
class Running:
    """A server on a loopback port, and how many of its connections are still being served."""

    http: HttpServer
    address: tuple[str, int] = ("", 0)
    open: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            head = bytes(await stream.receive_some())
            await self.http.serve(Replayed(head, stream))
        finally:
            self.open -= 1
            self.changed.set()

    async def all_closed(self) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while self.open:
                await self.changed.wait()
                self.changed = trio.Event()


@pytest.fixture
def clock() -> MockClock:
    """Jumps over every wait in which nothing happens for a moment; the moment is for the kernel to deliver bytes."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    running = Running(HttpServer(Bounded(app)))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, running.serve, 0, host="127.0.0.1"))
        running.address = listeners[0].socket.getsockname()
        yield running
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(server: Running) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream(*server.address) as client:
        yield client


async def read_to_end(client: trio.SocketStream) -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        return b"".join([bytes(piece) async for piece in client])


async def read_until(client: trio.SocketStream, end: bytes) -> bytes:
    seen = b""
    with trio.fail_after(PATIENCE_SECONDS):
        while not seen.endswith(end):
            piece = await client.receive_some()
            assert piece, f"the connection ended after {seen!r}"
            seen += piece
    return seen


async def ask(server: Running, request: bytes) -> bytes:
    async with connected(server) as client:
        await client.send_all(request)
        return await read_to_end(client)


def error_of(answer: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return error


async def test_a_get_is_answered(server: Running) -> None:
    answer = await ask(server, LAST_GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nhello")


async def test_a_whole_url_in_the_request_line_reaches_the_same_path(server: Running) -> None:
    """On a connection's first request and on later ones; one that names another host is refused."""
    async with connected(server) as client:
        for body in (b"first", b"second"):
            await client.send_all(
                b"POST http://test/echo?x HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            assert (await read_until(client, body)).startswith(b"HTTP/1.1 200 ")
        await client.send_all(b"GET http://other/hello HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await read_to_end(client)).startswith(b"HTTP/1.1 400 ")


async def test_the_answer_does_not_name_the_server_software(server: Running) -> None:
    assert b"hypercorn" not in (await ask(server, LAST_GET)).lower()


async def test_a_post_reaches_the_app_with_its_whole_body(server: Running) -> None:
    body = b"y" * 200_000
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert (await ask(server, head + body)).endswith(b"\r\n\r\n" + body)


async def test_two_requests_are_answered_on_one_connection(server: Running) -> None:
    async with connected(server) as client:
        for _ in range(2):
            await client.send_all(GET)
            assert (await read_until(client, b"hello")).startswith(b"HTTP/1.1 200 ")
    await server.all_closed()


async def test_a_pipelined_pair_is_answered_in_order(server: Running) -> None:
    second = b"POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nagain"
    answer = await ask(server, GET + second)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.index(b"\r\n\r\nhello") < answer.index(b"\r\n\r\nagain")


@pytest.mark.parametrize("more", [GET, b"\r\n", b"\0"], ids=["a request", "an empty line", "no HTTP"])
async def test_what_follows_the_last_request_is_ignored(server: Running, more: bytes) -> None:
    answer = await ask(server, LAST_GET + more)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"hello")


async def test_trailers_with_a_bare_line_end_are_no_end_of_a_body(server: Running, clock: MockClock) -> None:
    post = b"POST /hello HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n"
    assert (await ask(server, post + b"A: b\r\n\r\n" + LAST_GET)).count(b"HTTP/1.1 200 ") == 2
    assert b" 200 " not in await ask(server, post + b"A: b\n\n" + LAST_GET)


async def test_a_head_request_gets_the_headers_without_the_body(server: Running) -> None:
    answer = await ask(server, LAST_GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 5" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_leaves_after_half_a_head_is_forgotten_at_once(server: Running, clock: MockClock) -> None:
    before = trio.current_time()
    assert await ask_and_leave(server, GET[:20]) == b""
    await server.all_closed()
    assert trio.current_time() - before < KEEP_ALIVE_SECONDS


async def ask_and_leave(server: Running, request: bytes) -> bytes:
    async with connected(server) as client:
        await client.send_all(request)
        await client.send_eof()
        return (await read_to_end(client)).partition(b"HTTP/1.1 400")[0]


@pytest.mark.parametrize("request_begun", [GET[:20], GET], ids=["half a head", "an answered request"])
async def test_a_silent_client_is_disconnected_after_the_keep_alive_time(
    server: Running, clock: MockClock, request_begun: bytes
) -> None:
    before = trio.current_time()
    await ask(server, request_begun)
    await server.all_closed()
    assert KEEP_ALIVE_SECONDS <= trio.current_time() - before < KEEP_ALIVE_SECONDS + 2


async def test_an_app_that_listens_for_the_clients_end_is_not_cut_short(clock: MockClock) -> None:
    """Starlette's FileResponse cancels its own `send` then, in which Hypercorn closes or reuses the connection."""

    async def listening_app(scope: Scope, receive: Receive, send: Send) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone)
            await app(scope, receive, send)
            nursery.cancel_scope.cancel()

    ours, theirs = await loopback_pair()
    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(HttpServer(Bounded(listening_app)).serve, Replayed(GET + LAST_GET, ours))
        before = trio.current_time()
        assert (await read_to_end(theirs)).count(b"HTTP/1.1 200 ") == 2
        assert trio.current_time() - before < KEEP_ALIVE_SECONDS


async def test_a_connection_has_a_last_moment_whatever_its_app_does(clock: MockClock) -> None:
    ours, theirs = await loopback_pair()
    async with theirs, trio.open_nursery() as nursery:
        before = trio.current_time()
        nursery.start_soon(HttpServer(app).serve, Replayed(GET.replace(b"/hello", b"/hang"), ours))
        await read_to_end(theirs)
        assert trio.current_time() - before == pytest.approx(CONNECTION_SECONDS + LAST_REQUEST_SECONDS, abs=2)


async def test_a_stalled_client_is_disconnected_after_the_send_deadline(server: Running, clock: MockClock) -> None:
    before = trio.current_time()
    async with connected(server) as client:
        await client.send_all(GET.replace(b"/hello", b"/large") * 20)
        await server.all_closed()
    assert SEND_SECONDS <= trio.current_time() - before < SEND_SECONDS + KEEP_ALIVE_SECONDS + 2


async def test_a_head_that_is_too_large_is_refused(server: Running) -> None:
    padding = b"X-Padding: " + b"p" * HEAD_BYTES_MAX + b"\r\n"
    answer = await ask(server, GET[:-2] + padding)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("path", [b"/echo", b"/hello"], ids=["the app reads it", "the app does not read it"])
async def test_a_body_that_is_too_large_is_refused_with_413(server: Running, clock: MockClock, path: bytes) -> None:
    size = BODY_BYTES_MAX + 1
    head = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % (path, size)
    answer = await ask(server, head + b"z" * size)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert error_of(answer)["code"] == "body_too_large"
    await server.all_closed()


async def test_a_length_that_is_too_large_is_refused_before_the_body(server: Running, clock: MockClock) -> None:
    before = trio.current_time()
    answer = await ask(server, b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 999999999999\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert trio.current_time() - before < REQUEST_SECONDS / 2
    await server.all_closed()


async def test_a_body_that_never_ends_does_not_hold_the_connection(server: Running, clock: MockClock) -> None:
    async with connected(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(send_without_end, client)
        await server.all_closed()
        nursery.cancel_scope.cancel()


async def send_without_end(client: trio.SocketStream) -> None:
    await client.send_all(b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        while True:
            await client.send_all(b"10000\r\n" + b"z" * 0x10000 + b"\r\n")
    except trio.BrokenResourceError:
        await trio.sleep_forever()


async def test_an_unread_body_in_many_pieces_keeps_the_connection_alive(server: Running) -> None:
    chunks = b"1\r\nz\r\n" * 50 + b"0\r\n\r\n"
    post = b"POST /hello HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    assert (await ask(server, post + LAST_GET)).count(b"HTTP/1.1 200 ") == 2


async def test_a_body_that_does_not_arrive_is_answered_with_408(server: Running, clock: MockClock) -> None:
    before = trio.current_time()
    answer = await ask(server, b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert trio.current_time() - before == pytest.approx(REQUEST_SECONDS, abs=2)
    await server.all_closed()


async def test_an_app_that_does_not_answer_is_given_up_with_503(server: Running, clock: MockClock) -> None:
    answer = await ask(server, GET.replace(b"/hello", b"/hang"))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert error_of(answer)["code"] == "timeout"


@pytest.mark.parametrize("path", [b"/fail", b"/fail-late"])
async def test_an_exception_of_the_app_is_logged_and_not_told(server: Running, path: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await ask(server, GET.replace(b"/hello", path))
    assert b"secret" not in answer
    assert [(entry["event"], entry["path"]) for entry in logs] == [("http_request_failed", path.decode())]
    assert answer.startswith(b"HTTP/1.1 500 ") == (path == b"/fail")


async def test_stop_ends_idle_connections_at_once(server: Running, clock: MockClock) -> None:
    async with connected(server) as client:
        await client.send_all(GET)
        await read_until(client, b"hello")
        before = trio.current_time()
        await server.http.stop()
        assert await read_to_end(client) == b""
        await server.all_closed()
    assert trio.current_time() - before < KEEP_ALIVE_SECONDS


async def test_stop_lets_a_running_request_finish_and_then_closes(server: Running) -> None:
    async with connected(server) as client:
        await client.send_all(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nla")
        await wait_all_tasks_blocked(0.01)
        await server.http.stop()
        await client.send_all(b"st")
        assert (await read_to_end(client)).endswith(b"\r\n\r\nlast")


async def test_stop_has_the_first_request_of_a_connection_answered(server: Running, clock: MockClock) -> None:
    """Whoever was accepted is not refused. One that never ends its request is closed after a moment."""
    async with connected(server) as early, connected(server) as silent:
        for client in (early, silent):
            await client.send_all(GET[:5])
        await wait_all_tasks_blocked(0.01)
        await server.http.stop()
        async with connected(server) as late:  # accepted before, served only now
            await late.send_all(GET)
            assert b"200" in (await read_to_end(late)).partition(b"\r\n")[0]
        await early.send_all(GET[5:])
        assert b"200" in (await read_to_end(early)).partition(b"\r\n")[0]
        assert b"200" not in await read_to_end(silent)
        await server.all_closed()


async def test_cancelling_a_connection_does_not_wait_for_a_stalled_client(clock: MockClock) -> None:
    ours, theirs = await loopback_pair()
    async with theirs:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                flood = Replayed(GET.replace(b"/hello", b"/large") * 20, ours)
                nursery.start_soon(HttpServer(Bounded(app)).serve, flood)
                await wait_all_tasks_blocked(0.05)
                before = trio.current_time()
                scope.cancel()
        assert trio.current_time() - before < SEND_SECONDS / 2
        assert ours.socket.fileno() == -1


async def loopback_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        theirs = await trio.open_tcp_stream(*listener.socket.getsockname())
        return await listener.accept(), theirs


async def test_an_upgrade_to_http2_is_ignored(server: Running) -> None:
    upgrade = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    answer = await ask(server, GET[:-2] + upgrade)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"hello")


async def test_http2_without_asking_ends_the_connection(server: Running, clock: MockClock) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    answer = await ask(server, preface)
    assert answer.startswith(b"HTTP/1.1 ")
    await server.all_closed()


@pytest.mark.parametrize(
    "request_bytes", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"]
)
async def test_bytes_that_are_no_http_are_refused(server: Running, clock: MockClock, request_bytes: bytes) -> None:
    answer = await ask(server, request_bytes)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    await server.all_closed()


async def test_a_refusal_goes_out_although_the_unread_body_fills_the_queue(autojump_clock: MockClock) -> None:
    put, take = trio.open_memory_channel[Message](10)
    answered = []

    async def feed() -> None:
        while True:
            await put.send({"type": "http.request", "body": b"z" * 0x10000, "more_body": True})

    async def send(message: Message) -> None:
        answered.append(message.get("status"))
        for _ in range(50):  # the queue fills up meanwhile
            await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body":
            await put.send({"type": "http.disconnect"})  # as Hypercorn does at the end of an answer

    with trio.fail_after(REQUEST_SECONDS / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            await Bounded(app)({"type": "http", "method": "POST", "path": "/echo", "headers": []}, take.receive, send)
            nursery.cancel_scope.cancel()
    assert answered == [413, None]
