"""HTTP connections end, whatever their clients do, and probes are answered meanwhile: the server in virtual time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from lastcall.limits.gate import PROBE_CONNECTIONS_MAX, PROBE_PATHS
from lastcall.listener import HTTP_STARTS_AT_ONCE_MAX, PROBE_STARTS_AT_ONCE_MAX
from lastcall.transport.http.http1 import CONNECTION_SECONDS, KEEP_ALIVE_SECONDS, LAST_REQUEST_SECONDS, HttpServer
from lastcall.transport.stream import LINGER_SECONDS
from lastcall.web.middleware import REQUEST_SECONDS

from tests.support.raw_wire import HANDSHAKE, SETTINGS, Stream, World, in_a_world

PLACES = 4
ROUTES = ["/healthz", "/readyz", "/metrics", "/", "/static/chat.js", "/static/none", "/none", "/openapi.json"]
ROUTES += ["/asyncapi.json", "/v1/memories", "/v1/conversations", "/v1/realtime", "/v1/realtime/client_secrets"]
SPARE_SECONDS = LINGER_SECONDS + 1.0  # from the end of an HTTP connection to its closed socket


def request(path: str = "/", *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def read_to_end(stream: Stream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


async def ask(world: World, data: bytes) -> bytes:
    """All that the server says to these bytes, until it ends the connection."""
    stream = world.dial()
    await stream.send_all(data)
    answer = await read_to_end(stream)
    await stream.aclose()
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


Scenario = Callable[[World], Awaitable[None]]


def play(scenario: Scenario, **changes: Any) -> None:
    """`changes` are settings."""

    async def and_leave(world: World) -> None:
        await scenario(world)
        await world.emptied()

    in_a_world(and_leave, **changes)


def in_places(scenario: Scenario) -> None:
    play(scenario, http_connections_max=PLACES)


@pytest.mark.parametrize("path", ROUTES)
def test_a_connection_ends_where_its_client_asks_for_it_or_is_idle(path: str) -> None:
    async def scenario(world: World) -> None:
        for headers, version, seconds in (
            (["Connection: close"], "1.1", 0.0),
            ([], "1.0", 0.0),
            ([], "1.1", KEEP_ALIVE_SECONDS),
        ):
            for method in ("GET", "HEAD", "OPTIONS", "POST"):
                began = trio.current_time()
                assert len(statuses(await ask(world, request(path, *headers, method=method, version=version)))) == 1
                assert trio.current_time() - began == pytest.approx(seconds, abs=0.5)

    play(scenario)


Attack = Callable[[Stream], Awaitable[None]]


async def asks_again_and_again(stream: Stream) -> None:
    while True:
        await stream.send_all(request("/healthz"))
        await trio.sleep(KEEP_ALIVE_SECONDS - 1)


async def sends_a_head_byte_by_byte(stream: Stream) -> None:
    while True:
        await stream.send_all(request("/healthz")[:-2])
        for letter in b"X-Padding: " + b"p" * 1_000:
            await stream.send_all(bytes([letter]))
            await trio.sleep(1)


async def sends_a_body_byte_by_byte(stream: Stream) -> None:
    await stream.send_all(request("/v1/realtime/client_secrets", "Content-Length: 100000", method="POST"))
    while True:
        await stream.send_all(b" ")
        await trio.sleep(1)


async def sends_bodies_without_end(stream: Stream) -> None:
    while True:
        await stream.send_all(request("/", "Content-Length: 20"))
        for _ in range(20):
            await stream.send_all(b" ")
            await trio.sleep(1)


async def sends_chunks_without_end(stream: Stream) -> None:
    await stream.send_all(request("/", "Transfer-Encoding: chunked"))
    while True:
        await stream.send_all(b"1\r\nx\r\n")
        await trio.sleep(1)


async def says_nothing_more(stream: Stream) -> None:
    await stream.send_all(request("/static/chat.js"))


async def pipelines_without_reading(stream: Stream) -> None:
    await stream.send_all(request("/static/chat.js") * 50)
    await trio.sleep_forever()


ATTACKS: list[Attack] = [
    asks_again_and_again,
    sends_a_head_byte_by_byte,
    sends_a_body_byte_by_byte,
    sends_bodies_without_end,
    sends_chunks_without_end,
    says_nothing_more,
    pipelines_without_reading,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_client_can_hold_its_connection(attack: Attack) -> None:
    async def scenario(world: World) -> None:
        stream = world.dial()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_it_breaks, attack, stream)
            while world.open > 1:
                await world.left.wait()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= CONNECTION_SECONDS + LAST_REQUEST_SECONDS + SPARE_SECONDS

    play(scenario)


async def until_it_breaks(attack: Attack, stream: Stream) -> None:
    try:
        await attack(stream)
    except trio.BrokenResourceError:
        await stream.aclose()


def test_a_request_after_a_minute_is_the_connections_last_and_says_so() -> None:
    async def scenario(world: World) -> None:
        stream, answers, began = world.dial(), b"", trio.current_time()
        while b"connection: close" not in answers:
            await stream.send_all(request("/healthz"))
            answers = b""
            while not answers.endswith(b"}"):
                answers += await stream.receive_some()
            await trio.sleep(KEEP_ALIVE_SECONDS - 1)
        assert trio.current_time() - began == pytest.approx(CONNECTION_SECONDS, abs=KEEP_ALIVE_SECONDS)
        assert await read_to_end(stream) == b""
        await stream.aclose()

    play(scenario)


# --- places


async def hold(world: World, data: bytes, connections: int) -> list[Stream]:
    streams = [world.dial() for _ in range(connections)]
    for stream in streams:
        await stream.send_all(data)
    await trio.testing.wait_all_tasks_blocked()
    return streams


HALF_A_BODY = request("/v1/realtime/client_secrets", "Content-Length: 10", method="POST")


def test_a_connection_that_is_idle_gives_its_place_to_one_that_asks() -> None:
    async def scenario(world: World) -> None:
        held = await hold(world, request(), PLACES)
        assert statuses(await ask(world, request("/static/chat.js", "Connection: close"))) == [200]
        for number, stream in enumerate(held):  # the first of them gave way, and only that one
            with trio.move_on_after(KEEP_ALIVE_SECONDS / 10) as waited:
                await read_to_end(stream)
            assert waited.cancelled_caught == (number > 0)
            await stream.aclose()

    in_places(scenario)


def test_probes_are_answered_while_others_use_up_the_connections() -> None:
    async def scenario(world: World) -> None:
        held = await hold(world, HALF_A_BODY, PLACES)
        assert statuses(await ask(world, request())) == [503]
        began = trio.current_time()
        for path in sorted(PROBE_PATHS):
            for method in ("GET", "HEAD"):
                answer = await ask(world, request(f"{path}?verbose", method=method))
                unready = 503 if path == "/readyz" else 200  # no lease in this world
                assert statuses(answer) == [unready]
                assert b'"code":"overloaded"' not in answer
                assert b"connection: close" in answer
        assert trio.current_time() - began < 1.0
        for stream in held:
            assert statuses(await read_to_end(stream)) == [408]
            await stream.aclose()
        assert statuses(await ask(world, request("/", "Connection: close"))) == [200]

    in_places(scenario)


@pytest.mark.parametrize("headers", [["Content-Length: 10"], ["Transfer-Encoding: chunked"]])
def test_a_probe_with_a_body_has_no_place_of_its_own(headers: list[str]) -> None:
    """Or its sender could hold these places too."""

    async def scenario(world: World) -> None:
        held = await hold(world, HALF_A_BODY, PLACES)
        assert statuses(await ask(world, request("/healthz", *headers))) == [503]
        assert statuses(await ask(world, request("/healthz", method="POST"))) == [503]
        await close(held)

    in_places(scenario)


def test_probes_that_nobody_reads_hold_no_places() -> None:
    async def scenario(world: World) -> None:
        held = await hold(world, HALF_A_BODY, PLACES)
        held += await hold(world, request("/healthz"), 4 * PROBE_CONNECTIONS_MAX)
        assert statuses(await ask(world, request("/healthz"))) == [200]
        await close(held)

    in_places(scenario)


async def close(streams: list[Stream]) -> None:
    for stream in streams:
        await stream.aclose()


def test_whoever_is_quick_gets_in_while_slow_heads_use_up_the_sockets() -> None:
    async def scenario(world: World) -> None:
        world._listener._sockets_max = PLACES
        held = await hold(world, request()[:-1], PLACES - 1)  # the last place is the bystander's
        assert statuses(await ask(world, request("/healthz", "Connection: close"))) == [200]
        await close(held)

    play(scenario)


# --- requests that two servers could read differently

PROBE = request("/healthz")
TWO_LENGTHS: dict[str, bytes] = {
    "both": request("/", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n"),
    "two": request("/", "Content-Length: 0", "Content-Length: 5", method="POST"),
    "list": request("/", "Content-Length: 0, 0", method="POST"),
    "plus": request("/", "Content-Length: +0", method="POST"),
    "old": request("/", "Transfer-Encoding: chunked", method="POST", version="1.0", body=b"0\r\n\r\n"),
    "coding": request("/", "Transfer-Encoding: chunked, identity", method="POST", body=b"0\r\n\r\n"),
    "fold": request("/", "X-One: 1", " Content-Length: 5", method="POST"),
    "space": request("/", "Content-Length : 0", method="POST"),
    "bare LF": request("/", "X-One: 1\nContent-Length: 0", method="POST"),
    "NUL": request("/", "X-One: 1\0", method="POST"),
}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        *(pytest.param(data, [400], id=name) for name, data in TWO_LENGTHS.items()),
        *(pytest.param(PROBE + data, [200, 400], id=f"{name}, second") for name, data in TWO_LENGTHS.items()),
        pytest.param(PROBE + HANDSHAKE, [200, 400], id="an upgrade, second"),
    ],
)
def test_a_request_with_two_readings_ends_its_connection(data: bytes, expected: list[int]) -> None:
    async def scenario(world: World) -> None:
        assert statuses(await ask(world, data + PROBE)) == expected

    play(scenario)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_body_is_a_body_whatever_the_method_is(method: str) -> None:
    async def scenario(world: World) -> None:
        for length in (f"Content-Length: {len(PROBE)}", "Transfer-Encoding: chunked"):
            body = PROBE if "Content" in length else b"%x\r\n%s\r\n0\r\n\r\n" % (len(PROBE), PROBE)
            data = request("/v1/memories", length, method=method, body=body)
            answer = await ask(world, data + request("/none", "Connection: close"))
            assert len(statuses(answer)) == 2
            assert statuses(answer)[1] == 404

    play(scenario)


def test_a_body_that_holds_an_upgrade_is_a_body() -> None:
    """Told by the answer: it is the API's, not the WebSocket's."""

    async def scenario(world: World) -> None:
        body = b"{}\r\nupgrade: websocket\r\n"
        headers = ("Connection: close", f"Content-Length: {len(body)}")
        answer = await ask(world, request("/v1/realtime/client_secrets", *headers, method="POST", body=body))
        assert b"Invalid body: JSON is malformed" in answer

    play(scenario)


@pytest.mark.parametrize(
    "handshake",
    [
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        HANDSHAKE.replace(b"\r\n\r\n", b"\r\nX-One: 1\r\n two\r\n\r\n"),
        HANDSHAKE.replace(b"\r\n", b"\n"),
        HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HANDSHAKE.replace(b"GET ", b"POST "),
    ],
)
def test_a_handshake_that_is_more_or_less_than_one_is_refused(handshake: bytes) -> None:
    async def scenario(world: World) -> None:
        assert statuses(await ask(world, handshake + PROBE)) == [400]
        assert world.rows_of("fuzz") == []

    play(scenario)


def test_who_waits_to_send_a_body_is_told_to() -> None:
    async def scenario(world: World) -> None:
        stream = world.dial()
        headers = ("Expect: 100-continue", "Content-Length: 2", "Connection: close")
        await stream.send_all(request("/v1/realtime/client_secrets", *headers, method="POST"))
        assert statuses(bytes(await stream.receive_some())) == [100]
        await stream.send_all(b"[]")
        assert statuses(await read_to_end(stream)) == [400]
        await stream.aclose()

    play(scenario)


def test_every_bound_of_a_connection_fits_the_next_one() -> None:
    assert LAST_REQUEST_SECONDS > REQUEST_SECONDS
    assert SETTINGS.handshake_seconds < CONNECTION_SECONDS


class Rounds(trio.abc.Instrument):
    """Counts the rounds of the loop."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


@pytest.mark.parametrize(("path", "at_once"), [("/", HTTP_STARTS_AT_ONCE_MAX), ("/healthz", PROBE_STARTS_AT_ONCE_MAX)])
def test_few_connections_begin_in_one_round_of_the_loop(
    path: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else sessions would wait for hundreds that begin at once, in each of the rounds that a turn takes."""
    rounds = Rounds()
    begun: list[int] = []
    serve = HttpServer.serve

    async def counted(self: HttpServer, stream: Any, *, single: bool = False) -> None:
        begun.append(rounds.number)
        await serve(self, stream, single=single)

    monkeypatch.setattr(HttpServer, "serve", counted)

    async def scenario(world: World) -> None:
        trio.lowlevel.add_instrument(rounds)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, world, request(path, "Connection: close"))
        trio.lowlevel.remove_instrument(rounds)

    play(scenario)
    assert len(begun) == 50
    assert max(Counter(begun).values()) <= at_once
