"""The simulation's oracle reports broken promises, and excuses what a server cannot help."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from lastcall.realtime.exit_path import ExitPath
from lastcall.realtime.watch import SessionWatch
from lastcall.store.records import EndReason, StoredItem

from ..support.fake_rows import SessionRecord
from ..support.fake_store import FakeStore
from .promises import Promise
from .simulation.clients import Clients
from .simulation.fakes.clock import until
from .simulation.fakes.link import Lag
from .simulation.oracle.final_checks import check_at_rest
from .simulation.oracle.liveness import was_silent
from .simulation.oracle.session_checks import socket_until
from .simulation.oracle.step_checks import StepChecks
from .simulation.plan import Behaviour, ClientPlan
from .simulation.run import run_seed
from .simulation.world import World, simulate

CATCH_SEEDS = 40  # within which a broken promise has to be seen
REAPED_SECONDS = 5.0
LOOK_SECONDS = 0.1


def loses_items(patch: pytest.MonkeyPatch) -> None:
    append = FakeStore._append

    def lose(store: FakeStore, items: list[StoredItem]) -> bool:
        return True if items and items[0].role == "user" else append(store, items)

    patch.setattr(FakeStore, "_append", lose)


def rewrites_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FakeStore, "_is_active", lambda store, key: key in store.sessions)


def dates_ends_by_their_commit(patch: pytest.MonkeyPatch) -> None:
    close = FakeStore._close

    def close_now(
        store: FakeStore, row: SessionRecord, _ended: float, reason: EndReason, code: int | None, by: Any
    ) -> None:
        close(store, row, trio.current_time(), reason, code, by)

    patch.setattr(FakeStore, "_close", close_now)


def remembers_twice(patch: pytest.MonkeyPatch) -> None:
    finish = FakeStore._finish

    def finish_again(store: FakeStore, session_id: Any, memories: Any) -> bool:
        done = finish(store, session_id, memories)
        store.sessions[session_id].memory_status = "pending"
        store.sessions[session_id].memory_due_at = trio.current_time() + 1.0
        return done

    patch.setattr(FakeStore, "_finish", finish_again)


def loses_memories(patch: pytest.MonkeyPatch) -> None:
    finish = FakeStore._finish
    patch.setattr(FakeStore, "_finish", lambda store, key, memories: finish(store, key, memories[:-1]))


def remembers_other_words(patch: pytest.MonkeyPatch) -> None:
    finish = FakeStore._finish

    def blur(store: FakeStore, session_id: Any, memories: Any) -> bool:
        return finish(store, session_id, [replace(memory, content=f"{memory.content}!") for memory in memories])

    patch.setattr(FakeStore, "_finish", blur)


def forgets_rows(patch: pytest.MonkeyPatch) -> None:
    async def nothing(_exit_path: ExitPath) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(ExitPath, "_end_in_time", nothing)


def ignores_notifications(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.instance.InstanceLease._stop_sessions", lambda *_: None)


def sweeps_the_living(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lastcall.sessions.death.cause_of_death", lambda *_: "made up")


def ends_connections(patch: pytest.MonkeyPatch) -> None:
    def leave(watch: SessionWatch) -> float:
        watch._timer.at(trio.current_time() + 0.3, lambda: watch._session.stop(EndReason.CLIENT_LOST))
        return math.inf

    patch.setattr(SessionWatch, "_look_at_silence", leave)


def never_exits(patch: pytest.MonkeyPatch) -> None:
    """A shield without a deadline, around something that never comes: the world is stuck."""

    async def wait(_exit_path: ExitPath) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    patch.setattr(ExitPath, "_end_in_time", wait)


@pytest.mark.parametrize(
    ("breaks", "promise"),
    [
        (loses_items, Promise.NOTHING_LOST),
        (rewrites_ends, Promise.ONE_END),
        (dates_ends_by_their_commit, Promise.ONE_END),
        (remembers_twice, Promise.MEMORY_ONCE),
        (loses_memories, Promise.MEMORY_ONCE),
        (remembers_other_words, Promise.MEMORY_ONCE),
        (forgets_rows, Promise.NO_ORPHAN),
        (ignores_notifications, Promise.NO_GHOST),
        (sweeps_the_living, Promise.NONE_SWEPT),
        (never_exits, Promise.BOUNDED),
        (ends_connections, Promise.CONTAINED),
    ],
)
def test_a_broken_promise_is_reported(
    breaks: Callable[[pytest.MonkeyPatch], None], promise: Promise, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    assert any(run_seed(seed).broken[promise] for seed in range(CATCH_SEEDS))


def client(ending: str) -> ClientPlan:
    """One visit without a turn."""
    behaviour = Behaviour([], 0.0, "plain", ending, "after", torn=False, busy=False, interrupts=False, returns=False)
    return ClientPlan("user", 0.0, [behaviour])


@pytest.mark.parametrize(("after", "broken"), [(0.05, []), (0.25, [Promise.ONE_END])])
def test_a_crash_during_the_last_write_leaves_the_heartbeat_as_end(after: float, broken: list[Promise]) -> None:
    """Nobody can know better; but a write that takes for ever breaks a promise."""
    found: list[Promise] = []

    async def main(world: World) -> None:
        checks = StepChecks(world)
        clients = Clients(world, checks)
        server, other = world.start_server(), world.start_server()
        await server.ready.wait()
        await other.ready.wait()
        other.listener.open = False  # so that the client connects to the first one
        end = server.link.lag = Lag("end_session", after + 1.0, trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients.run, client("fin"))
            await end.began.wait()
            await trio.sleep(after)
            server.link.own()[0].heartbeat_at = trio.current_time()
            server.crash()
        (row,) = world.database.sessions.values()
        await until(lambda: not row.is_active, REAPED_SECONDS, LOOK_SECONDS)
        other.terminate()
        await other.over.wait()
        check_at_rest(world, checks, clients.visits)
        found.extend(checks.findings.broken)

    simulate(1, main)
    assert found == broken


@pytest.mark.parametrize(("begins_again", "silent"), [(2.5, True), (2.9, False)])
def test_a_server_has_no_time_for_a_heartbeat_between_two_troubles(begins_again: float, silent: bool) -> None:
    assert was_silent([[0.4, 2.4], [begins_again, 7.0]], 3.1, 1.4) is silent


def test_a_server_may_freeze_between_its_judgement_and_the_sweep() -> None:
    found: list[Promise] = []

    async def main(world: World) -> None:
        checks = StepChecks(world)
        clients = Clients(world, checks)
        owner, other = world.start_server(), world.start_server(host="elsewhere")
        await owner.ready.wait()
        await other.ready.wait()
        other.listener.open = False  # so that the client connects to the first one
        reap = other.link.lag = Lag("reap", 0.1, trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients.run, client("stay"))
            await until(lambda: any(visit.served for visit in clients.visits), REAPED_SECONDS, LOOK_SECONDS)
            owner.freeze()
            await reap.began.wait()
            other.freeze()
            await trio.sleep(REAPED_SECONDS)
            other.thaw()
            await trio.sleep(LOOK_SECONDS)
            owner.thaw()
        for server in world.servers:
            server.terminate()
            await server.over.wait()
        assert [row.end_reason for row in world.database.sessions.values()] == ["owner_died"]
        check_at_rest(world, checks, clients.visits)
        found.extend(checks.findings.broken)

    simulate(1, main)
    assert found == []


@pytest.mark.parametrize(("seconds", "until"), [(1.0, 1.0), (6.0, 14.1)])
def test_a_freeze_excuses_only_the_sockets_that_it_meets(seconds: float, until: float) -> None:
    owner: Any = SimpleNamespace(trouble=[[2.0, 8.0]])
    assert socket_until(owner, 0.0, seconds) == until
