"""Puts pasts into the product and asks it: its finalizer, its worker process, its statements, on a real PostgreSQL."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import trio
from lastcall.agents.echo import EchoAgent
from lastcall.config import Settings
from lastcall.memory.fence import tokens_of
from lastcall.memory.finalizer import Finalizer, open_finalizer
from lastcall.memory.meaning.encoder import EXTRA, Encode, is_installed
from lastcall.memory.meaning.encoder_process import open_encoder_process
from lastcall.memory.meaning.turns import with_meanings
from lastcall.memory.reading import SessionReader
from lastcall.memory.rules_process import RulesProcess, open_rules_process
from lastcall.memory.search.asking import may_call_for_past
from lastcall.memory.search.quoting import quoted
from lastcall.memory.search.recalling import Names, Question, question_of, recall_turns, search_turns
from lastcall.runtime.check import CheckStatus
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.records import EndReason, PastTurn, SessionEnd, SessionStart, StoredItem

from tests.support.instances import instance
from tests.support.waiting import eventually

from .baselines import Bm25, last_messages
from .samples import Sample

DEPTHS = (5, 10, 20)
WITHIN = 30.0
SESSION_SECONDS = 600.0  # that a session of the past lasted
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class NotIndexed(Exception):
    """The product has not indexed what it was given; the message is one line."""


@dataclass(slots=True)
class Recall:
    """The share of the evidence that is among the first turns, summed over questions, by method and depth."""

    questions: int = 0
    found: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, method: str, found: Sequence[str], evidence: Sequence[str], depths: Sequence[int] = DEPTHS) -> None:
        for depth in depths:
            self.found[method, depth] += sum(each in found[:depth] for each in evidence) / len(evidence)  # type: ignore[assignment]

    def figures(self, method: str, depths: Sequence[int] = DEPTHS) -> dict[str, float]:
        return {str(depth): round(self.found[method, depth] / max(self.questions, 1), 4) for depth in depths}


class Bench:
    """A store, and the finalizer that indexes what is put into it."""

    def __init__(self, store: PostgresStore, finalizer: Finalizer, encode: Encode | None = None) -> None:
        self._store = store
        self._encode = encode
        self._finalizer = finalizer
        self._instance_id = uuid4()

    async def register(self) -> None:
        await self._store.register_instance(instance(self._instance_id))

    async def put(self, sample: Sample, done: Callable[[], object] = lambda: None) -> None:
        """Stores a user's past as sessions that have ended, and has them finalized. Raises `NotIndexed`."""
        for session in sample.sessions:
            age = (datetime.now(UTC) - session.at).total_seconds()
            start = SessionStart(
                session_id=uuid4(),
                conversation_id=uuid4(),
                user_id=sample.user_id,
                instance_id=self._instance_id,
                started=trio.current_time() - age,
            )
            await self._store.begin_session(start, within=WITHIN)
            items = [
                StoredItem(
                    session_id=start.session_id,
                    conversation_id=start.conversation_id,
                    item_id=turn.item_id,
                    position=position,
                    role=turn.who,
                    content=turn.text,
                    status="completed",
                )
                for position, turn in enumerate(session.turns)
            ]
            await self._store.append_items(items, within=WITHIN)
            end = SessionEnd(
                session_id=start.session_id,
                instance_id=self._instance_id,
                ended=trio.current_time() - age + min(SESSION_SECONDS, age),
                reason=EndReason.CLIENT_CLOSED,
                close_code=1000,
            )
            await self._store.end_session(end)
            await self._finalizer.finalize(start.session_id)
            done()
        await self._until_finalized(sample)
        rows = await self._store.select(
            "SELECT count(DISTINCT session_id) FROM recall_passages WHERE user_id = $1", sample.user_id
        )
        # A session in which the user said nothing leaves no memory.
        spoken = sum(any(turn.who == "user" for turn in session.turns) for session in sample.sessions)
        if rows[0][0] != spoken:
            raise NotIndexed(f"{rows[0][0]} of {spoken} sessions of {sample.user_id} are indexed")

    async def _until_finalized(self, sample: Sample) -> None:
        """The finalizer's own sweep may have claimed a session before it was asked for, and be at it yet."""
        pending = "SELECT FROM conversation_sessions WHERE user_id = $1 AND memory_status = 'pending' LIMIT 1"
        with suppress(AssertionError):  # what is missing is told below
            await eventually(lambda: self._store.select(pending, sample.user_id), lambda rows: not rows, within=WITHIN)

    async def settle(self) -> None:
        """As the database is after a while: with statistics."""
        for table in ("recall_passages", "recall_lexemes", "messages", "conversation_sessions"):
            await self._store.select(f"ANALYZE {table}")

    async def recall(self, samples: Sequence[Sample], *, baselines: bool = True) -> Recall:
        """The recall of every question that has evidence, by a search, and by the baselines."""
        recall = Recall()
        for sample in samples:
            bm25, newest = Bm25(sample), list(last_messages(sample))
            for question in sample.questions:
                if not (evidence := list(question.evidence)):
                    continue
                recall.questions += 1
                turns = await self._search(sample, question.text)
                recall.add("product", [turn.item_id for turn in turns], evidence, (1, *DEPTHS))
                if baselines:
                    recall.add("bm25", bm25.search(question.text, 20), evidence)
                    recall.add("last_50", newest, evidence, (len(newest),))
        return recall

    async def brought(self, samples: Sequence[Sample], texts: Callable[[Sample], Sequence[str]]) -> list[int]:
        """The tokens that come back for each text, unasked."""
        return [
            tokens_of(quoted(await self._unasked(sample, text)) or "") - 1
            for sample in samples
            for text in texts(sample)
        ]

    async def _unasked(self, sample: Sample, text: str) -> Sequence[PastTurn]:
        if not may_call_for_past(text):
            return ()
        return await recall_turns(self._store, sample.user_id, self._question(sample, text), self._encode)

    async def _search(self, sample: Sample, text: str) -> Sequence[PastTurn]:
        return await search_turns(self._store, sample.user_id, self._question(sample, text), 20, self._encode)

    async def cost(self, sample: Sample, questions: Sequence[str]) -> dict[str, float]:
        """What a lookup takes: CPU of this process and of PostgreSQL, and time, in milliseconds."""
        for text in questions[:20]:  # until each connection has its plans
            await self._search(sample, text)
        pids = [
            row[0]
            for row in await self._store.select(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
        ]
        took: list[float] = []
        own, database = time.process_time(), _cpu_seconds(pids)
        for text in questions:
            began = time.perf_counter()
            await self._search(sample, text)
            took.append(time.perf_counter() - began)
        own, database = time.process_time() - own, _cpu_seconds(pids) - database
        return {
            "server_cpu_ms": round(1000 * own / len(questions), 2),
            "database_cpu_ms": round(1000 * database / len(questions), 2),
            "p50_ms": round(1000 * percentile(took, 50), 2),
            "p99_ms": round(1000 * percentile(took, 99), 2),
        }

    @staticmethod
    def _question(sample: Sample, text: str) -> Question:
        return question_of(text, Names(sample.user_names, sample.agent_names))


@asynccontextmanager
async def open_bench(url: str, *, meaning: bool = False) -> AsyncIterator[Bench]:
    """A bench on an empty database. meaning: search by meaning, too. Raises `NotIndexed` where that cannot be."""
    settings = Settings()
    async with (
        open_store(url) as store,
        open_rules_process(settings.memory_cpu_seconds, start=True) as rules,
        _reader(store, rules, meaning=meaning) as (read, encode),
        open_finalizer(store, EchoAgent(), settings, read) as finalizer,
    ):
        bench = Bench(store, finalizer, encode)
        await bench.register()
        yield bench


@asynccontextmanager
async def _reader(
    store: PostgresStore, rules: RulesProcess, *, meaning: bool
) -> AsyncIterator[tuple[SessionReader, Encode | None]]:
    """What reads sessions, and what encodes questions."""
    if not meaning:
        yield rules.read, None
        return
    check = await store.prepare_meanings()
    if not is_installed() or check.status is not CheckStatus.OK:
        raise NotIndexed(str(check) if is_installed() else f"{EXTRA} is not installed")
    async with open_encoder_process() as encoder:
        yield with_meanings(rules.read, encoder.encode_turns), encoder.encode_question


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1] if values else 0.0


def _cpu_seconds(pids: Sequence[int]) -> float:
    """The CPU time of these processes so far; 0 where the kernel does not tell."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS
