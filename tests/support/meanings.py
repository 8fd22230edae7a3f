"""An encoder that knows a few words: texts on the same subjects have near vectors. And a session's turns by it."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import trio
from lastcall.memory.meaning.encoder import DIMENSIONS, UNIT
from lastcall.memory.meaning.turns import with_meanings
from lastcall.memory.reading import read_in_process
from lastcall.runtime.check import CheckStatus
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.records import FinishedMemory, SessionStart

from tests.support.servers import empty

SUBJECTS = (
    {"home", "live", "town", "wohne", "stadt", "lyon"},
    {"boat", "ship", "boot", "gannet"},
    {"bread", "bake", "brot", "oven"},
)
OTHERS = len(SUBJECTS)  # the axis of texts on something else


@asynccontextmanager
async def open_meaning_store(url: str) -> AsyncIterator[PostgresStore]:
    """An empty store whose database has what search by meaning needs: one of its own, since others have none."""
    async with open_store(url) as store:
        assert (await store.prepare_meanings()).status is CheckStatus.OK
        await empty(store)
        yield store


async def encode_subjects(texts: Sequence[str]) -> Sequence[str]:
    """The vectors of texts, as `memory.meaning.encoder.Encode` has them."""
    await trio.lowlevel.checkpoint()
    return [_vector(text) for text in texts]


def _vector(text: str) -> str:
    words = set(re.findall(r"\w+", text.lower()))
    sizes = [float(len(words & subject)) for subject in SUBJECTS]
    sizes += [0.2 if any(sizes) else 1.0] + [0.0] * (DIMENSIONS - OTHERS - 1)
    length = math.hypot(*sizes)
    return f"[{','.join(str(round(UNIT * size / length)) for size in sizes)}]"


read_with_subjects = with_meanings(read_in_process, encode_subjects)


async def finished(world: Any, start: SessionStart) -> FinishedMemory:
    """A closed session of a store's `World`, claimed and read, with the meanings of its turns."""
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
    (reading,) = await read_with_subjects([claim.transcript])
    return FinishedMemory(UUID(claim.transcript.session_id), reading.memories, reading.passages, reading.meanings)
