"""Servers that are killed and frozen, and a PostgreSQL that crashes and freezes: real processes, all of them."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog.testing
import trio
import trio.testing
from lastcall import logs
from lastcall.embedded import postgres as embedded
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.records import EndReason, SessionEnd, SessionStart

from ..integration.store.world import item
from ..support.clients import Client, connect
from ..support.instances import instance
from ..support.link import open_link
from ..support.postgresql import Cluster
from ..support.processes import ServerProcess, run_server
from ..support.servers import empty
from ..support.waiting import LOOK_SECONDS, eventually

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="freezes PostgreSQL by its pids"),
]

LEASE_SECONDS = 3.0
SAME_HOST_SECONDS = 3.0
OTHER_HOST_SECONDS_MIN, OTHER_HOST_SECONDS = 5.0, 6.0
CUT_SECONDS = 4.9
NEXT_START_WITHIN_SECONDS = 1.0
FROZEN_WITHIN_SECONDS = LEASE_SECONDS + 1.0
DEATH_ERROR_SECONDS_MAX = 1.0
END_ERROR_SECONDS_MAX = 0.1
SOCKET_GONE_SECONDS_MAX = 1.0
BACK_WITHIN_SECONDS = 8.0  # from PostgreSQL's return until everything queued has landed
OUTAGE_SECONDS = 4.0  # above the lease
WATCHED_SECONDS = 1.5  # after an outage, for sweeps that must not come
CLIENTS = 3
LATE_SECONDS = 0.5  # what a backend does on waking, it does at once
WITHIN = 5.0
PATIENCE_SECONDS = 20.0  # of a start, for its database

Serve = Callable[..., AbstractContextManager[ServerProcess]]
Row = Any


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of these tests' own."""
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        Path(directory).chmod(0o755)
        try:
            yield Cluster(Path(directory))
        finally:
            embedded.stop(Path(directory))


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[PostgresStore]:
    async with open_store(cluster.url) as store:
        await empty(store)
        yield store


@pytest.fixture
def serve(cluster: Cluster) -> Serve:
    def start(lease_seconds: float = LEASE_SECONDS, url: str = "") -> AbstractContextManager[ServerProcess]:
        database = url or cluster.url
        return run_server("--database-url", database, "--agent", "echo", "--lease-seconds", str(lease_seconds))

    return start


async def rows(store: PostgresStore, where: str = "true") -> list[Row]:
    """All sessions; none while PostgreSQL is away."""
    try:
        return await store.select(
            "SELECT session_id::text, user_id, instance_id, is_active, end_reason,"
            " extract(epoch FROM session_end)::float8 AS ended, extract(epoch FROM now())::float8 AS now"
            f" FROM conversation_sessions WHERE {where} ORDER BY user_id"
        )
    except StoreError:
        return []


def ended(found: Sequence[Row]) -> bool:
    return bool(found) and not any(row["is_active"] for row in found)


async def settle(store: PostgresStore, servers: int, *, one_host: bool = False) -> None:
    """Waits until all servers hold their guards.

    one_host: else each is on a host of its own, so that nobody can look for the others' processes.
    """
    guarded = "SELECT count(guarded_at) FROM server_instances"
    await eventually(lambda: store.select(guarded), lambda found: found[0][0] == servers)
    if not one_host:
        await store.select("UPDATE server_instances SET host_id = instance_id::text")


