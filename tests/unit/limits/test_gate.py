"""The gate in virtual time: its limits, and its replies to refused clients."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from lastcall.config import Settings
from lastcall.limits.gate import PROBE_PATHS, Gate, refusal_bytes, request_refused
from lastcall.limits.limit import Limit
from lastcall.limits.quota import Caller, Refusal
from lastcall.metrics import Metrics
from trio.testing import MockClock

from tests.support.refusals import refusals

AWAY = "203.0.113.7"


def gate(**changes: Any) -> tuple[Gate, Metrics]:
    metrics = Metrics(Limit)
    return Gate(replace(Settings(), **changes), metrics.count_refusal), metrics


async def test_by_default_this_machine_is_not_limited_and_others_are(autojump_clock: MockClock) -> None:
    doors, metrics = gate()
    assert all(doors.request("127.0.0.1", "/") is None for _ in range(10_000))
    assert [doors.request(AWAY, "/") is None for _ in range(501)] == [True] * 500 + [False]
    assert refusals(metrics, Limit.HTTP_RATE) == 1
    assert all(doors.request(AWAY, path) is None for path in PROBE_PATHS), "probes have a rate of their own"


async def test_a_limit_that_is_set_holds_for_this_machine_too() -> None:
    doors, metrics = gate(address_connections_max=1)
    first, second = doors.enter_socket("127.0.0.1"), doors.enter_socket("127.0.0.1")
    assert isinstance(first, Caller)
    assert isinstance(second, Refusal)
    first.leave()
    assert isinstance(doors.enter_socket("127.0.0.1"), Caller)
    assert refusals(metrics, Limit.ADDRESS_CONNECTIONS) == 1


async def test_http_connections_are_bounded_in_all_and_by_address() -> None:
    doors, metrics = gate()
    with ExitStack() as stack:
        mine = [stack.enter_context(doors.http_connection(AWAY)) for _ in range(40)]
        assert [each is None for each in mine] == [True] * 32 + [False] * 8
        here = [stack.enter_context(doors.http_connection("127.0.0.1")) for _ in range(Settings().http_connections_max)]
        assert sum(each is None for each in here) == Settings().http_connections_max - 40
    assert refusals(metrics, Limit.HTTP_CONNECTIONS) == 40
    with doors.http_connection(AWAY) as again:
        assert again is None


async def test_a_process_that_holds_too_much_memory_takes_no_sessions(autojump_clock: MockClock) -> None:
    doors, metrics = gate(memory_mib_max=1)
    assert doors.session(0) is Limit.MEMORY
    assert refusals(metrics, Limit.MEMORY) == 1
    assert gate()[0].session(0) is None


def test_http_connections_are_bounded_by_the_settings() -> None:
    doors = Gate(Settings(http_connections_max=3, address_http_connections_max=2), Metrics().count_refusal)
    with ExitStack() as stack:
        mine = [stack.enter_context(doors.http_connection("192.0.2.1")) for _ in range(3)]
        assert [each is None for each in mine] == [True, True, False]
        yours = [stack.enter_context(doors.http_connection("192.0.2.2")) for _ in range(2)]
        assert all(each is not None for each in yours)


# --- replies


@pytest.mark.parametrize("limit", Limit)
def test_a_refusal_is_the_same_error_in_place_of_the_upgrade_and_written_out(limit: Limit) -> None:
    """Over HTTP, in a handshake and before a byte is read. A 503 is the server's error, a 429 the client's."""
    refusal = Refusal(limit, 0.2)
    error = request_refused(refusal)
    overloaded = limit is Limit.HTTP_CONNECTIONS
    assert (error.status, error.type) == ((503, "server_error") if overloaded else (429, "invalid_request_error"))
    head, _, body = refusal_bytes(refusal).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status == ("HTTP/1.1 503 Service Unavailable" if overloaded else "HTTP/1.1 429 Too Many Requests")
    headers = dict(line.lower().split(": ") for line in lines)
    expected = {"content-length": str(len(body)), "connection": "close", "retry-after": "1"}
    assert headers == {**error.headers, **expected}
    assert body == error.body
    assert json.loads(body)["error"]["type"] == error.type
