"""The process that runs the rules: a text that takes them long costs neither the event loop nor other sessions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog
import trio

from ..agents.agent import AgentFailed, Message, Transcript
from .extract import RulesUnavailable
from .reading import Reading
from .rules_main import READY

START_SECONDS = 10.0
UP_SECONDS = 30.0  # that a transcript waits for a process to be there
ANSWER_SECONDS = 10.0  # of the wall clock, however little CPU time that was
END_SECONDS = 2.0  # for the kernel to end a killed process
BACKOFF_SECONDS_MIN = 0.1  # before a process that ended is replaced; doubled while none answers
BACKOFF_SECONDS_MAX = 30.0
SENT_CHARS_MAX = 1_048_576  # of the newest messages of a role; the oldest of these may exceed it
ANSWER_BYTES_MAX = 4_194_304
CHUNK_BYTES = 65_536
SPENT = -signal.SIGPROF  # the exit code of a process whose transcript took more than its CPU time

_PACKAGE_FOLDER = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from lastcall.memory.rules_main import main; main(float(sys.argv[2]))"
)

_decode = msgspec.json.Decoder(list[Reading]).decode
_log = structlog.get_logger(__name__)


class RulesProcess:
    """Reads transcripts in a process of its own: memories by the rules, and words for the index.

    cpu_seconds: CPU time that one transcript may take. Beyond it the process is ended, and replaced.
    """

    def __init__(self, cpu_seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._wanted = trio.Event()
        self._turn = trio.Lock()
        self._process: trio.Process | None = None  # that is ready
        self._ready = trio.Event()
        self._backoff_seconds = BACKOFF_SECONDS_MIN

    def start(self) -> None:
        """Has the process started now, not by the first transcript."""
        self._wanted.set()

    async def read(self, transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        """What was found in each of these transcripts, one after the other.

        Raises:
            AgentFailed: One of them took too long, or ended the process. Alone, the others may not fail.
            RulesUnavailable: No process can be started now.
        """
        line = msgspec.json.encode([replace(each, messages=_newest(each.messages)) for each in transcripts]) + b"\n"
        self.start()
        while True:
            await self._until_ready()
            async with self._turn:
                if self._process is not None:
                    return _decode(await self._ask(self._process, line))

    async def _until_ready(self) -> None:
        with trio.move_on_after(UP_SECONDS):
            while self._process is None:
                await self._ready.wait()
            return
        raise RulesUnavailable(f"no process for the rules within {UP_SECONDS:g} s")

    async def _ask(self, process: trio.Process, line: bytes) -> bytes:
        answer = b""
        try:
            with trio.move_on_after(ANSWER_SECONDS) as limit:
                answer = await _exchange(process, line)
        finally:
            if not answer:  # also where the caller was cancelled: the next one must not read this answer
                self._gone(process)
                process.kill()
        if not answer:
            raise AgentFailed("extraction_failed", await self._failure(process, late=limit.cancelled_caught))
        self._backoff_seconds = BACKOFF_SECONDS_MIN
        return answer

    async def _failure(self, process: trio.Process, *, late: bool) -> str:
        if late:
            return f"the rules took longer than {ANSWER_SECONDS:g} s"
        with trio.move_on_after(END_SECONDS):
            if await process.wait() == SPENT:
                return f"the rules took more than {self._cpu_seconds:g} s of CPU time"
        return f"the process of the rules ended (exit code {process.returncode})"

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
                _log.warning("rules_process_not_started", reason=repr(error), again_seconds=self._backoff_seconds)
            else:
                _log.warning("rules_process_ended", exit_code=code, again_seconds=self._backoff_seconds)
            await trio.sleep(self._backoff_seconds)
            if code != SPENT:  # that is a transcript's fault, and its tries are bounded
                self._backoff_seconds = min(2 * self._backoff_seconds, BACKOFF_SECONDS_MAX)

    async def _run_once(self) -> int:
        """Runs a process until it ends; returns its exit code. Raises where it does not start."""
        async with _started(self._cpu_seconds) as process:
            self._process = process
            self._ready.set()
            try:
                return await process.wait()
            finally:
                self._gone(process)


@asynccontextmanager
async def _started(cpu_seconds: float) -> AsyncIterator[trio.Process]:
    """A process that is ready. Raises `OSError` or `trio.TooSlowError` where it does not start."""
    # With -P: modules in the working directory must not shadow the standard library.
    command = [sys.executable, "-P", "-c", _PROGRAM, _PACKAGE_FOLDER, str(cpu_seconds)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(START_SECONDS):
            if await _read_line(process.stdout) != READY:
                raise OSError("the process of the rules ended before it was ready")
        yield process
    finally:
        process.kill()  # it has no state to save
        with trio.move_on_after(END_SECONDS, shield=True):
            await process.wait()
        await trio.aclose_forcefully(process.stdin)
        await trio.aclose_forcefully(process.stdout)


def _newest(messages: Sequence[Message]) -> list[Message]:
    """The newest messages of the user, and of the agent, whole, in their order; encoding all would hold up the loop."""
    taken, left = [], {"user": SENT_CHARS_MAX, "assistant": SENT_CHARS_MAX}
    for message in reversed(messages):
        if left.get(message.role, 0) > 0:
            taken.append(message)
            left[message.role] -= len(message.text)
    return taken[::-1]


async def _exchange(process: trio.Process, line: bytes) -> bytes:
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


@asynccontextmanager
async def open_rules_process(cpu_seconds: float, *, start: bool) -> AsyncIterator[RulesProcess]:
    """The process, until the block is left. start: in the background now; else when the first transcript comes."""
    process = RulesProcess(cpu_seconds)
    if start:
        process.start()
    async with trio.open_nursery() as supervision:
        supervision.start_soon(process.run)
        try:
            yield process
        finally:
            supervision.cancel_scope.cancel()
