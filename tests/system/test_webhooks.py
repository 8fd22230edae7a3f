"""Webhooks of server processes that are killed: every closed session is reported, and duplicates carry the same id."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio

from ..support.clients import connect
from ..support.databases import new_database, psql
from ..support.lastcall_command import Lastcall
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually
from ..support.webhook_receiver import Received, Receiver, answer, open_receiver

pytestmark = pytest.mark.slow

IN_TIME = 20.0
KILLS = 3
CLIENTS = 12
UNSENT = (
    "SELECT (SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered')"
    " + (SELECT count(*) FROM conversation_sessions WHERE is_active)"
)
ENDED = "SELECT 'sess_' || replace(session_id::text, '-', '') FROM conversation_sessions WHERE NOT is_active"
# The claims of servers that were killed run out in 30 s: the test waits for no clock.
RUN_OUT = "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending' AND due_at > now()"


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    with new_database(database_url) as url:
        yield url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


@pytest.fixture
def secret(lastcall: Lastcall, url: str, receiver: Receiver) -> str:
    """Of an endpoint that was added before any server runs."""
    added = lastcall("webhooks", "add", receiver.url, "--events", "session.ended", "--database-url", url)
    assert added.code == 0, added.err
    return added.out.strip()


def kill(server: ServerProcess) -> None:
    server.process.kill()
    server.process.wait(IN_TIME)


async def talk(*servers: ServerProcess, clients: int = 1) -> None:
    """Sessions that end by themselves, spread over servers."""
    async with AsyncExitStack() as open_clients:
        for number in range(clients):
            server = servers[number % len(servers)]
            client = await open_clients.enter_async_context(connect(server.url, user=f"user-{number}"))
            await client.ask("hello")


async def all_sent(url: str) -> None:
    async def look() -> str:
        await trio.to_thread.run_sync(psql, url, RUN_OUT)
        return await trio.to_thread.run_sync(psql, url, UNSENT)

    await eventually(look, lambda unsent: unsent == "0", within=IN_TIME)


def test_what_a_killed_server_was_sending_is_sent_by_the_next_one_with_the_same_id(
    url: str, receiver: Receiver, secret: str
) -> None:
    receiver.behave = receiver.hold
    with run_server("--database-url", url, "--agent", "echo") as server:
        trio.run(lambda: talk(server))
        trio.run(lambda: eventually(receiver.count, bool, within=IN_TIME))
        kill(server)
    receiver.behave = answer(204)
    with run_server("--database-url", url, "--agent", "echo"):
        trio.run(all_sent, url)
    first, *others = receiver.received
    assert others
    assert {(each.id, each.body) for each in others} == {(first.id, first.body)}
    first.verify(secret)
    assert [first.event["data"]["session_id"]] == psql(url, ENDED).splitlines()


def test_sessions_of_a_killed_server_are_reported_once_the_next_has_closed_them(
    url: str, receiver: Receiver, secret: str
) -> None:
    async def scene(server: ServerProcess) -> str:
        async with connect(server.url, user="ada") as client:
            await client.ask("hello")
            kill(server)
            return str(client.created["session"]["id"])

    with run_server("--database-url", url, "--agent", "echo") as server:
        session_id = trio.run(scene, server)
    assert receiver.received == []
    with run_server("--database-url", url, "--agent", "echo"):
        trio.run(lambda: eventually(receiver.count, bool, within=IN_TIME))
    (received,) = receiver.received
    data = received.event["data"]
    assert (data["session_id"], data["end_reason"], data["user"]) == (session_id, "owner_died", "ada")


def test_a_shutdown_reports_the_sessions_that_it_ends(url: str, receiver: Receiver, secret: str) -> None:
    """By itself where there is time, else by whoever runs next."""

    async def scene(server: ServerProcess) -> None:
        async with connect(server.url, user="ada") as client:
            server.process.send_signal(signal.SIGTERM)
            await client.closed()

    with run_server("--database-url", url, "--agent", "echo") as server:
        trio.run(scene, server)
        assert server.process.wait(IN_TIME) == 0
    with run_server("--database-url", url, "--agent", "echo"):
        trio.run(all_sent, url)
    (received,) = receiver.received
    assert received.event["data"]["end_reason"] == "shutdown"


def test_under_kills_and_a_moody_receiver_every_closed_session_is_reported(
    url: str, receiver: Receiver, secret: str
) -> None:
    """Of two servers, one is killed again and again while sessions end; the receiver fails every third time."""
    behaviours = [answer(204), answer(500), answer(204)]
    lock = threading.Lock()
    turns = iter(range(10**9))

    def moody(handler: object) -> None:
        with lock:
            turn = next(turns)
        behaviours[turn % len(behaviours)](handler)  # type: ignore[arg-type]

    async def scene(steady: ServerProcess, doomed: ServerProcess) -> None:
        async with AsyncExitStack() as open_clients:
            for number in range(CLIENTS):
                client = await open_clients.enter_async_context(connect(doomed.url, user=f"doomed-{number}"))
                await client.ask("hello")
            async with trio.open_nursery() as ending:
                ending.start_soon(lambda: talk(steady, clients=CLIENTS))
                kill(doomed)

    receiver.behave = moody
    with run_server("--database-url", url, "--agent", "echo") as steady:
        for _ in range(KILLS):
            with run_server("--database-url", url, "--agent", "echo") as doomed:
                trio.run(lambda: talk(steady, doomed, clients=CLIENTS))
                trio.run(scene, steady, doomed)
        trio.run(
            lambda: eventually(
                lambda: trio.to_thread.run_sync(
                    psql, url, "SELECT count(*) FROM conversation_sessions WHERE is_active"
                ),
                lambda active: active == "0",
                within=IN_TIME,
            )
        )
        trio.run(all_sent, url)
    ended = psql(url, ENDED).splitlines()
    by_session: dict[str, list[Received]] = defaultdict(list)
    for each in receiver.received:
        by_session[each.event["data"]["session_id"]].append(each)
    assert len(ended) == KILLS * CLIENTS * 3
    assert set(by_session) == set(ended)
    for tries in by_session.values():
        assert len({(each.id, each.body) for each in tries}) == 1
    assert len({tries[0].id for tries in by_session.values()}) == len(ended)
    for each in receiver.received[:20]:
        each.verify(secret)
