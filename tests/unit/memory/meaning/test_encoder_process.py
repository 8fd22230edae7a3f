"""Who waits for the encoder, and how long: questions first. The real process: tests/system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from lastcall.memory.meaning.encoder_process import TEXTS_MAX, UP_SECONDS, WAITING_MAX, EncoderProcess
from lastcall.memory.worker.process import WorkerFailed, WorkerUnavailable
from trio.testing import MockClock

LINE_SECONDS = 0.01


class Encoding(EncoderProcess):
    """Answers each line after a while. lines: of texts, in the order of their answers."""

    def __init__(self, *, ready: bool = True) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.failure: Exception | None = None
        self.answer: Callable[[list[str]], list[str]] = lambda texts: [f"[{text}]" for text in texts]
        self._process = cast("Any", object()) if ready else None

    async def ask(self, line: bytes, up_seconds: float | None = None) -> bytes:
        assert line.endswith(b"\n")
        texts = msgspec.json.decode(line, type=list[str])
        await trio.sleep(LINE_SECONDS if self._process is not None else up_seconds or 0.0)
        if self.failure is not None:
            raise self.failure
        self.lines.append(texts)
        return msgspec.json.encode(self.answer(texts)) + b"\n"


@asynccontextmanager
async def serving(encoder: Encoding) -> AsyncIterator[Encoding]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(encoder._serve)
        yield encoder
        nursery.cancel_scope.cancel()


async def test_each_text_has_its_own_vector(autojump_clock: MockClock) -> None:
    async with serving(Encoding()) as encoder:
        assert await encoder.encode_question(["a"]) == ["[a]"]
        texts = [f"turn {number}" for number in range(2 * TEXTS_MAX + 1)]
        assert await encoder.encode_turns(texts) == [f"[{text}]" for text in texts]
        assert [len(line) for line in encoder.lines] == [1, TEXTS_MAX, TEXTS_MAX, 1]


async def test_a_question_waits_for_one_line_of_turns_at_most(autojump_clock: MockClock) -> None:
    async with serving(Encoding()) as encoder, trio.open_nursery() as nursery:
        nursery.start_soon(encoder.encode_turns, ["turn"] * 10 * TEXTS_MAX)
        nursery.start_soon(encoder.encode_turns, ["turn"] * 10 * TEXTS_MAX)
        await trio.sleep(1.5 * LINE_SECONDS)
        began = trio.current_time()
        assert await encoder.encode_question(["question"]) == ["[question]"]
        assert trio.current_time() - began <= 2 * LINE_SECONDS
        nursery.cancel_scope.cancel()


async def test_whoever_stops_waiting_costs_nobody_the_process(autojump_clock: MockClock) -> None:
    """An exchange that is cancelled would leave its answer to the next one."""
    async with serving(Encoding()) as encoder:
        with trio.move_on_after(LINE_SECONDS / 2):
            await encoder.encode_question(["late"])
        async with trio.open_nursery() as nursery:
            for text in ("a", "b"):
                nursery.start_soon(encoder.encode_question, [text])
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()  # these wait behind the first
        assert await encoder.encode_question(["next"]) == ["[next]"]
        assert encoder.lines == [["late"], ["next"]]


async def test_a_question_does_not_wait_for_a_process_and_turns_do_for_a_moment(autojump_clock: MockClock) -> None:
    async with serving(Encoding(ready=False)) as encoder:
        assert await encoder.encode_question(["question"]) is None
        encoder.failure = WorkerUnavailable("none")
        began = trio.current_time()
        assert await encoder.encode_turns(["turn"]) is None
        assert trio.current_time() - began == pytest.approx(UP_SECONDS)
        assert await encoder.encode_turns(["turn"]) is None
        assert trio.current_time() - began == pytest.approx(UP_SECONDS)  # once is enough
        encoder.failure = None
        assert await encoder.encode_turns(["turn"]) == ["[turn]"]


async def test_no_more_than_so_many_questions_wait(autojump_clock: MockClock) -> None:
    found: list[object] = []

    async def ask(encoder: Encoding) -> None:
        found.append(await encoder.encode_question(["question"]))

    async with serving(Encoding()) as encoder, trio.open_nursery() as nursery:
        for _ in range(WAITING_MAX + 10):
            nursery.start_soon(ask, encoder)
    assert found.count(None) in (9, 10)  # whether the first one is in hand already
    assert len(found) == WAITING_MAX + 10


async def test_a_line_that_fails_fails_alone(autojump_clock: MockClock) -> None:
    async with serving(Encoding()) as encoder:
        encoder.failure = WorkerFailed("too long")
        assert await encoder.encode_turns(["turn"]) is None
        encoder.failure = None
        encoder.answer = lambda _: []
        assert await encoder.encode_turns(["turn"]) is None  # fewer vectors than texts
        encoder.answer = lambda texts: texts
        assert await encoder.encode_turns(["turn"]) == ["turn"]
        assert await encoder.encode_turns([]) == []
