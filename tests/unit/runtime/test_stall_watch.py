"""The stall watch: it sees a stuck loop, and is not misled by a process that was stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pytest
import structlog.testing
import trio
from lastcall import logs
from lastcall.runtime.heartbeat import BEAT_SECONDS, Heartbeat
from lastcall.runtime.stall_watch import LINE_EVERY_SECONDS, STALL_SECONDS, StallWatch
from trio.testing import MockClock

from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def all_lines() -> None:
    logs.configure(json_logs=False, level="info")


class Process:
    """A process with a clock, a CPU clock and a loop, looked at as its stall watch would."""

    def __init__(self) -> None:
        self.stalls = 0
        self.heartbeat = Heartbeat()
        self.now = self.cpu = 0.0
        self.watch = StallWatch(self.heartbeat, self._stalled)
        self.watch._looked_at = self.watch._cpu = 0.0

    def _stalled(self) -> None:
        self.stalls += 1

    def look_after(self, seconds: float, *, cpu: float = 0.0, beats: bool) -> None:
        self.now, self.cpu = self.now + seconds, self.cpu + cpu
        self.heartbeat.beats += beats
        self.watch.look(self.now, self.cpu)

    def run(self, seconds: float, *, beats: bool) -> None:
        for _ in range(int(seconds / BEAT_SECONDS)):
            self.look_after(BEAT_SECONDS, beats=beats)


@pytest.fixture
def process() -> Process:
    return Process()


def test_a_loop_that_runs_is_not_stuck(process: Process) -> None:
    process.run(100.0, beats=True)
    assert process.stalls == 0


def test_a_stuck_loop_is_counted_and_logged_once(process: Process) -> None:
    process.run(1.0, beats=True)
    with structlog.testing.capture_logs() as logged:
        process.run(60.0, beats=False)
        process.run(1.0, beats=True)
    assert process.stalls == 1
    assert [each["event"] for each in logged] == ["loop_stalled", "loop_goes_on"]
    assert logged[0]["seconds"] == pytest.approx(STALL_SECONDS)
    assert "test_a_stuck_loop_is_counted_and_logged_once" in logged[0]["stack"], "where the loop's thread is"
    assert logged[1]["stalled_seconds"] == pytest.approx(60.0, abs=0.5)


def test_a_loop_stuck_again_and_again_fills_no_log(process: Process) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(100):
            process.run(1.5, beats=False)
            process.run(0.5, beats=True)
    assert process.stalls == 100
    lines = [each for each in logged if each["event"] == "loop_stalled"]
    assert len(lines) == pytest.approx(200.0 / LINE_EVERY_SECONDS, abs=1)
    assert sum(line["unlogged"] + 1 for line in lines) == pytest.approx(100, abs=5)


@pytest.mark.parametrize("seconds", [2.0, 3_600.0])
def test_a_process_that_was_stopped_was_not_stuck(process: Process, seconds: float) -> None:
    """SIGSTOP, a suspended machine, no CPU for minutes: the looking thread slept as well, and nothing used the CPU."""
    process.run(1.0, beats=True)
    process.look_after(seconds, cpu=0.01, beats=False)
    process.run(0.25, beats=False)
    process.run(1.0, beats=True)
    assert process.stalls == 0


@pytest.mark.parametrize("beats", [False, True], ids=["before its next beat", "after it"])
def test_code_that_kept_the_gil_is_a_stall(process: Process, beats: bool) -> None:
    """The looking thread was late too, but the process was busy."""
    process.run(1.0, beats=True)
    process.look_after(5.0, cpu=4.9, beats=beats)
    process.run(1.0, beats=True)
    assert process.stalls == 1


def test_a_slow_look_within_the_limit_is_no_stall(process: Process) -> None:
    for _ in range(20):
        process.look_after(0.9, cpu=0.9, beats=True)
    assert process.stalls == 0


async def test_a_real_loop_that_blocks_is_seen_while_it_does() -> None:
    heartbeat, seen = Heartbeat(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run, lambda late: None)
        await trio.testing.wait_all_tasks_blocked()
        with structlog.testing.capture_logs() as logged, StallWatch(heartbeat, seen.set).running():
            began = time.monotonic()
            assert seen.wait(10.0), "while this very thread is stuck here"
            assert time.monotonic() - began < 5.0
            await eventually(lambda: checked(logged), lambda events: events == ["loop_stalled", "loop_goes_on"])
        nursery.cancel_scope.cancel()
    assert "test_a_real_loop_that_blocks_is_seen_while_it_does" in logged[0]["stack"]


async def checked(logged: Sequence[Mapping[str, object]]) -> list[object]:
    return [each["event"] for each in logged]


async def test_the_heartbeat_tells_how_late_it_is(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    now, late = [100.0], list[float]()
    monkeypatch.setattr("lastcall.runtime.heartbeat.time.monotonic", lambda: now[0])
    heartbeat = Heartbeat()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run, late.append)
        await trio.testing.wait_all_tasks_blocked()
        now[0] += BEAT_SECONDS + 0.4
        await trio.sleep(BEAT_SECONDS * 1.5)
        nursery.cancel_scope.cancel()
    assert late == pytest.approx([0.0, 0.4])
    assert (heartbeat.beats, heartbeat.at) == (2, now[0])
