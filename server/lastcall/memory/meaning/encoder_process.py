"""The process that has the encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import structlog
import trio

from ..facts.redaction import SECRET_CHARS_READ
from ..worker.process import WorkerFailed, WorkerProcess, WorkerUnavailable, running
from .encoder import TEXT_CHARS_MAX

CPU_SECONDS = 1.0  # of a line: TEXTS_MAX of the longest texts take a tenth of that
UP_SECONDS = 20.0  # that turns wait for a process to be there, once; questions do not wait
TEXTS_MAX = 16  # of a line, so that questions come in between
WAITING_MAX = 64  # questions that wait; further ones get no answer
SENT_CHARS_MAX = TEXT_CHARS_MAX + SECRET_CHARS_READ  # of a text

_decode = msgspec.json.Decoder(list[str]).decode
_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _WaitingTexts:
    """Texts that wait for their vectors. is_wanted: whether anybody still waits for them."""

    texts: Sequence[str]
    up_seconds: float
    is_wanted: bool = True
    vectors: Sequence[str] | None = None
    done: trio.Event = field(default_factory=trio.Event)


class EncoderProcess(WorkerProcess):
    """Encodes in a process of its own: questions first, each of which may interrupt a session's turns."""

    program = "meaning.encoder_main"
    called = "the encoder"

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        super().__init__(cpu_seconds)
        self._questions: deque[_WaitingTexts] = deque()
        self._turns: deque[_WaitingTexts] = deque()  # as many as memory workers
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_awaited = True  # else it was not there in time, and until it is, memory does not wait for it again

    async def encode_question(self, texts: Sequence[str]) -> Sequence[str] | None:
        """The vectors of a question's texts; None where they cannot be had soon. A caller may stop waiting."""
        if self._process is None or len(self._questions) >= WAITING_MAX:
            await trio.lowlevel.checkpoint()
            return None
        return await self._queued(self._questions, _WaitingTexts([text[:SENT_CHARS_MAX] for text in texts], 0.0))

    async def encode_turns(self, texts: Sequence[str]) -> Sequence[str] | None:
        """The vectors of a session's texts, some at a time; None where they cannot be had."""
        vectors: list[str] = []
        for start in range(0, len(texts), TEXTS_MAX):
            part = [text[:SENT_CHARS_MAX] for text in texts[start : start + TEXTS_MAX]]
            found = await self._queued(self._turns, _WaitingTexts(part, UP_SECONDS))
            if found is None:
                return None
            vectors += found
        return vectors

    async def _queued(self, queue: deque[_WaitingTexts], request: _WaitingTexts) -> Sequence[str] | None:
        queue.append(request)
        self._waiting.unpark()
        try:
            await request.done.wait()
        finally:
            request.is_wanted = False
        return request.vectors

    async def run(self) -> None:
        """Keeps one process running, and serves those who wait, until this is cancelled."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(super().run)
            tasks.start_soon(self._serve)

    async def _serve(self) -> None:
        """In a task of its own: where a caller were cancelled in an exchange, its process would have to be ended."""
        while True:
            while not (self._questions or self._turns):
                await self._waiting.park()
            request = (self._questions or self._turns).popleft()
            try:
                if request.is_wanted:
                    request.vectors = await self._encode(request)
            finally:
                request.done.set()

    async def _encode(self, request: _WaitingTexts) -> Sequence[str] | None:
        up_seconds = request.up_seconds if self._is_awaited else 0.0
        try:
            vectors = _decode(await self.ask(msgspec.json.encode(request.texts) + b"\n", up_seconds))
            self._is_awaited = True
        except (WorkerFailed, WorkerUnavailable) as error:
            self._is_awaited = isinstance(error, WorkerFailed)
            _log.warning("not_encoded", texts=len(request.texts), reason=str(error))
            return None
        return vectors if len(vectors) == len(request.texts) else None


@asynccontextmanager
async def open_encoder_process() -> AsyncIterator[EncoderProcess]:
    """The process, until the block is left."""
    async with running(EncoderProcess(), start=True) as process:
        yield process