async def throughout(seconds: float, look: Callable[[], Awaitable[Any]], wanted: Callable[[Any], object]) -> None:
    """Fails once what is seen is not wanted."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        assert wanted(seen := await look()), seen
        await trio.sleep(LOOK_SECONDS)


class Talk:
    """Clients of one server that stay until their sockets are closed. user_id begins with `name`."""

    def __init__(self, name: str, server: ServerProcess, nursery: trio.Nursery) -> None:
        self.name = name
        self.server = server
        self.clients: list[Client] = []
        self.closed_at: list[float] = []
        self._nursery = nursery

    async def join(self, count: int = CLIENTS) -> Talk:
        for _ in range(count):
            await self._nursery.start(self._stay, len(self.clients))
        return self

    async def _stay(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with connect(self.server.url, user=f"{self.name}-{number}") as client:
            await client.say("Hello")
            self.clients.append(client)
            task_status.started()
            client.close_code = await client.closed()
            self.closed_at.append(time.time())

    @property
    def where(self) -> str:
        return f"user_id LIKE '{self.name}-%'"


async def closed(talk: Talk) -> list[int]:
    return [client.close_code for client in talk.clients if client.close_code]


# --- servers


@pytest.mark.parametrize("same_host", [True, False])
async def test_sessions_of_a_killed_server_end_within_seconds(
    same_host: bool, serve: Serve, store: PostgresStore, nursery: trio.Nursery
) -> None:
    """Those of its neighbour go on."""
    with serve(10.0) as killed, serve(10.0) as neighbour:
        await settle(store, 2, one_host=same_host)
        theirs, ours = await Talk("killed", killed, nursery).join(), await Talk("ours", neighbour, nursery).join()
        killed.process.kill()
        died = time.time()
        within = SAME_HOST_SECONDS if same_host else OTHER_HOST_SECONDS
        found = await eventually(lambda: rows(store, theirs.where), ended, within=within)
        assert same_host or time.time() - died > OTHER_HOST_SECONDS_MIN
        assert {row["end_reason"] for row in found} == {"owner_died"}
        assert [row["ended"] for row in found] == pytest.approx([died] * CLIENTS, abs=DEATH_ERROR_SECONDS_MAX)
        assert all(row["is_active"] for row in await rows(store, ours.where))
        async with connect(neighbour.url) as client:
            await client.ask("Are you there?")
        nursery.cancel_scope.cancel()


async def test_when_the_only_server_was_killed_the_next_start_closes_its_rows(
    serve: Serve, store: PostgresStore, nursery: trio.Nursery
) -> None:
    with serve() as killed:
        await Talk("killed", killed, nursery).join()
        killed.process.kill()
        died = time.time()
    with serve():
        found = await eventually(lambda: rows(store), ended, within=NEXT_START_WITHIN_SECONDS)
    assert [row["ended"] for row in found] == pytest.approx([died] * CLIENTS, abs=DEATH_ERROR_SECONDS_MAX)


async def test_a_server_frozen_beyond_its_lease_loses_its_rows(
    serve: Serve, store: PostgresStore, nursery: trio.Nursery
) -> None:
    """On waking it acknowledges nothing, and serves again under a new lease."""
    with serve() as frozen, serve():
        await settle(store, 2)
        idle = await Talk("idle", frozen, nursery).join()
        async with connect(frozen.url, user="speaker") as speaker:
            await speaker.say("Before")
            frozen.process.send_signal(signal.SIGSTOP)
            froze = time.time()
            await speaker.send(
                {
                    "type": "conversation.item.create",
                    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "While"}]},
                }
            )
            try:
                found = await eventually(lambda: rows(store), ended, within=FROZEN_WITHIN_SECONDS)
            finally:
                frozen.process.send_signal(signal.SIGCONT)
            woke = time.time()
            assert [row["ended"] for row in found] == pytest.approx(
                [froze] * (CLIENTS + 1), abs=DEATH_ERROR_SECONDS_MAX
            )
            codes = await eventually(lambda: closed(idle), lambda codes: len(codes) == CLIENTS)
            assert codes == [1012] * CLIENTS
            assert max(idle.closed_at) - woke < SOCKET_GONE_SECONDS_MAX
            # One that spoke meanwhile may hear first of its own row, which is closed.
            assert await speaker.closed() in (1012, 4001)
            said = [event for event in speaker.events if event["type"] == "conversation.item.done"]
            assert len(said) == 1, "nothing is acknowledged after the row was closed"
        texts = await store.select("SELECT content FROM messages WHERE role = 'user' AND content <> 'Hello'")
        assert [row["content"] for row in texts] == ["Before"]
        await eventually(lambda: served(frozen.url), bool)


async def served(url: str) -> bool:
    """Whether a new session is served."""
    try:
        async with connect(url) as client:
            return bool((await client.ask("Hello again"))["response"]["status"] == "completed")
    except (trio.TooSlowError, KeyError, ExceptionGroup):
        return False


@asynccontextmanager
async def beside(server: AbstractContextManager[ServerProcess]) -> AsyncIterator[ServerProcess]:
    """Starts and ends a server in a thread: its link to the database runs in this one."""
    running = await trio.to_thread.run_sync(server.__enter__)
    try:
        yield running
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.__exit__, None, None, None)


async def test_a_link_that_is_cut_for_less_than_five_seconds_costs_no_session(
    serve: Serve, store: PostgresStore, cluster: Cluster, nursery: trio.Nursery
) -> None:
    """Although its neighbour sees its lease connection end, and no process of it."""
    async with open_link(cluster.url) as link, beside(serve(10.0, link.url)) as cut, beside(serve(10.0)):
        await settle(store, 2)
        async with connect(cut.url) as client:
            await client.say("Before")
            link.cut()
            await trio.sleep(CUT_SECONDS)
            await link.restore()
            await throughout(WATCHED_SECONDS, lambda: rows(store), all_active)
            await client.say("After")


async def test_a_server_whose_new_connections_are_refused_keeps_its_sessions(
    serve: Serve, store: PostgresStore, cluster: Cluster
) -> None:
    """As after its password was rotated, and its lease connection was lost: the pool's connections work on."""
    async with (
        open_link(cluster.url) as link,
        beside(serve(LEASE_SECONDS, link.url)) as refused,
        beside(serve(LEASE_SECONDS)),
        connect(refused.url) as client,
    ):
        await settle(store, 2)
        await client.say("Before")
        link.refuse()
        guards = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lastcall guard'"
        await store.select(f"SELECT pg_terminate_backend(pid) FROM ({guards}) guards")
        await throughout(LEASE_SECONDS + WATCHED_SECONDS, lambda: rows(store), all_active)
        await client.say("After")


