"""asyncio inside Trio, and the parts of trio-asyncio that are overridden.

These tests fail where an upgrade of trio-asyncio takes away one of `_main_loop_one`, `_timers`,
`_timer_handle_cancelled` and `_io_task`, or calls them otherwise.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_asyncio
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.loop import HANDLES_MAX, TIMERS_CANCELLED_MAX, open_loop
from lastcall.store.postgres.network.sockets import READ_BYTES_MAX
from trio.testing import MockClock

from tests.support.waiting import eventually

ROUNDS = 10
STEPS_PER_CALL = 2  # of the scheduler: the caller's, and that of the task that reads the answer


class Steps(trio.abc.Instrument):
    """Counts the steps of Trio's tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@contextmanager
def counted() -> Iterator[Steps]:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


class Echo(asyncio.Protocol):
    """The client's side: sends, and has a future for the answer, as asyncpg does."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.answer is not None
        self.answer.set_result(data)

    def close(self) -> None:
        self._transport.close()

    async def ask(self, data: bytes) -> bytes:
        self.answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        async with asyncio.timeout(CALL_SECONDS):
            return await self.answer


async def test_a_call_takes_no_step_of_a_task_between_the_caller_and_the_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        async with open_loop() as loop:

            async def connect() -> Echo:
                return (await loop.asyncio.create_connection(Echo, sock=ours))[1]  # type: ignore[no-any-return]

            async def answered() -> bytes:
                asking = echo.ask(b"question")
                theirs.send(b"answer")
                return await asking

            echo = await bounded_call(loop, CALL_SECONDS, connect)
            await trio.testing.wait_all_tasks_blocked()
            await bounded_call(loop, CALL_SECONDS, answered)  # the first timer wakes the loop's own task
            await trio.testing.wait_all_tasks_blocked()
            with counted() as steps:
                for _ in range(ROUNDS):
                    assert await bounded_call(loop, CALL_SECONDS, answered) == b"answer"
            assert steps.count <= STEPS_PER_CALL * ROUNDS + 1
            echo.close()
            await trio.testing.wait_all_tasks_blocked()


async def test_no_read_asks_for_more_than_its_bound(tmp_path: Path) -> None:
    """Over TCP and a Unix socket; asyncio's own bound makes each read map memory."""
    sizes: list[int] = []

    class Sizes(Echo):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))

    async def received() -> int:
        return sum(sizes)

    at = str(tmp_path / "socket")
    with socket.create_server(("127.0.0.1", 0)) as over_tcp, socket.socket(socket.AF_UNIX) as over_unix:
        over_unix.bind(at)
        over_unix.listen()
        async with open_loop() as loop:
            tcp = partial(loop.asyncio.create_connection, Sizes, *over_tcp.getsockname())
            unix = partial(loop.asyncio.create_unix_connection, Sizes, at)
            for listening, connect in ((over_tcp, tcp), (over_unix, unix)):
                _, protocol = await bounded_call(loop, CALL_SECONDS, connect)
                theirs, _ = listening.accept()
                sizes.clear()
                with theirs:
                    await trio.to_thread.run_sync(theirs.sendall, bytes(4 * READ_BYTES_MAX))
                    await eventually(received, lambda size: size == 4 * READ_BYTES_MAX)
                assert max(sizes) <= READ_BYTES_MAX
                protocol.close()


async def test_callbacks_that_lead_to_others_leave_other_tasks_their_turn(nursery: trio.Nursery) -> None:
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with open_loop() as loop:
        nursery.start_soon(count_passes)
        done = trio.Event()
        before = passes

        def again(left: int) -> None:
            loop.asyncio.call_soon(again, left - 1) if left else done.set()

        again(ROUNDS * HANDLES_MAX)
        await done.wait()
        assert ROUNDS - 1 <= passes - before <= ROUNDS + 5
        nursery.cancel_scope.cancel()


async def test_callbacks_keep_their_order() -> None:
    order: list[int] = []
    async with open_loop() as loop:

        async def both() -> None:
            loop.asyncio.call_soon(order.append, 2)
            await asyncio.sleep(0)
            order.append(3)

        loop.asyncio.call_soon(order.append, 1)
        await bounded_call(loop, CALL_SECONDS, both)
    assert order == [1, 2, 3]


async def test_cancelled_timers_are_dropped_before_their_time(autojump_clock: MockClock) -> None:
    async with open_loop() as loop:
        kept = loop.asyncio.call_later(200, int)
        for _ in range(10 * TIMERS_CANCELLED_MAX):
            loop.asyncio.call_later(100, int).cancel()
            assert len(loop.asyncio._timers) <= TIMERS_CANCELLED_MAX + 2
        await trio.sleep(100)
        assert loop.asyncio._timers == [kept]
        kept.cancel()


async def test_a_timer_that_is_earlier_than_all_others_is_in_time(autojump_clock: MockClock) -> None:
    async with open_loop() as loop:
        rung: list[float] = []
        began = trio.current_time()
        for seconds in (50.0, 5.0, 20.0):
            loop.asyncio.call_later(seconds, lambda: rung.append(trio.current_time() - began))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(60.0)
    assert rung == pytest.approx([5.0, 20.0, 50.0], abs=0.1)


async def test_a_socket_that_breaks_ends_its_task_and_no_other(autojump_clock: MockClock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    lost = trio.Event()
    heard: list[object] = []

    class Listener(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    async with open_loop() as loop:
        loop.asyncio.set_exception_handler(lambda _, context: heard.append(context.get("exception")))
        await bounded_call(loop, CALL_SECONDS, lambda: loop.asyncio.create_connection(Listener, sock=ours))
        theirs.send(b"x")
        with trio.fail_after(10 * CALL_SECONDS):
            await lost.wait()
        theirs.close()
        await bounded_call(loop, CALL_SECONDS, asyncio.sleep, 0)
    assert [type(error) for error in heard] == [ZeroDivisionError]


async def test_a_caller_from_before_the_loop_was_opened_is_served() -> None:
    """asyncio finds its loop in a variable of the running task, which such a task lacks."""
    opened, done = trio.Event(), trio.Event()
    loops: list[object] = []

    async def ask() -> None:
        await opened.wait()
        loops.append(await bounded_call(loop, CALL_SECONDS, running_loop))
        loops.append(trio_asyncio.current_loop.get())
        done.set()

    async def running_loop() -> object:
        return asyncio.get_running_loop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        async with open_loop() as loop:
            opened.set()
            await done.wait()
            assert loops == [loop.asyncio, None]


async def test_an_answer_is_read_in_its_own_loop_though_another_was_opened_since() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loops: list[object] = []

    class Listener(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            loops.append(asyncio.get_running_loop())

    async def heard() -> bool:
        return bool(loops)

    with theirs:
        async with open_loop() as loop, open_loop():
            connect = trio_asyncio.aio_as_trio(loop.asyncio.create_connection, loop=loop.asyncio)
            transport, _ = await connect(Listener, sock=ours)
            theirs.send(b"x")
            await eventually(lambda: bounded_call(loop, CALL_SECONDS, heard), bool)
            loop.asyncio.call_soon(transport.close)
            await trio.testing.wait_all_tasks_blocked()

    assert loops == [loop.asyncio]
