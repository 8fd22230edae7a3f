"""The reconciler: no row without a live session stays active, whatever prevented its end from being stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.sessions.upkeep import reconciler
from lastcall.sessions.upkeep.reconciler import CONFIRMED_SECONDS, PASS_SECONDS
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import EndReason, SessionStart
from trio.testing import MockClock

from tests.support.clients import connect
from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore
from tests.support.servers import open_server
from tests.support.virtual_server import World
from tests.support.waiting import eventually, in_background

END_ERROR_SECONDS_MAX = 0.1  # as published; a close frame is read, and the clock estimated, a moment late
CLOSED_WITHIN = 2 * PASS_SECONDS + 1.0
STAY_SECONDS = 3.0
WITHIN = 10.0


def refuse_ends(store: FakeStore) -> None:
    def refuse(operation: str) -> None:
        if operation == "end_session":
            raise StoreError("permission denied for table conversation_sessions")

    store.fail_before = refuse


def allow_all(store: FakeStore) -> None:
    store.fail_before = lambda _: None


async def visit(world: World) -> float:
    """A session in which nothing is said; when it ended."""
    async with world.connected() as peer:
        await peer.receive("session.created")
        await trio.sleep(STAY_SECONDS)
        ended = trio.current_time()
        await peer.ws.aclose(1000)
    return ended


async def forgotten(world: World) -> SessionRecord:
    """A row of this server's that no session was ever behind."""
    await world.lease.register()
    start = SessionStart(
        session_id=uuid4(),
        conversation_id=uuid4(),
        user_id="ada",
        instance_id=world.lease.instance_id,
        started=trio.current_time(),
    )
    await world.store.begin_session(start, within=1.0)
    return world.store.sessions[start.session_id]


async def test_an_end_that_the_database_refused_is_stored_as_soon_as_it_takes_it(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run):
        refuse_ends(world.store)
        ended = await visit(world)
        await trio.sleep(100.0)
        assert world.row.is_active
        allow_all(world.store)
        await trio.sleep(PASS_SECONDS + 1.0)
    assert not world.row.is_active
    assert world.row.session_end == ended
    assert world.row.end_reason == EndReason.CLIENT_CLOSED
    assert world.row.close_code == 1000
    assert world.services.metrics.registry.get_sample_value("lastcall_stray_sessions_closed_total") == 1


async def test_a_row_whose_end_is_unknown_ends_when_it_was_first_seen_sessionless(
    autojump_clock: MockClock,
) -> None:
    world = World(FakeStore(), EchoAgent())
    row = await forgotten(world)
    began = trio.current_time()
    async with in_background(world.services.reconciler.run):
        await trio.sleep(CLOSED_WITHIN)
    assert not row.is_active
    assert row.end_reason == EndReason.SERVER_ERROR
    assert row.session_end == began + PASS_SECONDS


async def test_an_end_that_a_standby_has_not_heard_of_is_stored_again(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run):
        ended = await visit(world)
        await trio.sleep(CONFIRMED_SECONDS - CLOSED_WITHIN)
        assert world.row.session_end == ended
        world.store.sessions[world.row.session_id] = replace(
            world.row, is_active=True, session_end=None, end_reason=None, close_code=None
        )
        await trio.sleep(CLOSED_WITHIN)
    assert (world.row.session_end, world.row.end_reason) == (ended, EndReason.CLIENT_CLOSED)
    assert world.row.close_code == 1000


async def test_stored_ends_are_not_remembered_for_ever(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "CONFIRMED_MAX", 2)
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run):
        for _ in range(3):
            await visit(world)
        assert len(world.services.reconciler._confirmed) == 2
        await trio.sleep(CONFIRMED_SECONDS + CLOSED_WITHIN)
        assert not world.services.reconciler._confirmed


async def test_neither_an_open_session_nor_one_that_ends_just_now_is_sessionless(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run), world.connected() as peer:
        await peer.receive("session.created")
        await trio.sleep(5 * PASS_SECONDS - 0.5)
        assert world.row.is_active
        ends: list[str] = []
        world.store.fail_before = lambda operation: ends.append(operation) if operation == "end_session" else None
        world.store.delay = lambda operation: 1.0 if operation == "end_session" else 0.0
        ended = trio.current_time()
        await peer.ws.aclose(1000)
        await trio.sleep(CLOSED_WITHIN)
    assert world.row.session_end == ended
    assert ends == ["end_session"]
    assert world.services.metrics.registry.get_sample_value("lastcall_stray_sessions_closed_total") == 0


async def test_the_rows_of_another_server_are_none_of_our_business(autojump_clock: MockClock) -> None:
    ours = World(FakeStore(), EchoAgent())
    await ours.lease.register()
    row = await forgotten(World(ours.store, EchoAgent()))
    async with in_background(ours.services.reconciler.run):
        await trio.sleep(10 * CLOSED_WITHIN)
    assert row.is_active


async def test_a_session_whose_row_vanished_unnoticed_is_stopped(autojump_clock: MockClock) -> None:
    """As where somebody deletes rows with the triggers switched off."""
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run), world.connected() as peer:
        await peer.receive("session.created")
        await trio.sleep(2 * PASS_SECONDS)
        world.store.erase("anonymous")
        with trio.fail_after(CLOSED_WITHIN):
            assert await peer.closed() == 4001


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreError("odd")])
async def test_a_pass_that_fails_is_followed_by_the_next(error: StoreError, autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    row = await forgotten(world)

    def fail(operation: str) -> None:
        if operation == "active_sessions":
            raise error

    world.store.fail_before = fail
    async with in_background(world.services.reconciler.run):
        await trio.sleep(10 * PASS_SECONDS)
        assert row.is_active
        allow_all(world.store)
        await trio.sleep(CLOSED_WITHIN)
    assert not row.is_active


async def test_what_is_remembered_is_forgotten_once_the_row_is_closed_by_whomever(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with in_background(world.services.reconciler.run):
        refuse_ends(world.store)
        await visit(world)
        await trio.sleep(CLOSED_WITHIN)
        assert world.services.reconciler._ends
        world.store.close_by_hand(world.row.session_id)
        await trio.sleep(PASS_SECONDS)
        assert not world.services.reconciler._ends


async def test_ends_that_the_table_refused_for_a_while_land_with_their_own_date(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the real store: somebody's own trigger, which is dropped again."""
    monkeypatch.setattr(reconciler, "PASS_SECONDS", 0.2)
    async with open_server(postgres_store) as server:
        async with connect(server.url) as client:
            await client.ask("hello")
            await postgres_store.select(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;"
            )
            await postgres_store.select(
                "CREATE TRIGGER refuse BEFORE UPDATE ON conversation_sessions FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
            try:
                [before] = await postgres_store.select("SELECT now()")
                await client.ws.aclose(1000)
                [after] = await postgres_store.select("SELECT now()")
                await trio.sleep(0.5)
                [row] = await postgres_store.select("SELECT is_active FROM conversation_sessions")
                assert row["is_active"]
            finally:
                await postgres_store.select("DROP FUNCTION refuse CASCADE")

        async def rows() -> list[Any]:
            return await postgres_store.select("SELECT * FROM conversation_sessions")

        [row] = await eventually(rows, lambda found: not found[0]["is_active"], within=WITHIN)
        assert row["end_reason"] == "client_closed"
        error = timedelta(seconds=END_ERROR_SECONDS_MAX)
        assert before["now"] - error <= row["session_end"] <= after["now"] + error
