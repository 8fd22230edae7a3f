"""Memories of users, and the work that makes them from closed sessions."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from uuid import UUID

import asyncpg
import msgspec

from ...agents.agent import Message, Transcript
from ...runtime.check import Check
from ..people.meanings import MeaningResult, MeantPassage, UnencodedPassage
from ..people.memories import LastTalk, RememberedFact, StoredMemory
from ..queries import QUERIES
from ..records import (
    CLAIM_BYTES_MAX,
    MEMORY_WAIT_SECONDS_MAX,
    RECENT_SECONDS,
    AskedWord,
    FinishedMemory,
    FoundPassage,
    MemoryClaim,
    PastTurn,
    Recollection,
    SearchResult,
)
from .calls import CALL_SECONDS, bounded_call
from .connections import Queries
from .preparation.meanings import UNENCODED_COUNTED_MAX, prepare_meanings

# Of meanings.sql, which most databases are without.
FINISH_WITH_MEANINGS = QUERIES["finish_memory"].replace("finish_memories(", "finish_memories_with_meanings(")
CLAIM_UNENCODED = "SELECT * FROM claim_unencoded($1, $2, $3, make_interval(secs => $4))"
STORE_ENCODED = "SELECT store_encoded($1, $2, $3::jsonb) AS stored"
COUNT_UNENCODED = "SELECT count_unencoded($1) AS passages"
SEARCH_MEANINGS = "SELECT * FROM search_meanings($1, $2, $3::bigint[], $4)"


class _Recalled(msgspec.Struct):
    """A recollection as `recall_memories` of the schema returns it."""

    pending: bool
    has_past: bool
    facts: list[tuple[str, str, str, float]]
    last: LastTalk | None = None


_decode = msgspec.json.Decoder(_Recalled).decode
_decode_last = msgspec.json.Decoder(LastTalk).decode


def recollection(raw: msgspec.Raw) -> Recollection:
    """What was recalled with a begin."""
    recalled = _decode(raw)
    facts = [RememberedFact(*fact) for fact in recalled.facts]
    return Recollection(facts, recalled.pending, recalled.has_past, recalled.last)


class MemoryQueries(Queries):
    """The part of `Store` about memories, and turns of the past."""

    async def recall(self, user_id: str, limit: int) -> Recollection:
        rows = await self.fetch("recall", user_id, limit, RECENT_SECONDS)
        facts = [
            RememberedFact(row["kind"], row["content"], row["slot"], row["said_at"])
            for row in rows
            if row["kind"] is not None
        ]
        last = rows[0]["last"]
        return Recollection(facts, rows[0]["pending"], rows[0]["has_past"], last and _decode_last(last))

    async def claim_memory(
        self, limit: int, lease_seconds: float, *, session_ids: Sequence[UUID] | None = None
    ) -> Sequence[MemoryClaim]:
        rows = await self.fetch(
            "claim_memory", limit, lease_seconds, session_ids, MEMORY_WAIT_SECONDS_MAX, CLAIM_BYTES_MAX
        )
        return [_memory_claim(list(group)) for _, group in itertools.groupby(rows, key=itemgetter("session_id"))]

    async def finish_memory(
        self, finished: Sequence[FinishedMemory], *, lifetime_seconds: float | None = None
    ) -> Collection[UUID]:
        kept = msgspec.json.encode(finished).decode()
        finish = FINISH_WITH_MEANINGS if any(each.meanings for each in finished) else QUERIES["finish_memory"]
        return [row["session_id"] for row in await self.select(finish, kept, lifetime_seconds)]

    async def renew_memory(self, claims: Sequence[MemoryClaim], lease_seconds: float) -> None:
        session_ids = [UUID(claim.transcript.session_id) for claim in claims]
        await self.fetch("renew_memory", session_ids, [claim.attempts for claim in claims], lease_seconds)

    async def expire_memories(self, limit: int) -> int:
        return len(await self.fetch("expire_memories", limit))

    async def known_memories(self, user_id: str, limit: int, *, memory_id: int | None = None) -> Sequence[StoredMemory]:
        return [StoredMemory(**row) for row in await self.fetch("known_memories", user_id, limit, memory_id)]

    async def edit_memory(self, user_id: str, memory_id: int, content: str, words: Sequence[str]) -> bool:
        return bool(await self.fetch("edit_memory", user_id, memory_id, content, list(words)))

    async def forget_memory(self, user_id: str, memory_id: int) -> bool:
        (row,) = await self.fetch("forget_memory", user_id, memory_id)
        return bool(row["forgotten"])

    async def release_memory(self, session_ids: Sequence[UUID]) -> None:
        await self.fetch("release_memory", session_ids)

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        await self.fetch("fail_memory", session_id, error, retry_after)

    # --- turns of the past

    async def search_turns(
        self, user_id: str, words: Sequence[tuple[str, str]], stemmer: str | None, passages_max: int
    ) -> SearchResult:
        texts, keys = [text for text, _ in words], [key for _, key in words]
        asked: dict[int, AskedWord] = {}
        passages: dict[int, FoundPassage] = {}
        for number, passage_id, rarity, known, values, topic, at_most in await self.fetch(
            "search_turns", user_id, texts, keys, stemmer, passages_max
        ):
            if passage_id is None:
                asked[number] = AskedWord(rarity, known)
            elif number is None:  # these rows come before those of the passage's words
                passages[passage_id] = FoundPassage(passage_id, topic, at_most, values)
            else:
                passages[passage_id].mentions.setdefault(number, []).append(values)
        return SearchResult(asked, list(passages.values()))

    async def search_meanings(
        self, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        rows = await self.select(SEARCH_MEANINGS, user_id, vector, list(among), passages_max)
        passages = {
            row["passage_id"]: MeantPassage(row["flags"], dict(zip(row["turns"], row["nearness"], strict=True)))
            for row in rows
        }
        if not rows:
            return MeaningResult({}, 0, 0.0, 0.0, 0.0)
        return MeaningResult(passages, *(rows[0][name] for name in ("compared", "mean", "deviation", "nearest")))

    async def claim_unencoded(
        self, after: tuple[str, int], chars_max: int, lease_seconds: float
    ) -> UnencodedPassage | None:
        """Claims the next passage behind a key that was indexed without meanings.

        Returns:
            It; without texts where there is none among those that were looked at, and the walk goes on behind its key.
            None: there are no more passages.
        """
        rows = await self.select(CLAIM_UNENCODED, *after, chars_max, lease_seconds)
        if not rows:
            return None
        texts = {row["turn"]: row["said"] for row in rows if row["turn"] is not None}
        return UnencodedPassage(rows[0]["user_id"], rows[0]["passage_id"], texts)

    async def store_encoded(self, passage: UnencodedPassage, vectors: Mapping[int, str]) -> int:
        """Stores the meanings of turns of a claimed passage, by their numbers; returns how many are new."""
        encoded = msgspec.json.encode([{"turn": turn, "vector": vector} for turn, vector in vectors.items()]).decode()
        (row,) = await self.select(STORE_ENCODED, passage.user_id, passage.passage_id, encoded)
        return int(row["stored"])

    async def count_unencoded(self) -> int:
        """How many passages were indexed without meanings; `UNENCODED_COUNTED_MAX` at most."""
        (row,) = await self.select(COUNT_UNENCODED, UNENCODED_COUNTED_MAX)
        return int(row["passages"])

    async def prepare_meanings(self) -> Check:
        """Makes what meanings are stored in, where that can be done: ok, or why turns are found by words only.

        Raises:
            StoreError: The database does not answer.
        """
        return await bounded_call(self._loop, CALL_SECONDS, self._connections.run, prepare_meanings)

    async def read_turns(self, user_id: str, turns: Sequence[tuple[int, int]], chars_max: int) -> Sequence[PastTurn]:
        places = [passage_id for passage_id, _ in turns], [turn for _, turn in turns]
        return [PastTurn(*row) for row in await self.fetch("read_turns", user_id, *places, chars_max)]


def _memory_claim(rows: Sequence[asyncpg.Record]) -> MemoryClaim:
    """The claim of one session, from a row per message; a session without messages has one row without text."""
    messages = [Message(row["role"], row["content"], row["item_id"]) for row in rows if row["role"] is not None]
    return MemoryClaim(Transcript(str(rows[0]["session_id"]), rows[0]["user_id"], messages), rows[0]["memory_attempts"])
