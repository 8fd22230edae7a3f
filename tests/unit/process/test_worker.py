"""What a supervisor knows of a worker."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio.testing
from lastcall.process.worker import STUCK_SECONDS, Worker
from lastcall.runtime.service_manager import BEATS, ServiceManager, service_manager

from tests.support.waiting import in_background


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
async def worker(pair: tuple[socket.socket, socket.socket]) -> AsyncIterator[Worker]:
    """One whose process nobody waits for."""
    found = Worker(1, 0, trio.socket.from_stdlib_socket(pair[0]), trio.current_time())
    async with in_background(found._hear):
        yield found


@pytest.fixture
def manager(pair: tuple[socket.socket, socket.socket]) -> ServiceManager:
    return ServiceManager(pair[1], STUCK_SECONDS, supervised=True)


async def test_it_is_ready_when_it_says_so_and_tells_what_to_announce(worker: Worker, manager: ServiceManager) -> None:
    manager.loop_runs()
    await trio.testing.wait_all_tasks_blocked()
    assert not worker.ready.is_set()
    manager.ready("serving", url="http://x", agent="echo=2")
    with trio.fail_after(5):
        await worker.ready.wait()
    assert worker.fields == {"url": "http://x", "agent": "echo=2"}


async def test_a_worker_without_a_sign_of_life_is_stuck(
    worker: Worker, manager: ServiceManager, autojump_clock: trio.testing.MockClock
) -> None:
    seen = []
    await trio.sleep(2 * STUCK_SECONDS)
    seen.append(worker.is_stuck)  # a start may take long
    manager.ready("serving")
    await worker.ready.wait()
    await trio.sleep(STUCK_SECONDS)
    seen.append(worker.is_stuck)
    await trio.sleep(0.1)
    seen.append(worker.is_stuck)
    manager.loop_runs()
    await trio.testing.wait_all_tasks_blocked()
    seen.append(worker.is_stuck)
    assert seen == [False, False, True, False]


async def test_signs_of_life_are_sent_no_more_often_than_needed(pair: tuple[socket.socket, socket.socket]) -> None:
    manager = ServiceManager(pair[1], STUCK_SECONDS)
    for _ in range(1_000):
        manager.loop_runs()
    assert pair[0].recv(4096).count(b"WATCHDOG=1") == 1
    assert BEATS > 1


async def test_a_supervisor_that_is_gone_or_does_not_read_holds_nobody_up(
    pair: tuple[socket.socket, socket.socket], manager: ServiceManager
) -> None:
    for _ in range(10_000):
        manager.ready("serving", url="x" * 1_000)
    pair[0].close()
    manager.stopping()
    with trio.fail_after(5):
        await manager.lost()


def test_without_a_manager_nothing_is_said() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    manager = service_manager(environ)
    manager.ready("serving")
    manager.loop_runs()
    assert environ == {"PATH": "/bin"}
