"""Several workers on one port: replaced under chatting clients, started again when they crash, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from lastcall.store.postgres import PostgresStore
from trio_websocket import ConnectionClosed

from ..support.clients import Client, connect, user_item
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually

pytestmark = pytest.mark.alone

WORKERS = 2
ROLL_SECONDS = 120.0
SPEAKING_MAX = 4  # clients at once, of all that are connected: two cores have to do all of it
CONNECTING_MAX = 8  # as clients that wait for a random moment before they come back
ITEMS_BEFORE, ITEMS_AFTER = 2, 2  # of each client, before and after the workers are replaced
RESTARTING, CUT = 1012, 1006

Serve = Callable[..., AbstractContextManager[ServerProcess]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    def start(*arguments: str) -> AbstractContextManager[ServerProcess]:
        workers = ("--workers", str(WORKERS), "--drain-seconds", "4")
        return run_server("--database-url", database_url, "--agent", "echo", *workers, *arguments)

    return start


@dataclass
class Talker:
    """A client that says one thing after the other, and comes back when it is told that the server restarts.

    acknowledged: the ids of its items. resumed: how often it came back to its conversation. told_again: how often a
    worker accepted its connection only to say that it restarts. cut: how often the close frame was lost, because this
    client wrote into a connection that was just closed. failures: whatever else ended a connection.
    """

    url: str
    name: str
    speaking: trio.CapacityLimiter
    connecting: trio.CapacityLimiter
    acknowledged: list[str] = field(default_factory=list)
    sessions: int = 0
    resumed: int = 0
    told_again: int = 0
    cut: int = 0
    failures: list[str] = field(default_factory=list)
    conversation: str | None = None

    async def talk(self, go_on: Callable[[int], bool]) -> None:
        """go_on: gets how many items are acknowledged."""
        while go_on(len(self.acknowledged)):
            sessions = self.sessions
            try:
                async with self.connected() as client:
                    while go_on(len(self.acknowledged)):
                        async with self.speaking:
                            await self.say(client)
            except BaseExceptionGroup as errors:
                _, others = errors.split(closed_by(RESTARTING))
                is_new = self.sessions == sessions
                self.told_again += is_new and others is None
                if others is not None and not is_new:
                    _, others = others.split(closed_by(CUT))
                    self.cut += others is None
                if others is not None:
                    self.failures.append(repr(others.exceptions))
                    raise others from None

    async def say(self, client: Client) -> None:
        """The same item again where its acknowledgement was lost: then it is stored already."""
        item = f"{self.name}_{len(self.acknowledged)}"
        await client.send(user_item(f"This is {item}.", item))
        while True:
            event = await client.receive()
            if event["type"] == "conversation.item.done" and event["item"]["id"] == item:  # others are replayed
                break
            if event["type"] == "error":
                assert event["error"]["code"] == "item_create_duplicate_item_id", event
                break
        self.acknowledged.append(item)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        query = (
            {"user": self.name} if self.conversation is None else {"user": self.name, "conversation": self.conversation}
        )
        async with AsyncExitStack() as stack:
            async with self.connecting:
                client = await stack.enter_async_context(connect(self.url, **query))
            assert client.created["type"] == "session.created", client.created
            if self.conversation is None:
                self.conversation = client.conversation_id
            else:
                assert client.conversation_id == self.conversation
                self.resumed += 1
            self.sessions += 1
            yield client


def closed_by(code: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, ConnectionClosed) and error.reason is not None and error.reason.code == code


async def test_workers_are_replaced_under_chatting_clients_and_nothing_is_lost(
    serve: Serve, crowd: int, postgres_store: PostgresStore
) -> None:
    """No connection is refused, every client goes on in its conversation, every acknowledged item is stored."""
    replaced = trio.Event()
    limits = trio.CapacityLimiter(SPEAKING_MAX), trio.CapacityLimiter(CONNECTING_MAX)
    probes: list[bytes] = []
    with serve() as server:
        talkers = [Talker(server.url, f"talker_{number}", *limits) for number in range(crowd)]
        before = await owners(postgres_store)
        with trio.fail_after(ROLL_SECONDS):
            async with trio.open_nursery() as nursery:
                for talker in talkers:
                    nursery.start_soon(talker.talk, lambda said: not replaced.is_set() or said < 1)
                await eventually(lambda: all_said(talkers, ITEMS_BEFORE), bool, within=ROLL_SECONDS)
                nursery.start_soon(probe, server, replaced, probes)
                server.process.send_signal(signal.SIGHUP)
                await trio.to_thread.run_sync(server.wait_for, "workers_replaced")
                after_all = {talker.name: len(talker.acknowledged) + ITEMS_AFTER for talker in talkers}
                replaced.set()
            async with trio.open_nursery() as nursery:
                for talker in talkers:
                    goal = after_all[talker.name]
                    nursery.start_soon(talker.talk, lambda said, goal=goal: said < goal)
        after = await owners(postgres_store)
    assert [talker.failures for talker in talkers if talker.failures] == []
    assert set(probes) == {b"HTTP/1.1 200"}
    assert len(after) == WORKERS
    assert before.isdisjoint(after)
    assert min(talker.resumed for talker in talkers) >= 1
    rows = await postgres_store.select(
        "SELECT c.user_id, array_agg(m.item_id ORDER BY m.position) AS items FROM messages m"
        " JOIN conversations c USING (conversation_id) WHERE m.role = 'user' GROUP BY 1"
    )
    stored = {row["user_id"]: row["items"] for row in rows}
    lost = {each.name: set(each.acknowledged) - set(stored[each.name]) for each in talkers}
    assert {name: items for name, items in lost.items() if items} == {}
    assert all(stored[each.name] == each.acknowledged for each in talkers)
    ends = await postgres_store.select(
        "SELECT end_reason, count(*) AS n FROM conversation_sessions WHERE end_reason = 'shutdown' GROUP BY 1"
    )
    assert sum(row["n"] for row in ends) >= crowd
    said, resumed = sum(len(each.acknowledged) for each in talkers), sum(each.resumed for each in talkers)
    again, cut = sum(each.told_again for each in talkers), sum(each.cut for each in talkers)
    print(f"{crowd} clients: {said} items acknowledged, 0 lost; {resumed} times resumed; {len(probes)} probes answered")
    print(f"{again} connections were told to come again, {cut} ended without a close frame")


async def probe(server: ServerProcess, until: trio.Event, answers: list[bytes]) -> None:
    """Asks over a new connection each time. None may be refused, or end without an answer."""
    while not until.is_set():
        async with await trio.open_tcp_stream("127.0.0.1", urlsplit(server.url).port or 0) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answers.append((await stream.receive_some())[: len(b"HTTP/1.1 200")])


async def all_said(talkers: list[Talker], items: int) -> bool:
    return all(len(each.acknowledged) >= items for each in talkers)


async def owners(store: PostgresStore) -> set[Any]:
    """The instances that live."""
    rows = await store.select("SELECT instance_id FROM server_instances WHERE stopped_at IS NULL AND reaped_at IS NULL")
    return {row["instance_id"] for row in rows}


# --- one of them


def worker_pids(server: ServerProcess) -> list[int]:
    return [event["pid"] for event in server.log if event["event"] == "worker_started"]


async def test_a_worker_that_crashes_is_started_again(serve: Serve, postgres_store: PostgresStore) -> None:
    """The other one goes on, and closes its rows."""
    with serve() as server:
        first, second = worker_pids(server)
        async with connect(server.url, user="ada") as one, connect(server.url, user="ben") as two:
            assert one.created
            assert two.created
            os.kill(first, signal.SIGKILL)
            crashed = await trio.to_thread.run_sync(server.wait_for, "worker_crashed")
            assert (crashed["pid"], crashed["code"], crashed["again_in_seconds"]) == (first, -9, 0.5)
            again = await trio.to_thread.run_sync(server.wait_for, "worker_started")
            assert again["worker"] == 1
            while (await trio.to_thread.run_sync(server.wait_for, "instance_started"))["worker"] != 1:
                pass
            # Also where it had no session: it is found by its silence then.
            await eventually(lambda: owners(postgres_store), lambda found: len(found) == WORKERS, within=30.0)
        os.kill(second, 0)
        log = await trio.to_thread.run_sync(server.stop_and_read)
        assert server.process.returncode == 0
    assert await owners(postgres_store) == set()
    # Each line of a worker says which one wrote it.
    of_instances = {line["instance_id"]: line["worker"] for line in log if line["event"] == "instance_started"}
    assert sorted(of_instances.values()) == [1, 1, 2]
    for line in log:
        if line["event"] in ("session_started", "session_ended", "instance_stopped"):
            assert line["worker"] == of_instances[line["instance_id"]]


async def test_workers_end_in_order_when_their_supervisor_is_killed(
    serve: Serve, postgres_store: PostgresStore
) -> None:
    with serve() as server:
        async with connect(server.url, user="ada") as client:
            server.process.kill()
            assert await client.closed() == RESTARTING
        await eventually(lambda: owners(postgres_store), lambda found: not found, within=30.0)
    rows = await postgres_store.select("SELECT end_reason FROM conversation_sessions")
    assert [row["end_reason"] for row in rows] == ["shutdown"]


def test_a_mistake_in_the_settings_is_told_once_with_its_exit_code() -> None:
    command = [sys.executable, "-m", "lastcall", "serve", "--workers", "2", "--tls-cert", "/nowhere/cert.pem"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--tls-" in done.stderr


async def test_whoever_cannot_start_replaces_nobody(serve: Serve, postgres_store: PostgresStore) -> None:
    """The workers go on as they are."""
    with serve() as server:
        before = await owners(postgres_store)
        await postgres_store.select("UPDATE lastcall_schema SET version = version + 1")  # of a newer release
        try:
            server.process.send_signal(signal.SIGHUP)
            assert (await trio.to_thread.run_sync(server.wait_for, "worker_not_replaced"))["code"] == 2
            await trio.to_thread.run_sync(server.wait_for, "workers_not_replaced")
        finally:
            await postgres_store.select("UPDATE lastcall_schema SET version = version - 1")
        assert await owners(postgres_store) == before
        async with connect(server.url, user="ada") as client:
            await client.say("Hello")


# --- the port for operators


async def test_each_worker_has_health_and_metrics_on_a_port_of_its_own(serve: Serve) -> None:
    """Without a key, also where clients need one."""
    first = free_ports(WORKERS)
    with serve("--admin-port", str(first)) as server:
        for number in range(WORKERS):
            with httpx2.Client(base_url=f"http://127.0.0.1:{first + number}") as operator:
                assert operator.get("/healthz").status_code == operator.get("/readyz").status_code == 200
                assert "lastcall_lease_held 1.0" in operator.get("/metrics").text
                assert operator.get("/v1/conversations").status_code == 404
        assert server.url.rpartition(":")[2] != str(first)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first: int = found.getsockname()[1]
        try:
            for number in range(first, first + count):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return first
