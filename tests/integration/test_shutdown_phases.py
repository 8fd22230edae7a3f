"""The phases of a shutdown: a running one goes through the list in its order, and each keeps within its share."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import structlog.testing
import trio
from lastcall import logs
from lastcall.agents.echo import EchoAgent
from lastcall.shutdown import (
    CLOSE_ROWS,
    END_SESSIONS,
    FINALIZE_MEMORY,
    FINISH_RESPONSES,
    LAST_COMMITS,
    PHASES,
    RELEASE_LEASE,
    STOP_ACCEPTING,
    Phase,
    Signals,
)
from lastcall.store.records import EndReason
from trio.testing import MockClock

from tests.support.clients import connect
from tests.support.fake_store import FakeStore
from tests.support.servers import open_server

DRAIN_SECONDS = 10.0
CLIENTS = 20


async def test_a_shutdown_goes_through_the_phases_in_the_order_of_the_list() -> None:
    logs.configure(json_logs=False, level="info")
    with structlog.testing.capture_logs() as logged:
        async with open_server(FakeStore(), EchoAgent()) as server, connect(server.url) as client:
            await client.say("My name is Ada.")
            await server.stop()
            assert await client.closed() == 1012
    entered = [each["phase"] for each in logged if each["event"] == "shutdown_phase"]
    assert entered == [phase.name for phase in PHASES]


async def test_the_effects_come_in_the_order_of_the_phases() -> None:
    """As the store sees them: one bulk close, no end of a session's own, memory, the lease."""
    store, seen = FakeStore(), []
    wanted = {"close_instance_sessions", "end_session", "finish_memory", "stop_instance"}
    async with open_server(store, EchoAgent()) as server, connect(server.url) as client:
        await client.say("My name is Ada.")
        store.fail_after = lambda operation: seen.append(operation) if operation in wanted else None
        await server.stop()
    assert seen == ["close_instance_sessions", "finish_memory", "stop_instance"]


async def test_each_client_gets_its_close_frame_even_where_no_time_is_left_for_the_exit_paths() -> None:
    """All frames are sent once the rows are closed, so thousands of exit paths cost no client its own."""
    store, codes = FakeStore(), []

    async def listen(url: str, connected: trio.Event) -> None:
        async with connect(url) as client:
            connected.set()
            codes.append(await client.closed())

    with trio.fail_after(30):
        async with open_server(store, EchoAgent(), drain_seconds=0.0) as server, trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                connected = trio.Event()
                clients.start_soon(listen, server.url, connected)
                await connected.wait()
            await server.stop()
    assert codes == [1012] * CLIENTS
    assert {row.end_reason for row in store.sessions.values()} == {EndReason.SHUTDOWN}


def test_phases_have_unlike_names_and_their_shares_only_grow() -> None:
    assert len({phase.name for phase in PHASES}) == len(PHASES)
    shares = [phase.until for phase in PHASES if phase.until < inf]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("phase", "ends"),
    [
        (STOP_ACCEPTING, inf),
        (FINISH_RESPONSES, 0.4 * DRAIN_SECONDS),
        (CLOSE_ROWS, 1.0 + 5.0),
        (END_SESSIONS, 1.0 + 3.0),
        (FINALIZE_MEMORY, 0.9 * DRAIN_SECONDS),
        (RELEASE_LEASE, 1.0 + 2.0),
        (LAST_COMMITS, DRAIN_SECONDS),
    ],
    ids=lambda value: value.name if isinstance(value, Phase) else None,
)
async def test_a_phase_that_begins_after_a_second_ends_in_time(
    phase: Phase, ends: float, autojump_clock: MockClock
) -> None:
    signals, scope, began = Signals(DRAIN_SECONDS), trio.CancelScope(), trio.current_time()
    signals.begin()
    await trio.sleep(1.0)
    signals.enter(phase, scope)
    assert scope.deadline - began == pytest.approx(ends)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
async def test_a_second_signal_shortens_a_phase_whenever_it_comes(
    phase: Phase, when: str, autojump_clock: MockClock
) -> None:
    signals, scope = Signals(1_000.0), trio.CancelScope()
    signals.begin()
    steps: list[Any] = [signals.hurry_up, lambda: signals.enter(phase, scope)]
    for step in steps if when == "before" else reversed(steps):
        step()
    unhurried = min(phase.until * 1_000.0, phase.seconds_max)
    assert scope.deadline - trio.current_time() == pytest.approx(min(unhurried, phase.hurry_seconds))
