"""Several server processes on one port: started, kept running, replaced one by one, and ended together.

The supervisor binds the port and hands the socket on. All workers accept from the same queue, so while one of them is
replaced, whoever connects waits there for another. With a socket for each (SO_REUSEPORT), the kernel would reset what
waits for the one that ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import cast

import structlog
import trio

from ..config import Settings
from ..runtime.service_manager import ServiceManager
from ..runtime.signals import ALL_END, ENDING, signal_name, signals_to_take
from ..runtime.watchdog import FORCE_MARGIN_SECONDS
from ..transport.port import Port, open_port
from .inherited import InheritedSockets
from .worker import Worker, start_worker

BACK_OFF_SECONDS_MIN, BACK_OFF_SECONDS_MAX = 0.5, 30.0  # before a worker that crashed is started again
STEADY_SECONDS = 60.0  # after which a crash counts as the first one
START_SECONDS_MAX = 120.0  # for a worker to take connections
KILL_MARGIN_SECONDS = 3.0  # beyond the time after which a worker would end itself
BEAT_SECONDS = 1.0
EXIT_FORCED = 70

_log = structlog.get_logger(__name__)


class Supervisor:
    """Runs the workers.

    Args:
        settings: `workers` says how many.
        manager: Is told how they are.
        announce: Called once all take connections, with what the first one told.
    """

    def __init__(
        self, settings: Settings, manager: ServiceManager, announce: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._announce = announce
        self._workers: dict[int, Worker] = {}  # by slot; the newest, while one is being replaced
        self._all: list[Worker] = []  # that have been started and not ended
        self._stop, self._roll = trio.Event(), trio.Event()
        self._code = 0
        self._end_seconds = settings.drain_delay + settings.drain_seconds + FORCE_MARGIN_SECONDS + KILL_MARGIN_SECONDS

    async def run(self, inherited: InheritedSockets) -> int:
        """Runs until a signal ends it; the exit code. Raises `CannotListen`."""
        settings = self._settings
        async with AsyncExitStack() as opened:
            self._clients = await opened.enter_async_context(open_port(settings.host, settings.port, inherited.clients))
            self._admin: dict[int, Port] = {}
            for slot in range(1, settings.workers + 1) if settings.admin_port is not None else ():
                number = settings.admin_port and settings.admin_port + slot - 1
                port = await opened.enter_async_context(open_port(settings.admin_host, number or 0))
                self._admin[slot] = port
            async with trio.open_nursery() as self._watching, trio.open_nursery() as background:
                await background.start(self._receive_signals)
                background.start_soon(self._beat)
                await self._run_workers()
                background.cancel_scope.cancel()
        return self._code

    async def _run_workers(self) -> None:
        async with trio.open_nursery() as keeping:
            # The first one alone: it may create a database, and says what is wrong with the settings.
            for slots in ([1], range(2, self._settings.workers + 1)):
                started = [self._start(slot) for slot in slots]
                for worker in started:
                    await self._wait_until_ready(worker)
                if not self._stop.is_set() and not all(worker.ready.is_set() for worker in started):
                    self._code = next((each.code for each in started if each.code > 0), EXIT_FORCED)
                    self._stop.set()
                if self._stop.is_set():
                    break
            else:
                self._manager.ready(f"{self._settings.workers} workers serve")
                self._announce(self._workers[1].fields)
                for slot in self._workers:
                    keeping.start_soon(self._keep, slot)
                keeping.start_soon(self._replace_when_asked)
            await self._stop.wait()
            await self._end_all()
            keeping.cancel_scope.cancel()

    # --- one worker

    def _start(self, slot: int) -> Worker:
        admin = self._admin[slot].descriptors if slot in self._admin else []
        worker = start_worker(slot, self._clients.descriptors, admin, os.environ)
        self._workers[slot] = worker
        self._all = [each for each in self._all if not each.exited.is_set()] + [worker]
        self._watching.start_soon(worker.watch)
        _log.info("worker_started", worker=slot, pid=worker.pid)
        return worker

    async def _wait_until_ready(self, worker: Worker) -> bool:
        """Whether it takes connections; False where it ended, took too long, or a shutdown began."""
        with trio.move_on_after(START_SECONDS_MAX):
            async with trio.open_nursery() as waiting:

                async def wait(event: trio.Event) -> None:
                    await event.wait()
                    waiting.cancel_scope.cancel()

                for event in (worker.ready, worker.exited, self._stop):
                    waiting.start_soon(wait, event)
        return worker.ready.is_set() and not worker.exited.is_set()

    async def _keep(self, slot: int) -> None:
        """Starts a worker again whenever it crashes, after a pause that grows while it goes on crashing."""
        pause = BACK_OFF_SECONDS_MIN
        while True:
            worker = self._workers[slot]
            await worker.exited.wait()
            if worker.ended_by_us or self._workers[slot] is not worker:
                await trio.sleep(BEAT_SECONDS)  # it is being replaced, or all end
                continue
            if trio.current_time() - worker.began >= STEADY_SECONDS:
                pause = BACK_OFF_SECONDS_MIN
            _log.error("worker_crashed", worker=slot, pid=worker.pid, code=worker.code, again_in_seconds=pause)
            await trio.sleep(pause)
            pause = min(2 * pause, BACK_OFF_SECONDS_MAX)
            if self._workers[slot] is worker and not self._stop.is_set():
                self._start(slot)

    # --- all of them

    async def _replace_when_asked(self) -> None:
        while True:
            await self._roll.wait()
            self._roll = trio.Event()
            self._manager.reloading()
            _log.info("workers_replaced" if await self._replace_all() else "workers_not_replaced")
            self._manager.ready(f"{self._settings.workers} workers serve")

    async def _replace_all(self) -> bool:
        """Replaces one after the other. The first that does not start ends it: the others go on as they are."""
        for slot in sorted(self._workers):
            old = self._workers[slot]
            new = self._start(slot)
            if not await self._wait_until_ready(new):
                if self._stop.is_set():
                    return False
                _log.error("worker_not_replaced", worker=slot, code=new.code)
                new.end(signal.SIGKILL)
                self._workers[slot] = old
                return False
            await self._end(old)
        return True

    async def _end(self, worker: Worker, number: signal.Signals = signal.SIGTERM) -> None:
        worker.end(number)
        with trio.move_on_after(self._end_seconds):
            await worker.exited.wait()
            return
        _log.error("worker_killed", worker=worker.slot, pid=worker.pid)
        worker.kill()
        await worker.exited.wait()

    async def _end_all(self) -> None:
        self._manager.stopping()
        self._clients.close()  # once the last worker has stopped accepting, whoever connects is refused at once
        living = [each for each in self._all if not each.exited.is_set()]
        async with trio.open_nursery() as ending:
            for worker in living:
                # Before it is ready, it may be a Python that has no handler yet: SIGQUIT would have it dump its core.
                ending.start_soon(self._end, worker, ALL_END if worker.ready.is_set() else signal.SIGTERM)
        in_order = {0, -signal.SIGTERM}  # the second: before there was anything to shut down
        if not self._code and not {worker.code for worker in living} <= in_order:
            self._code = EXIT_FORCED

    async def _beat(self) -> None:
        """Ends workers that are stuck, and tells the manager that the supervisor is not."""
        while True:
            self._manager.loop_runs()
            for worker in self._all:
                if worker.is_stuck and not worker.exited.is_set():
                    _log.error("worker_stuck", worker=worker.slot, pid=worker.pid)
                    worker.kill()
            await trio.sleep(BEAT_SECONDS)

    async def _receive_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        numbers = cast("Sequence[signal.Signals]", signals_to_take())  # real-time signals have no names
        with trio.open_signal_receiver(*numbers) as received:
            task_status.started()
            async for number in received:
                _log.info("signal", name=signal_name(number))
                if number == signal.SIGHUP:
                    self._roll.set()
                elif number in ENDING and not self._stop.is_set():
                    self._stop.set()
                elif number in ENDING:
                    for worker in self._all:
                        worker.end()  # a second signal, which cuts their waiting short
