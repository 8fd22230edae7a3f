"""Deliveries over real sockets: to receivers that accept, and to those that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import pytest
import trio
from lastcall.metrics import Metrics
from lastcall.protocol.ids import public_id
from lastcall.store.errors import StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.webhooks.endpoints import DeliveryReport, list_deliveries, queue_test, retry_deliveries
from lastcall.webhooks import deliverer, sending, watch
from lastcall.webhooks.adding import AddedEndpoint, add_webhook
from lastcall.webhooks.deliverer import open_deliverer

from tests.support.clients import connect
from tests.support.operators import OPERATOR
from tests.support.servers import open_server
from tests.support.waiting import eventually
from tests.support.webhook_receiver import Behaviour, Receiver, answer, close, open_receiver

SEND_SECONDS = 0.4
LIST_MAX = 100
IN_TIME = 20.0  # authorities are read first, which takes seconds on a busy machine
DUE = "UPDATE webhook_deliveries SET due_at = now()"


@pytest.fixture(autouse=True)
def in_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sending, "SEND_SECONDS", SEND_SECONDS)
    monkeypatch.setattr(sending, "BODY_SECONDS", 0.1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


@pytest.fixture
async def endpoint(postgres_store: PostgresStore, receiver: Receiver) -> AddedEndpoint:
    return await add_webhook(postgres_store, receiver.url, OPERATOR)


async def queue(store: PostgresStore, endpoint_id: UUID, count: int = 1) -> None:
    for _ in range(count):
        await queue_test(store, endpoint_id, OPERATOR)


async def once(store: PostgresStore, state: str, count: int = 1, **wanted: Any) -> Sequence[DeliveryReport]:
    """The deliveries, once so many are in this state."""

    async def look() -> Sequence[DeliveryReport]:
        return await list_deliveries(store, LIST_MAX, **wanted)

    return await eventually(look, lambda found: sum(each.state == state for each in found) == count, within=IN_TIME)


async def once_tried(store: PostgresStore) -> DeliveryReport:
    async def look() -> Sequence[DeliveryReport]:
        return await list_deliveries(store, 1)

    return (await eventually(look, lambda found: found[0].error is not None or found[0].state != "pending"))[0]


async def test_a_session_that_ends_is_reported_with_a_signature_that_others_verify(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint
) -> None:
    async with open_server(postgres_store) as server, open_deliverer(postgres_store, Metrics()):
        async with connect(server.url, user="ada") as client:
            await client.ask("My name is Ada.")
            session_id = client.created["session"]["id"]
        await eventually(receiver.count, lambda count: count == 2)
        rows = await once(postgres_store, "delivered", 2)
    for received in receiver.received:
        received.verify(endpoint.secret)
        assert received.headers["content-type"] == "application/json"
        assert received.path == "/hook"
        with pytest.raises(ValueError, match="signature"):
            received.verify(endpoint.secret[:-6] + "AAAAA=")
    events = {received.event["type"]: received.event["data"] for received in receiver.received}
    assert set(events) == {"session.ended", "memory.done"}
    assert {data["session_id"] for data in events.values()} == {session_id}
    assert events["memory.done"]["memories"] == 1
    assert {received.id for received in receiver.received} == {public_id("msg", row.event_id) for row in rows}
    assert {(row.status, row.attempts, row.error) for row in rows} == {(204, 1, None)}


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Accepts, and then says more than anybody reads."""
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
    handler.close_connection = True


def torn(handler: BaseHTTPRequestHandler) -> None:
    """Accepts, announces a body, and closes."""
    handler.send_response(200)
    handler.send_header("content-length", "100")
    handler.end_headers()
    handler.close_connection = True


def unfinished(handler: BaseHTTPRequestHandler) -> None:
    """Accepts, announces a body, and says nothing more until its client has gone."""
    torn(handler)
    handler.wfile.flush()
    handler.rfile.read(1)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """Accepts, and sends its body a byte at a time, so that no read takes long, until its client has gone."""
    handler.send_response(200)
    handler.send_header("content-length", "10000")
    handler.end_headers()
    never = threading.Event()
    with suppress(OSError):
        while not never.wait(SEND_SECONDS / 20):
            handler.wfile.write(b"x")
    handler.close_connection = True


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    "behave",
    [answer(200, b"ok"), endless, torn, unfinished, dripping],
    ids=["whole", "endless", "torn", "unfinished", "dripping"],
)
async def test_an_answer_of_2xx_counts_whatever_its_body_does(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint, behave: Behaviour
) -> None:
    receiver.behave = behave
    await queue(postgres_store, endpoint.endpoint_id)
    async with open_deliverer(postgres_store, Metrics()):
        assert (await once_tried(postgres_store)).state == "delivered"


