"""The supervision of the process that runs the rules, in virtual time. The real one: tests/system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from lastcall.agents.agent import Message
from lastcall.memory import rules_process
from lastcall.memory.rules_process import SENT_CHARS_MAX, RulesProcess
from lastcall.memory.worker import process as worker
from lastcall.memory.worker.process import BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN, SPENT
from trio.testing import MockClock


@dataclass
class Processes:
    """When processes were started, and the exit code with which each ends at once."""

    starts: list[float] = field(default_factory=list)
    code: int = 1

    @asynccontextmanager
    async def started(self, _program: str, _cpu_seconds: float) -> AsyncIterator[Any]:
        self.starts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        yield SimpleNamespace(wait=self._wait)

    async def _wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.code

    @property
    def pauses(self) -> list[float]:
        return [round(later - earlier, 6) for earlier, later in pairwise(self.starts)]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr(worker, "_started", made.started)
    return made


async def run_for(seconds: float) -> None:
    process = RulesProcess(2.0)
    process.start()
    with trio.move_on_after(seconds):
        await process.run()


async def test_a_process_that_keeps_ending_is_replaced_ever_more_slowly(
    processes: Processes, autojump_clock: MockClock
) -> None:
    await run_for(600)
    assert processes.pauses[0] == BACKOFF_SECONDS_MIN
    assert processes.pauses == sorted(processes.pauses)
    assert processes.pauses[-1] == BACKOFF_SECONDS_MAX


async def test_one_that_was_ended_for_its_transcript_is_replaced_at_once(
    processes: Processes, autojump_clock: MockClock
) -> None:
    processes.code = SPENT
    await run_for(10 * BACKOFF_SECONDS_MIN)
    assert set(processes.pauses) == {BACKOFF_SECONDS_MIN}


async def test_none_is_started_before_it_is_wanted(processes: Processes, autojump_clock: MockClock) -> None:
    with trio.move_on_after(60):
        await RulesProcess(2.0).run()
    assert processes.starts == []


def test_the_newest_messages_of_user_and_agent_are_sent_and_nothing_else() -> None:
    long = "x" * (SENT_CHARS_MAX // 2)
    said = [Message("user", long, f"item_{number}") for number in range(5)]
    messages = [*said[:3], Message("assistant", long, "a"), *said[3:], Message("system", "s", "s")]
    answer = messages[3]
    assert rules_process._newest(messages) == [answer, *said[3:]]
    assert rules_process._newest([*said, Message("user", "y", "z")])[0] is said[3]
