"""A process that answers lines: what takes long there costs neither the event loop nor other sessions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from .serving import READY

START_SECONDS = 10.0
UP_SECONDS = 30.0  # that a line waits for a process to be there
ANSWER_SECONDS = 10.0  # of the wall clock, however little CPU time that was
END_SECONDS = 2.0  # for the kernel to end a killed process
BACKOFF_SECONDS_MIN = 0.1  # before a process that ended is replaced; doubled while none answers
BACKOFF_SECONDS_MAX = 30.0
ANSWER_BYTES_MAX = 4_194_304
CHUNK_BYTES = 65_536
SPENT = -signal.SIGPROF  # the exit code of a process that took more than its CPU time

_PACKAGE_FOLDER = str(Path(__file__).parents[3])
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from lastcall.memory.{} import main; main(float(sys.argv[2]))"

_log = structlog.get_logger(__name__)


class WorkerUnavailable(Exception):
    """No process can be started now, whatever the line; the server's trouble."""


class WorkerFailed(Exception):
    """A line took too long, or ended the process."""


class WorkerProcess:
    """Keeps a process running, and exchanges lines with it, one at a time.

    program: its module in `memory`, with a `main`. called: by people. cpu_seconds: CPU time that one piece of work
    may take. Beyond it the process is ended, and replaced.
    """

    program: str
    called: str

    def __init__(self, cpu_seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._wanted = trio.Event()
        self._turn = trio.Lock()
        self._process: trio.Process | None = None  # that is ready
        self._ready = trio.Event()
        self._backoff_seconds = BACKOFF_SECONDS_MIN

    def start(self) -> None:
        """Has the process started now, not by the first line."""
        self._wanted.set()

    async def ask(self, line: bytes, up_seconds: float | None = None) -> bytes:
        """The answer to a line, once those before it have theirs. Both end with a newline.

        up_seconds: that it waits for a process to be there; default `UP_SECONDS`.

        Raises:
            WorkerFailed: It took too long, or ended the process. The next one is answered by another process.
            WorkerUnavailable: There is no process.
        """
        self.start()
        while True:
            await self._until_ready(UP_SECONDS if up_seconds is None else up_seconds)
            async with self._turn:
                if self._process is not None:
                    return await self._exchange(self._process, line)

    async def _until_ready(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._process is None:
                await self._ready.wait()
            return
        raise WorkerUnavailable(f"no process of {self.called} within {seconds:g} s")

    async def _exchange(self, process: trio.Process, line: bytes) -> bytes:
        answer = b""
        try:
            with trio.move_on_after(ANSWER_SECONDS) as limit:
                answer = await _send(process, line)
        finally:
            if not answer:  # also where the caller was cancelled: the next one must not read this answer
                self._gone(process)
                process.kill()
        if not answer:
            raise WorkerFailed(await self._failure(process, late=limit.cancelled_caught))
        self._backoff_seconds = BACKOFF_SECONDS_MIN
        return answer

    async def _failure(self, process: trio.Process, *, late: bool) -> str:
        if late:
            return f"{self.called} took longer than {ANSWER_SECONDS:g} s"
        with trio.move_on_after(END_SECONDS):
            if await process.wait() == SPENT:
                return f"{self.called} took more than {self._cpu_seconds:g} s of CPU time"
        return f"the process of {self.called} ended (exit code {process.returncode})"

    def _gone(self, process: trio.Process) -> None:
        if self._process is process:
            self._process, self._ready = None, trio.Event()

    async def run(self) -> None:
        """Keeps one process running, from when it is wanted until this is cancelled."""
        await self._wanted.wait()
        while True:
            try:
                code = await self._run_once()
            except (OSError, trio.TooSlowError) as error:
                code = None
                _log.warning("child_process_not_started", reason=repr(error), **self._again)
            else:
                _log.warning("child_process_ended", exit_code=code, **self._again)
            await trio.sleep(self._backoff_seconds)
            if code != SPENT:  # that is a line's fault, and its tries are bounded
                self._backoff_seconds = min(2 * self._backoff_seconds, BACKOFF_SECONDS_MAX)

    @property
    def _again(self) -> dict[str, Any]:
        return {"process": self.called, "again_seconds": self._backoff_seconds}

    async def _run_once(self) -> int:
        """Runs a process until it ends; returns its exit code. Raises where it does not start."""
        async with _started(self.program, self._cpu_seconds) as process:
            self._process = process
            self._ready.set()
            try:
                return await process.wait()
            finally:
                self._gone(process)


@asynccontextmanager
async def _started(program: str, cpu_seconds: float) -> AsyncIterator[trio.Process]:
    """A process that is ready. Raises `OSError` or `trio.TooSlowError` where it does not start."""
    # With -P: modules in the working directory must not shadow the standard library.
    command = [sys.executable, "-P", "-c", _PROGRAM.format(program), _PACKAGE_FOLDER, str(cpu_seconds)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(START_SECONDS):
            if await _read_line(process.stdout) != READY:
                raise OSError("it ended before it was ready")
        yield process
    finally:
        process.kill()  # it has no state to save
        with trio.move_on_after(END_SECONDS, shield=True):
            await process.wait()
        await trio.aclose_forcefully(process.stdin)
        await trio.aclose_forcefully(process.stdout)


async def _send(process: trio.Process, line: bytes) -> bytes:
    """Sends one line and reads the answer; empty where the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send_all(line)
        return await _read_line(process.stdout)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


async def _read_line(pipe: trio.abc.ReceiveStream) -> bytes:
    """One whole line, or nothing."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = await pipe.receive_some(CHUNK_BYTES)
        line += part
        if not part or len(line) > ANSWER_BYTES_MAX:
            return b""
    return bytes(line)


Worker = TypeVar("Worker", bound=WorkerProcess)


@asynccontextmanager
async def running(worker: Worker, *, start: bool) -> AsyncIterator[Worker]:
    """The process, until the block is left. start: in the background now; else when the first line comes."""
    if start:
        worker.start()
    async with trio.open_nursery() as supervision:
        supervision.start_soon(worker.run)
        try:
            yield worker
        finally:
            supervision.cancel_scope.cancel()
