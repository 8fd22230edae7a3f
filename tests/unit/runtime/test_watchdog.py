"""The watchdog: signals reach a loop that runs, and one that does not cannot keep the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import trio
from lastcall.runtime.signals import BURST_SECONDS, Meaning
from lastcall.runtime.watchdog import (
    CHECK_SECONDS,
    FORCE_MARGIN_SECONDS,
    FUSE_SECONDS,
    HURRY_SECONDS_MIN,
    STUCK_SECONDS,
    Watchdog,
)

from tests.support.waiting import eventually

DRAIN_SECONDS, HURRY_SECONDS, NOW = 10.0, 6.0, 1_000.0


class Ends:
    """A watchdog whose end of the process is only noted, as the time it would have happened at."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.fuses: list[float] = []
        self.watchdog = Watchdog(DRAIN_SECONDS, end=self.reasons.append, light_fuse=self.fuses.append)
        self.watchdog._hurry_seconds = HURRY_SECONDS

    def seconds(self, *, until: float = 100.0, beats_until: float) -> float | None:
        """When the process was ended, from `NOW` on; the loop's heart beats until `beats_until`."""
        for step in range(int(until / CHECK_SECONDS)):
            now = NOW + step * CHECK_SECONDS
            self.watchdog.heartbeat.at = min(now, NOW + beats_until)
            self.watchdog.check(now)
            if self.reasons:
                return now - NOW
        return None


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.watchdog._socket.close()
    ends.watchdog._wakeup.close()


@pytest.mark.parametrize("beats_until", [-20.0, 100.0])
def test_one_signal_gives_the_budget_whether_the_loop_runs_or_not(ends: Ends, beats_until: float) -> None:
    assert ends.seconds(beats_until=beats_until) is None, "without a signal, nobody ends it"
    ends.watchdog.received(signal.SIGTERM, NOW)
    assert ends.seconds(beats_until=beats_until) == pytest.approx(DRAIN_SECONDS + FORCE_MARGIN_SECONDS, abs=0.2)


@pytest.mark.parametrize(
    ("beats_until", "ended"),
    [
        (-20.0, BURST_SECONDS + HURRY_SECONDS_MIN),
        (0.0, STUCK_SECONDS),
        (3.0, 3.0 + STUCK_SECONDS),
        (100.0, BURST_SECONDS + HURRY_SECONDS),
    ],
)
def test_a_second_signal_ends_a_stuck_loop_at_once(ends: Ends, beats_until: float, ended: float) -> None:
    """And one that runs when the phases have had their time."""
    ends.watchdog.received(signal.SIGTERM, NOW)
    ends.watchdog.received(signal.SIGINT, NOW + BURST_SECONDS)
    assert ends.seconds(beats_until=beats_until) == pytest.approx(ended, abs=0.2)


def test_further_signals_put_no_end_off(ends: Ends) -> None:
    for seconds in (0.0, 1.0, 2.0, 3.0, 4.0):
        ends.watchdog.received(signal.SIGTERM, NOW + seconds)
    assert ends.seconds(beats_until=100.0) == pytest.approx(1.0 + HURRY_SECONDS, abs=0.2)


def test_a_burst_is_no_second_signal(ends: Ends) -> None:
    for seconds in (0.0, 0.001, 0.01, 0.1):
        ends.watchdog.received(signal.SIGINT, NOW + seconds)
    assert ends.seconds(beats_until=-20.0) == pytest.approx(DRAIN_SECONDS + FORCE_MARGIN_SECONDS, abs=0.2)


def test_handlers_light_a_fuse_that_heartbeats_put_off(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """For code that keeps the GIL: the thread does not get to run."""
    now = [NOW]
    monkeypatch.setattr("lastcall.runtime.watchdog.time.monotonic", lambda: now[0])
    ends.watchdog.loop_begins()
    ends.watchdog.loop_runs()
    assert ends.fuses == []
    ends.watchdog._handle(signal.SIGUSR1, None)
    ends.watchdog._handle(signal.SIGTERM, None)
    ends.watchdog.loop_runs()
    assert ends.fuses == [DRAIN_SECONDS + FORCE_MARGIN_SECONDS + FUSE_SECONDS]
    now[0] += BURST_SECONDS
    ends.watchdog._handle(signal.SIGTERM, None)
    ends.watchdog.loop_runs()
    assert ends.fuses[1:] == [STUCK_SECONDS + FUSE_SECONDS] * 2


# --- real signals, to this process ------------------------------------------------------------------------------------


@pytest.fixture
def installed() -> Iterator[Ends]:
    """Its thread and its sockets stay, as in a process that is about to end."""
    ends = Ends()
    before = {number: signal.getsignal(number) for number in signal.valid_signals() if number not in (9, 19)}
    with ends.watchdog.installed():
        yield ends
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def test_before_anything_is_started_a_signal_just_exits(installed: Ends) -> None:
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 0


def test_handlers_are_put_back_unless_the_process_is_ending() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Ends().watchdog.installed():
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_before_the_loop_counts_although_its_exception_was_lost(ends: Ends) -> None:
    """A handler's exception is: inside of a finalizer, or of a callback of the garbage collector."""
    with pytest.raises(SystemExit):
        ends.watchdog._handle(signal.SIGTERM, None)
    with pytest.raises(SystemExit):
        ends.watchdog.loop_begins()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_while_python_ends_does_not_change_the_exit_code(number: signal.Signals) -> None:
    program = f"""if True:
        import os, signal, time
        from lastcall.runtime.watchdog import Watchdog
        class Last:
            def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, {int(number)})
        watchdog = Watchdog(10.0)
        with watchdog.installed():
            watchdog.loop_begins()
            watchdog.received(signal.SIGTERM, time.monotonic())
        signal.last = Last()  # goes after the handlers
    """
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


async def test_signals_reach_the_loop_also_those_from_before_it(installed: Ends) -> None:
    watchdog, received = installed.watchdog, list[tuple[int, Meaning]]()
    watchdog.loop_begins()
    token = trio.lowlevel.current_trio_token()
    signal.raise_signal(signal.SIGHUP)
    await eventually(lambda: until(lambda: watchdog._undelivered), bool)

    def receive(number: int, meaning: Meaning) -> None:
        token.run_sync_soon(received.append, (number, meaning))

    with watchdog.attached(receive, HURRY_SECONDS):
        os.kill(os.getpid(), signal.SIGUSR2)
        await eventually(lambda: until(lambda: len(received) == 2), bool)
    assert received == [(signal.SIGHUP, Meaning.BEGIN), (signal.SIGUSR2, Meaning.NOTHING)]


async def until(look: object) -> bool:
    assert callable(look)
    return bool(look())


async def test_a_signal_wakes_a_loop_that_sleeps(installed: Ends) -> None:
    """Trio's own wake-up is replaced while the watchdog listens, and works again afterwards."""
    watchdog, woken = installed.watchdog, trio.Event()
    watchdog.loop_begins()
    token = trio.lowlevel.current_trio_token()
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with watchdog.attached(lambda *_: token.run_sync_soon(woken.set), HURRY_SECONDS):
        threading.Thread(target=signal.pthread_kill, args=(threading.main_thread().ident, signal.SIGALRM)).start()
        with trio.fail_after(5):
            await woken.wait()
    assert signal.set_wakeup_fd(before) == before