# --- PostgreSQL


async def chat(url: str, user: str, outcomes: list[str], *, task_status: trio.TaskStatus[Client]) -> None:
    """Takes turns for ever; notes what became of each, the code of an error or the response's status."""
    async with connect(url, user=user) as client:
        task_status.started(client)
        while True:
            await client.send(
                {
                    "type": "conversation.item.create",
                    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
                }
            )
            if (refused := await one_of(client, "conversation.item.done"))["type"] == "error":
                outcomes.append(f"{refused['error']['type']}/{refused['error']['code']}")
                continue
            await client.send({"type": "response.create"})
            done = (await client.until("response.done"))["response"]
            outcomes.append(str(done["status"]))
            if done["status"] == "failed":
                assert done["status_details"]["error"]["type"] == "server_error"


async def one_of(client: Client, kind: str) -> Any:
    while (event := await client.receive())["type"] not in (kind, "error"):
        pass
    return event


async def leave(url: str, user: str, go: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    """Connects, and leaves when told."""
    async with connect(url, user=user) as client:
        await client.say("Hello")
        task_status.started()
        await go.wait()


@pytest.mark.parametrize(
    ("outage", "seconds"),
    [("crash", OUTAGE_SECONDS), ("freeze", OUTAGE_SECONDS)],
)
async def test_an_outage_of_postgresql_costs_turns_but_no_session(
    outage: str, seconds: float, serve: Serve, store: PostgresStore, cluster: Cluster
) -> None:
    """Sessions that end meanwhile are dated right."""
    outcomes: list[str] = []
    go = trio.Event()
    with serve() as one, serve() as two:
        await settle(store, 2)
        async with trio.open_nursery() as people:
            for number, url in enumerate((one.url, two.url)):
                await people.start(chat, url, f"chat-{number}", outcomes)
                await people.start(leave, url, f"leave-{number}", go)
            left = await (crash(cluster, go, seconds) if outage == "crash" else freeze(cluster, go, seconds))
            outcomes.clear()
            await throughout(WATCHED_SECONDS, lambda: rows(store, "user_id LIKE 'chat-%'"), all_active)
            gone = await eventually(lambda: rows(store, "user_id LIKE 'leave-%'"), ended, within=BACK_WITHIN_SECONDS)
            await eventually(lambda: count(outcomes), lambda done: done >= 2, within=BACK_WITHIN_SECONDS)
            assert all_active(await rows(store, "user_id LIKE 'chat-%'"))
            people.cancel_scope.cancel()
    assert [row["ended"] for row in gone] == pytest.approx([left] * 2, abs=END_ERROR_SECONDS_MAX)
    assert {row["end_reason"] for row in gone} == {"client_closed"}
    assert set(outcomes) <= {"completed", "failed", "server_error/store_unavailable"}


async def test_a_server_that_starts_while_postgresql_restarts_waits_for_it(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    opened = trio.Event()

    async def open_and_ask() -> None:
        async with open_store(cluster.url, patience=PATIENCE_SECONDS) as store:
            await store.keys_exist()
            opened.set()

    logs.configure(json_logs=False, level="warning")
    await trio.to_thread.run_sync(cluster.crash)
    try:
        with structlog.testing.capture_logs() as logged:
            nursery.start_soon(open_and_ask)
            await eventually(lambda: names(logged), lambda found: found == ["waiting_for_database"], within=WITHIN)
    finally:
        await trio.to_thread.run_sync(cluster.start)
    with trio.fail_after(PATIENCE_SECONDS):
        await opened.wait()


async def names(logged: Sequence[MutableMapping[str, Any]]) -> list[str]:
    return [each["event"] for each in logged]


def all_active(found: Sequence[Row]) -> bool:
    return all(row["is_active"] for row in found)


async def count(outcomes: list[str]) -> int:
    return outcomes.count("completed")


async def crash(cluster: Cluster, go: trio.Event, seconds: float) -> float:
    """Returns when the people left who were told to, in epoch seconds."""
    await trio.to_thread.run_sync(cluster.crash)
    left = time.time()
    go.set()
    await trio.sleep(seconds)
    await trio.to_thread.run_sync(cluster.start)
    return left


async def freeze(cluster: Cluster, go: trio.Event, seconds: float) -> float:
    with cluster.frozen():
        left = time.time()
        go.set()
        await trio.sleep(seconds)
    return left


# --- the store alone


class Writer:
    """A registered instance's writes."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.instance_id = uuid4()

    def start(self) -> SessionStart:
        return SessionStart(
            session_id=uuid4(),
            conversation_id=uuid4(),
            user_id="ada",
            instance_id=self.instance_id,
            started=trio.current_time(),
        )

    async def begin(self) -> SessionStart:
        start = self.start()
        await self.store.begin_session(start, within=WITHIN)
        return start

    async def end(self, start: SessionStart) -> None:
        await self.store.end_session(
            SessionEnd(
                session_id=start.session_id,
                instance_id=start.instance_id,
                ended=trio.current_time(),
                reason=EndReason.CLIENT_CLOSED,
                close_code=1000,
            )
        )

    async def append(self, start: SessionStart) -> None:
        await self.store.append_items([item(start)], within=WITHIN)


@pytest.fixture
async def writer(store: PostgresStore) -> Writer:
    writer = Writer(store)
    await store.register_instance(instance(writer.instance_id))
    return writer


async def test_a_begin_that_a_frozen_backend_runs_late_leaves_no_orphan(writer: Writer, cluster: Cluster) -> None:
    await writer.end(await writer.begin())
    # The pool hands out the connection that came back last.
    (last,) = await writer.store.select("SELECT pg_backend_pid() AS pid")
    start = writer.start()
    with cluster.frozen():
        with pytest.raises(StoreError):
            await writer.store.begin_session(start, within=1.0)
        # All run on, but the connection that has the begin in its buffer.
        cluster.resume([pid for pid in cluster.pids() if pid != last["pid"]])
        await writer.end(start)
    this = f"session_id = '{start.session_id}'"
    await throughout(LATE_SECONDS, lambda: rows(writer.store, this), lambda found: not found or ended(found))


async def test_a_row_that_somebody_holds_holds_up_no_other_session(writer: Writer, cluster: Cluster) -> None:
    held, other = await writer.begin(), await writer.begin()

    async def run(operation: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        return await bounded_call(writer.store._loop, CALL_SECONDS, operation, *args)

    person = await run(asyncpg.connect, cluster.url)
    try:
        await run(person.execute, "BEGIN")
        await run(person.execute, "SELECT FROM conversation_sessions WHERE session_id = $1 FOR UPDATE", held.session_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.end, held)
            await trio.testing.wait_all_tasks_blocked(cushion=0.05)
            began = trio.current_time()
            await writer.append(other)
            await writer.end(other)
            await writer.begin()
            assert trio.current_time() - began < 1.0
            await run(person.execute, "ROLLBACK")
    finally:
        person.terminate()
    assert not any(row["is_active"] for row in await rows(writer.store, f"session_id = '{held.session_id}'"))


async def test_no_crowd_of_readers_keeps_an_end_waiting(writer: Writer) -> None:
    start = await writer.begin()

    async def read() -> None:
        await writer.store.recall("ada", 50)

    async with trio.open_nursery() as readers:
        for _ in range(3_000):
            readers.start_soon(read)
        await trio.lowlevel.checkpoint()
        began = trio.current_time()
        await writer.end(start)
        took = trio.current_time() - began
        readers.cancel_scope.cancel()
    assert took < 1.0


async def test_a_bulk_close_leaves_ends_that_wait_their_own_dates_and_reasons(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, gate, commit = await writer.begin(), trio.Event(), writer.store._writer._commit

    async def once_the_database_is_back(batch: Any) -> Any:
        await gate.wait()
        return await commit(batch)

    monkeypatch.setattr(writer.store._writer, "_commit", once_the_database_is_back)
    left = time.time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.end, start)
        await trio.sleep(5 * END_ERROR_SECONDS_MAX)
        nursery.start_soon(writer.store.close_instance_sessions, writer.instance_id, ())
        await trio.testing.wait_all_tasks_blocked(END_ERROR_SECONDS_MAX)
        gate.set()
    (row,) = await rows(writer.store)
    assert row["end_reason"] == "client_closed"
    assert row["ended"] == pytest.approx(left, abs=END_ERROR_SECONDS_MAX)


def database_away(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Every commit fails until the event is set."""
    back, commit = trio.Event(), writer.store._writer._commit

    async def once_the_database_is_back(batch: Any) -> Any:
        if not back.is_set():
            raise StoreUnavailable("the database is away")
        return await commit(batch)

    monkeypatch.setattr(writer.store._writer, "_commit", once_the_database_is_back)
    return back


async def test_an_end_during_a_waiting_bulk_close_keeps_its_date_and_reason(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, back = await writer.begin(), database_away(writer, monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.store.close_instance_sessions, writer.instance_id, ())
        await trio.sleep(5 * END_ERROR_SECONDS_MAX)
        left = time.time()
        nursery.start_soon(writer.end, start)
        await trio.sleep(5 * END_ERROR_SECONDS_MAX)
        back.set()
    (row,) = await rows(writer.store)
    assert row["end_reason"] == "client_closed"
    assert row["ended"] == pytest.approx(left, abs=END_ERROR_SECONDS_MAX)


async def test_a_bulk_close_that_waits_is_dated_when_it_was_requested(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unfinished items are stored with it, and do not change its date."""
    start = await writer.begin()
    unsaid = item(start, "Well, ", role="assistant", status="incomplete")
    back, asked = database_away(writer, monkeypatch), time.time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.store.close_instance_sessions, writer.instance_id, (unsaid,))
        await trio.sleep(5 * END_ERROR_SECONDS_MAX)
        back.set()
    (row,) = await rows(writer.store)
    assert row["end_reason"] == "shutdown"
    assert row["ended"] == pytest.approx(asked, abs=END_ERROR_SECONDS_MAX)


async def test_a_heartbeat_that_a_frozen_database_was_sent_by_the_dead_is_none(
    cluster: Cluster, store: PostgresStore
) -> None:
    instance_id = uuid4()
    await store.register_instance(instance(instance_id))
    guards = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lastcall guard'"
    heartbeat = "SELECT extract(epoch FROM heartbeat_at)::float8 FROM server_instances"
    async with store.open_lease_connection(instance_id) as guard:
        assert await guard.renew()
        before = (await store.select(heartbeat))[0][0]
        with cluster.frozen():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guard.renew)
                await trio.sleep(LATE_SECONDS)
                nursery.cancel_scope.cancel()  # as a kill does: sent, and nobody there for the answer
            guard._connection.terminate()
    await eventually(lambda: store.select(guards), lambda found: found[0][0] == 0)
    assert (await store.select(heartbeat))[0][0] == before