BAD: dict[str, tuple[Behaviour | None, str]] = {
    "500": (answer(500, b"x" * 100_000), "HTTP 500"),
    "redirects": (answer(307, location="http://127.0.0.1:1/"), "redirects are not followed"),
    "closes": (close, "disconnected"),
    "no HTTP": (garbage, "Error"),
    "hangs": (None, "no answer within"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_whatever_a_receiver_does_it_is_tried_again_with_the_same_id(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint, kind: str
) -> None:
    behave, error = BAD[kind]
    receiver.behave = behave or receiver.hold
    await queue(postgres_store, endpoint.endpoint_id)
    metrics = Metrics()
    async with open_deliverer(postgres_store, metrics):
        tried = await once_tried(postgres_store)
        assert (tried.state, tried.attempts) == ("pending", 1)
        assert error in (tried.error or "")
        receiver.behave = answer(204)
        assert await retry_deliveries(postgres_store, OPERATOR) == 0, "its first wait is shorter than a claim"
        await postgres_store.select(DUE)
        await once(postgres_store, "delivered")
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert metrics.registry.get_sample_value("lastcall_webhook_tries_total", {"result": "retried"}) == 1
    assert metrics.registry.get_sample_value("lastcall_webhook_tries_total", {"result": "delivered"}) == 1


async def test_a_receiver_that_is_not_there_is_tried_again_until_it_is(postgres_store: PostgresStore) -> None:
    with open_receiver() as gone:
        endpoint = await add_webhook(postgres_store, gone.url, OPERATOR)
    await queue(postgres_store, endpoint.endpoint_id)
    async with open_deliverer(postgres_store, Metrics()):
        assert "ConnectError" in ((await once_tried(postgres_store)).error or "")
        with open_receiver(gone.port) as back:
            await postgres_store.select(DUE)
            await once(postgres_store, "delivered")
            assert len(back.received) == 1


async def test_an_endpoint_that_hangs_holds_up_no_other_and_once_it_fails_is_asked_one_at_a_time(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", 20.0)
    receiver.behave = receiver.hold
    with open_receiver() as good:
        other = await add_webhook(postgres_store, good.url, OPERATOR)
        await queue(postgres_store, endpoint.endpoint_id, 8)
        await queue(postgres_store, other.endpoint_id, 20)
        async with open_deliverer(postgres_store, Metrics()):
            await once(postgres_store, "delivered", 20, endpoint_id=other.endpoint_id)
            assert receiver.busy == len(receiver.received) == sending.ENDPOINT_SENDS_MAX
            held, receiver.released = receiver.released, threading.Event()
            held.set()
            await eventually(receiver.count, lambda count: count == sending.ENDPOINT_SENDS_MAX + 1)
            await queue(postgres_store, other.endpoint_id, 20)
            await once(postgres_store, "delivered", 40, endpoint_id=other.endpoint_id)
            assert receiver.busy == 1
        assert len({received.id for received in good.received}) == len(good.received) == 40


async def test_of_two_servers_one_delivers_each(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint
) -> None:
    await queue(postgres_store, endpoint.endpoint_id, 40)
    async with open_deliverer(postgres_store, Metrics()), open_deliverer(postgres_store, Metrics()):
        await once(postgres_store, "delivered", 40)
    assert len({received.id for received in receiver.received}) == len(receiver.received) == 40


async def test_a_shutdown_gives_back_what_is_being_sent(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint
) -> None:
    receiver.behave = receiver.hold
    await queue(postgres_store, endpoint.endpoint_id)
    with trio.fail_after(5):
        async with open_deliverer(postgres_store, Metrics()):
            await eventually(receiver.count, bool)
    receiver.released.set()
    receiver.behave = answer(204)
    async with open_deliverer(postgres_store, Metrics()):
        (delivered,) = await once(postgres_store, "delivered")
    assert delivered.attempts == 1


async def test_a_client_that_cannot_be_made_stops_no_server(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.example")
    monkeypatch.setattr(deliverer, "BROKEN_SECONDS", 0.02)
    await queue(postgres_store, endpoint.endpoint_id)
    async with open_deliverer(postgres_store, Metrics()):
        await eventually(lambda: list_deliveries(postgres_store, 1), lambda found: found[0].attempts == 1)
        monkeypatch.delenv("HTTPS_PROXY")
        await eventually(
            lambda: postgres_store.select(
                "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending' RETURNING 1"
            ),
            lambda pending: not pending,
        )
    assert receiver.received


async def test_an_outage_of_the_database_is_waited_for(
    postgres_store: PostgresStore, receiver: Receiver, endpoint: AddedEndpoint
) -> None:
    class Away:
        def __init__(self) -> None:
            self.asked = 0

        async def fetch(self, query: str, *args: object) -> list[Any]:
            self.asked += 1
            if self.asked < 10:
                raise StoreUnavailable("away")
            return await postgres_store.fetch(query, *args)

    await queue(postgres_store, endpoint.endpoint_id)
    async with open_deliverer(Away(), Metrics()):
        await once(postgres_store, "delivered")


async def test_the_backlog_is_a_metric(
    postgres_store: PostgresStore, endpoint: AddedEndpoint, receiver: Receiver
) -> None:
    receiver.behave = answer(500)
    await queue(postgres_store, endpoint.endpoint_id, 3)
    await postgres_store.select("UPDATE webhook_deliveries SET created_at = now() - interval '1 hour', attempts = 11")
    metrics = Metrics()
    async with open_deliverer(postgres_store, metrics):

        async def oldest() -> float:
            return metrics.registry.get_sample_value("lastcall_webhook_oldest_seconds") or 0.0

        assert await eventually(oldest, bool) == pytest.approx(3600, abs=30)
        assert metrics.registry.get_sample_value("lastcall_webhooks_pending") == 3
        await once(postgres_store, "failed", 3)
