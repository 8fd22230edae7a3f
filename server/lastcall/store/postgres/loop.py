"""The asyncio loop that asyncpg runs on, inside Trio.

Its callbacks run where they arise: in the Trio task that asks the database, or in the one that has read its answer.
trio-asyncio sends each callback through a channel to its own task, which opens a cancel scope to wait for the next one.
A database call is ten callbacks in five passes of Trio's scheduler, and cost more than the query itself. Here it is two
passes: one sends the question, the other reads the answer and wakes the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import sniffio
import structlog
import trio_asyncio

from .network.sockets import set_up_sockets

HANDLES_MAX = 64  # callbacks in one go, before other Trio tasks have their turn
TIMERS_CANCELLED_MAX = 128  # kept until their time, unless they are fewer than the others

_log = structlog.get_logger(__name__)

WaitReady = Callable[[int], Awaitable[None]]


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[AsyncioLoop]:
    """Runs an asyncio loop for as long as the block lasts."""
    async with trio_asyncio.open_loop() as loop:
        # The default handler raises into trio-asyncio's nursery: one failed background future would end the server.
        loop.set_exception_handler(_log_only)
        set_up_sockets(loop)
        yield AsyncioLoop(loop)


def _log_only(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.debug("asyncio_exception", message=context.get("message"), error=repr(context.get("exception")))


class AsyncioLoop:
    """A loop of trio-asyncio, and the callbacks that are due, in their order.

    It replaces methods of the loop: asyncio's `call_soon`, `call_later` and `call_at`, and private ones of
    trio-asyncio, whose names test_loop.py checks.

    Attributes:
        asyncio: The loop itself.
    """

    def __init__(self, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self.asyncio = loop
        self._ready: deque[asyncio.Handle] = deque()
        self._running = False
        self._awaited = False  # whether trio-asyncio's task has been told of them
        self._tell_loop = loop.call_soon
        self._run_one = loop._main_loop_one  # noqa: SLF001
        self._timers = loop._timers  # noqa: SLF001
        self._timers_cancelled = 0
        loop.call_soon = self._call_soon
        loop.call_later = self._call_later
        loop.call_at = self._call_at
        loop._timer_handle_cancelled = self._timer_cancelled  # noqa: SLF001
        loop._main_loop_one = self._one_without_cancelled_timers  # noqa: SLF001
        loop._io_task = self._io_task  # noqa: SLF001

    def start(self, operation: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task of asyncio from Trio, and runs it up to where it first waits."""
        started: list[asyncio.Task[None]] = []
        # asyncio must find the loop it runs in, and the caller may be a task from before the loop was opened.
        outer = trio_asyncio.current_loop.set(self.asyncio)
        try:
            self.run(lambda: started.append(self.asyncio.create_task(operation)))
        finally:
            trio_asyncio.current_loop.reset(outer)
        return started[0]

    def run(self, first: Callable[[], object]) -> None:
        """Calls `first`, and then those callbacks that are due, up to a bound; the loop's own task runs the rest."""
        if self._running:
            first()
            return
        self._running = True
        library, sniffio.thread_local.name = sniffio.thread_local.name, "asyncio"
        try:
            first()
            for _ in range(HANDLES_MAX):
                if not self._ready:
                    break
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001
        finally:
            sniffio.thread_local.name = library
            self._running = False
            if self._ready:
                self._wake()

    def _wake(self) -> None:
        if not self._awaited:
            self._awaited = True
            self._tell_loop(self._run_in_loop)

    def _run_in_loop(self) -> None:
        self._awaited = False
        self.run(_nothing)

    # --- the loop's methods. None of them checks a callback: asyncio does that in debug mode only.

    def _call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.asyncio, context)
        self._ready.append(handle)
        if not self._running:
            self._wake()
        return handle

    def _call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_at(self.asyncio.time() + delay, callback, *args, context=context)

    def _call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.asyncio, context)
        heapq.heappush(self._timers, handle)
        if (
            self._timers[0] is handle
        ):  # else the loop's task wakes up for an earlier one, also for one that is cancelled
            self._wake()
        return handle

    def _timer_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """Every call sets timeouts and cancels them. Most are dropped many at once, long before their time."""
        self._timers_cancelled += 1
        if self._timers_cancelled > max(TIMERS_CANCELLED_MAX, len(self._timers) // 2):
            self._timers[:] = [each for each in self._timers if not each.cancelled()]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    async def _one_without_cancelled_timers(self, no_wait: bool = False) -> None:
        """Else the loop's task would wake up for each of them."""
        while self._timers and self._timers[0].cancelled():
            heapq.heappop(self._timers)
        await self._run_one(no_wait)

    async def _io_task(self, fd: int, handle: Any, wait_ready: WaitReady) -> None:
        """Calls back whenever a socket is ready. trio-asyncio's own leaves what follows from it to the loop's task."""
        trio_asyncio.current_loop.set(self.asyncio)  # whoever asked for the watching may come from another loop
        with handle._scope:  # noqa: SLF001
            try:
                while not handle.cancelled():
                    try:
                        await wait_ready(fd)
                    except OSError:
                        if handle.cancelled():  # the socket was closed at the same time
                            break
                        raise
                    if handle.cancelled():
                        break
                    self.run(handle._run)  # noqa: SLF001
                    if self._ready:  # among them may be one that stops the watching
                        await self.asyncio.synchronize()
            except Exception as error:  # noqa: BLE001 - told like any other failure of a callback
                handle._raise(error)  # noqa: SLF001


def _nothing() -> None:
    """What `run` calls where there is nothing to do first."""
