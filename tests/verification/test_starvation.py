"""How provers measure the time that a busy machine took from them and from the processes under test."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing

from . import starvation
from .starvation import Family, Heartbeat, RunQueue, Starvation, waiting_seconds


def test_lost_time_counts_where_it_overlaps_and_for_its_source_only() -> None:
    lost = Starvation()
    lost.record("server:1", 10.0, 11.0)

    assert lost.lost(10.5, 12.0, ["server:1"]) == pytest.approx(0.5)
    assert lost.lost(11.0, 12.0, ["server:1"]) == 0.0
    assert lost.lost(9.0, 12.0, ["server:2", "runner"]) == 0.0
    assert lost.lost(9.0, 12.0, []) == 0.0


def test_losses_of_several_sources_add_up_to_the_interval_at_most() -> None:
    lost = Starvation()
    lost.record("server:1", 10.0, 10.4)
    lost.record("database", 10.5, 10.9)
    lost.record("runner", 10.0, 11.0)

    assert lost.lost(10.0, 11.0, ["server:1", "database"]) == pytest.approx(0.8)
    assert lost.lost(10.0, 11.0, ["server:1", "database", "runner"]) == pytest.approx(1.0)


def test_a_part_of_an_interval_may_have_been_lost_anywhere_in_it() -> None:
    lost = Starvation()
    lost.record("database", 10.0, 11.0, 0.3)

    assert lost.lost(10.8, 12.0, ["database"]) == pytest.approx(0.2)
    assert lost.lost(10.5, 12.0, ["database"]) == pytest.approx(0.3)
    assert lost.totals() == {"database": {"total": 0.3, "longest": 0.3}}


def test_sources_are_found_by_their_kind() -> None:
    lost = Starvation()
    for source in ("server:1", "server:2", "runner"):
        lost.record(source, 10.0, 11.0)

    assert lost.sources("server") == ["server:1", "server:2"]
    assert lost.sources() == ["server:1", "server:2", "runner"]


@pytest.mark.parametrize(("seconds", "late"), [(starvation.TICK_SECONDS, []), (1.0, [0.98])])
async def test_a_heartbeat_reports_how_late_it_woke(
    seconds: float, late: list[float], mock_clock: trio.testing.MockClock
) -> None:
    reported: list[float] = []
    heartbeat = Heartbeat(lambda begin, end: reported.append(end - begin))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert reported == pytest.approx(late)


@pytest.mark.parametrize(("seconds", "since"), [(0.025, 0.0), (0.52, 0.52)])
async def test_what_arrived_during_a_pause_may_be_read_after_the_late_wake(
    seconds: float, since: float, mock_clock: trio.testing.MockClock
) -> None:
    heartbeat = Heartbeat(lambda begin, end: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(seconds)
        before = time.time()
        await trio.testing.wait_all_tasks_blocked()
        after = time.time()
        nursery.cancel_scope.cancel()

    assert before - since <= heartbeat.last <= after - since


def test_the_process_of_a_source_that_waited_longest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Starvation()
    waited = {1: 5.0, 2: 7.0, 3: 1.0}
    monkeypatch.setattr(starvation, "waiting_seconds", waited.get)
    moments = iter([100.0, 101.0, 102.0])
    monkeypatch.setattr("time.time", lambda: next(moments))
    queue = RunQueue(lost, lambda: {1: "database", 2: "database", 3: "server:3", 4: "server:4"})

    queue.look()  # the first look only knows from where to count
    waited.update({1: 5.2, 2: 7.5})
    queue.look()

    assert lost.totals() == {"database": {"total": 0.5, "longest": 0.5}}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how long a process waited")
def test_the_kernel_says_how_long_a_process_waited() -> None:
    waited = waiting_seconds(os.getpid())

    assert waited is not None
    assert waited >= 0.0
    assert os.getpid() in Family().of(os.getppid())


def test_nothing_is_known_of_a_process_that_is_gone() -> None:
    gone: Callable[[int], float | None] = waiting_seconds
    assert gone(2**22 + 1) is None
