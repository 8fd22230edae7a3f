"""The process that runs the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from ..agents.agent import AgentFailed, Message, Transcript
from .extract import RulesUnavailable
from .reading import Reading
from .worker.process import WorkerFailed, WorkerProcess, WorkerUnavailable, running

SENT_CHARS_MAX = 1_048_576  # of the newest messages of a role; the oldest of these may exceed it

_decode = msgspec.json.Decoder(list[Reading]).decode


class RulesProcess(WorkerProcess):
    """Reads transcripts in a process of its own: memories by the rules, and words for the index."""

    program = "rules_main"
    called = "the rules"

    async def read(self, transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        """What was found in each of these transcripts, one after the other.

        Raises:
            AgentFailed: One of them took too long, or ended the process. Alone, the others may not fail.
            RulesUnavailable: No process can be started now.
        """
        line = msgspec.json.encode([replace(each, messages=_newest(each.messages)) for each in transcripts]) + b"\n"
        try:
            return _decode(await self.ask(line))
        except WorkerFailed as error:
            raise AgentFailed("extraction_failed", str(error)) from error
        except WorkerUnavailable as error:
            raise RulesUnavailable(str(error)) from error


def _newest(messages: Sequence[Message]) -> list[Message]:
    """The newest messages of the user, and of the agent, whole, in their order; encoding all would hold up the loop."""
    taken, left = [], {"user": SENT_CHARS_MAX, "assistant": SENT_CHARS_MAX}
    for message in reversed(messages):
        if left.get(message.role, 0) > 0:
            taken.append(message)
            left[message.role] -= len(message.text)
    return taken[::-1]


@asynccontextmanager
async def open_rules_process(cpu_seconds: float, *, start: bool) -> AsyncIterator[RulesProcess]:
    """The process, until the block is left. start: in the background now; else when the first transcript comes."""
    async with running(RulesProcess(cpu_seconds), start=start) as process:
        yield process
