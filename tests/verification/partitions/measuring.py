"""Calls the functions that servers call, and reads what their process in PostgreSQL took for it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID, uuid4

import msgspec
from lastcall.store.queries import QUERIES
from lastcall.store.records import StoredItem

PATIENCE_SECONDS = 3600.0
SAID = "I moved to Bergen last spring, and since then I go sailing with my sister whenever the weather is good enough."
POSITION = 1000  # behind what is there
HISTORY_BYTES = 1 << 20
CLAIM_SECONDS = 60.0
# As memory/search/indexing.py makes it of so many words.
PASSAGE_WORDS = [{"text": f"word{n}", "key": f"~wor{n}", "stemmer": "english_stem", "mentions": [1]} for n in range(12)]
COMMIT = QUERIES["commit_batch"]
WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'"
SIZES = """
SELECT sum(pg_table_size(relid))::bigint AS data, sum(pg_indexes_size(relid))::bigint AS indexes
  FROM (SELECT relid FROM pg_partition_tree('messages') WHERE isleaf UNION SELECT 'messages'::regclass) parts
"""


class Cost(TypedDict):
    """Of one turn or session: microseconds of PostgreSQL's processor and of waiting for it, and bytes of its log."""

    cpu_us: float
    wall_us: float
    wal_bytes: float


class Meter:
    """What the connection's process in PostgreSQL uses, as Linux counts it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._schedstat = Path(f"/proc/{connection.get_server_pid()}/schedstat")

    async def read(self) -> tuple[float, float, int]:
        """Processor seconds, wall seconds and bytes of the write-ahead log so far."""
        nanoseconds = int(self._schedstat.read_text().split()[0])
        return nanoseconds / 1e9, time.monotonic(), int(await self._connection.fetchval(WAL))

    async def cost_since(self, before: tuple[float, float, int], count: int) -> Cost:
        """What each of `count` things cost."""
        cpu, wall, wal = (now - then for now, then in zip(await self.read(), before, strict=True))
        return Cost(cpu_us=1e6 * cpu / count, wall_us=1e6 * wall / count, wal_bytes=wal / count)


class Load:
    """Sessions of users who have been here before, on one connection, in batches as a busy server makes them."""

    def __init__(self, connection: Any, users: int, batch: int) -> None:
        self._connection, self._users, self._batch = connection, users, batch
        self._instance = uuid4()
        self._random = random.Random(1)

    async def open(self) -> None:
        """Registers a server."""
        await self._connection.execute(QUERIES["register_instance"], self._instance, "host", 1, "0", 10.0, None, None)

    async def begin(self) -> list[dict[str, Any]]:
        """A batch of sessions that begin, each in a new conversation."""
        starts = []
        for _ in range(self._batch):
            user = f"user-{self._random.randrange(self._users) + 1}"
            starts.append({"session_id": uuid4(), "conversation_id": uuid4(), "user_id": user,
                           "instance_id": self._instance, "age_seconds": 0.0, "credential_id": None})  # fmt: skip
        recalls = [
            {"session_id": each["session_id"], "user_id": each["user_id"], "memories_max": 50, "recent_seconds": 10.0}
            for each in starts
        ]
        await self._commit({"starts": starts, "recalls": recalls})
        return starts

    async def turn(self, sessions: list[dict[str, Any]], number: int) -> None:
        """A turn in each session: what the user says, then the answer with its figures."""
        said, answers, figures = [], [], []
        for each in sessions:
            keys = {"session_id": each["session_id"], "conversation_id": each["conversation_id"], "content": SAID,
                    "status": "completed"}  # fmt: skip
            place = POSITION + 2 * number
            said.append(StoredItem(**keys, item_id=_item_id(), position=place, role="user"))
            answers.append(StoredItem(**keys, item_id=_item_id(), position=place + 1, role="assistant"))
            whose = {"session_id": each["session_id"], "user_id": each["user_id"], "agent": "echo"}
            took = {"outcome": "completed", "created": 0.0, "first": 0.1, "ended": 0.2}
            figures.append({"response_id": uuid4().hex, **whose, **took})
        await self._commit({"items": said})
        await self._commit({"items": answers, "responses": {"clock": 0.3, "rows": figures}})

    async def resume(self, session: dict[str, Any]) -> None:
        """Reads what a resumed conversation begins with."""
        keys = session["conversation_id"], session["user_id"]
        assert await self._connection.fetch(QUERIES["load_history"], *keys, 200, 200, HISTORY_BYTES)

    async def end(self, sessions: list[dict[str, Any]]) -> None:
        """Ends the sessions, and finishes their memory, all together."""
        ends = [{"session_id": each["session_id"], "instance_id": self._instance, "age_seconds": 0.0,
                 "end_reason": "client_closed", "close_code": 1000} for each in sessions]  # fmt: skip
        await self._commit({"ends": ends})
        ids = [each["session_id"] for each in sessions]
        rows = await self._connection.fetch(QUERIES["claim_memory"], len(ids), CLAIM_SECONDS, ids, 330.0, 1 << 20)
        finished = []
        for session_id in {row["session_id"] for row in rows}:
            items = [row["item_id"] for row in rows if row["session_id"] == session_id]
            passage = {"items": items, "lengths": [20] * len(items), "flags": [1] * len(items),
                       "stemmers": ["english_stem"], "words": PASSAGE_WORDS}  # fmt: skip
            finished.append({"session_id": session_id, "memories": [], "passages": [passage]})
        await self._connection.fetch(QUERIES["finish_memory"], msgspec.json.encode(finished).decode(), None)

    async def _commit(self, rows: dict[str, Any]) -> None:
        moment = await self._connection.fetchval("SELECT now()")
        text = msgspec.json.encode(rows).decode()
        answer = json.loads(await self._connection.fetchval(COMMIT, moment, PATIENCE_SECONDS, text))
        assert answer["fresh"]
        assert set(answer.get("items", ["stored"])) == {"stored"}, answer


async def measure(connection: Any, users: int, *, sessions: int, turns: int, batch: int) -> dict[str, Cost]:
    """What a turn, a session without turns, and resuming a conversation cost.

    sessions, batch: how many there are, and how many of them share each commit. turns: of each.
    """
    load, meter = Load(connection, users, batch), Meter(connection)
    await load.open()
    for number in range(3):  # warm
        warm = await load.begin()
        await load.turn(warm, number)
        await load.end(warm)
    await connection.execute("CHECKPOINT")  # what is written first to each page after it is the whole page
    before = await meter.read()
    groups = [await load.begin() for _ in range(sessions // batch)]
    begin = await meter.cost_since(before, len(groups) * batch)
    before = await meter.read()
    for number in range(turns):
        for group in groups:
            await load.turn(group, number)
    turn = await meter.cost_since(before, turns * len(groups) * batch)
    before = await meter.read()
    for group in groups:
        for each in group:
            await load.resume(each)
    resume = await meter.cost_since(before, len(groups) * batch)
    before = await meter.read()
    for group in groups:
        await load.end(group)
    end = await meter.cost_since(before, len(groups) * batch)
    return {"begin": begin, "turn": turn, "resume": resume, "end": end}


async def sizes(connection: Any, messages: int) -> dict[str, float]:
    """Bytes of each message, in the table and in its indexes."""
    row = await connection.fetchrow(SIZES)
    return {"table_bytes": row["data"] / messages, "index_bytes": row["indexes"] / messages}


def _item_id() -> str:
    return f"item_{UUID(int=random.getrandbits(128)).hex[:21]}"
