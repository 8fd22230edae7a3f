"""What the database says: samples during the run, and everything afterwards. Times are Unix seconds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from lastcall.store.postgres import PostgresStore

from .plan import CLOCK_STEP_SECONDS

INSTALL = (
    "CREATE SCHEMA chaos",
    # Every write of an end passes here. The transaction id leads to the time of its commit.
    """CREATE TABLE chaos.closings (number bigint GENERATED ALWAYS AS IDENTITY, session_id uuid NOT NULL,
           transaction xid NOT NULL DEFAULT pg_current_xact_id()::xid, session_end timestamptz, ended_at timestamptz,
           end_reason text)""",
    """CREATE FUNCTION chaos.note_closing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO chaos.closings (session_id, session_end, ended_at, end_reason)
               VALUES (NEW.session_id, NEW.session_end, NEW.ended_at, NEW.end_reason);
           RETURN NULL;
       END $$""",
    """CREATE TRIGGER note_closing AFTER UPDATE ON conversation_sessions FOR EACH ROW
           WHEN ((OLD.is_active, OLD.session_end, OLD.ended_at, OLD.duration_seconds, OLD.end_reason) IS DISTINCT FROM
                 (NEW.is_active, NEW.session_end, NEW.ended_at, NEW.duration_seconds, NEW.end_reason))
           EXECUTE FUNCTION chaos.note_closing()""",
    """CREATE TABLE chaos.deletions (session_id uuid NOT NULL, user_id text NOT NULL, was_active boolean NOT NULL,
           transaction xid NOT NULL DEFAULT pg_current_xact_id()::xid)""",
    """CREATE FUNCTION chaos.note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO chaos.deletions (session_id, user_id, was_active)
               VALUES (OLD.session_id, OLD.user_id, OLD.is_active);
           RETURN NULL;
       END $$""",
    """CREATE TRIGGER note_deletion AFTER DELETE ON conversation_sessions FOR EACH ROW
           EXECUTE FUNCTION chaos.note_deletion()""",
    # They lock first: what others are about to store is then either deleted as well, or refused.
    """CREATE FUNCTION chaos.delete_session(gone uuid) RETURNS bigint LANGUAGE plpgsql AS $$
       DECLARE deleted bigint;
       BEGIN
           PERFORM FROM conversation_sessions WHERE session_id = gone AND is_active FOR UPDATE;
           IF NOT FOUND THEN RETURN 0; END IF;
           DELETE FROM messages WHERE session_id = gone;
           DELETE FROM conversation_sessions WHERE session_id = gone;
           GET DIAGNOSTICS deleted = ROW_COUNT;
           RETURN deleted;
       END $$""",
    """CREATE FUNCTION chaos.erase_user(gone text) RETURNS bigint LANGUAGE plpgsql AS $$
       DECLARE deleted bigint;
       BEGIN
           PERFORM FROM conversations WHERE user_id = gone FOR UPDATE;
           PERFORM FROM conversation_sessions WHERE user_id = gone FOR UPDATE;
           DELETE FROM messages USING conversations c
               WHERE messages.conversation_id = c.conversation_id AND c.user_id = gone;
           DELETE FROM user_memories WHERE user_id = gone;
           DELETE FROM conversation_sessions WHERE user_id = gone;
           GET DIAGNOSTICS deleted = ROW_COUNT;
           DELETE FROM conversations WHERE user_id = gone;
           RETURN deleted;
       END $$""",
    "CREATE TABLE chaos.effects (session_id uuid, content text NOT NULL)",
    """CREATE FUNCTION chaos.note_effect() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO chaos.effects VALUES (NEW.source_session_id, NEW.content);
           RETURN NULL;
       END $$""",
    """CREATE TRIGGER note_effect AFTER INSERT OR UPDATE ON user_memories FOR EACH ROW
           EXECUTE FUNCTION chaos.note_effect()""",
)
ROWS = """SELECT s.session_id::text, s.user_id, coalesce(i.pid, 0) AS pid, i.hostname, s.is_active,
       extract(epoch FROM s.session_start)::float8 AS start, extract(epoch FROM s.session_end)::float8 AS "end",
       extract(epoch FROM s.ended_at)::float8 AS ended_at, s.duration_seconds AS duration, s.end_reason AS reason,
       extract(epoch FROM s.session_end - s.session_start)::float8 AS lasted,
       s.memory_status, s.memory_error,
       (SELECT extract(epoch FROM max(m.created_at))::float8 FROM messages m
         WHERE m.session_id = s.session_id AND m.created_at < s.ended_at) AS last_item
  FROM conversation_sessions s LEFT JOIN server_instances i USING (instance_id)"""
CLOSINGS = """SELECT session_id::text, extract(epoch FROM pg_xact_commit_timestamp(transaction))::float8 AS committed
  FROM chaos.closings ORDER BY number"""
DELETIONS = """SELECT session_id::text, user_id, was_active,
       extract(epoch FROM pg_xact_commit_timestamp(transaction))::float8 AS committed FROM chaos.deletions"""
ITEMS = """SELECT session_id::text, item_id, role, content, extract(epoch FROM created_at)::float8 AS created
  FROM messages"""
MEMORIES = (
    "SELECT source_session_id::text AS session_id, source_item_id AS item_id, user_id, content FROM user_memories"
)
EFFECTS = "SELECT session_id::text, content, count(*) AS times FROM chaos.effects GROUP BY 1, 2"
INDEX_FAULTS = """SELECT 'turn ' || id || ' is indexed ' || count(*) || ' times' AS fault
  FROM recall_passages, unnest(message_ids) id WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1
UNION ALL SELECT 'turn ' || id || ' is indexed, and deleted' FROM recall_passages, unnest(message_ids) id
 WHERE id IS NOT NULL AND NOT EXISTS (SELECT FROM messages WHERE message_id = id AND deleted_at IS NULL)
UNION ALL SELECT 'word ' || lexeme || ' belongs to no passage' FROM recall_lexemes l
 WHERE NOT EXISTS (SELECT FROM recall_passages p WHERE p.user_id = l.user_id AND p.passage_id = l.passage_id)
UNION ALL SELECT 'passage ' || passage_id || ' belongs to no session' FROM recall_passages p
 WHERE NOT EXISTS (SELECT FROM conversation_sessions s WHERE s.user_id = p.user_id AND s.session_id = p.session_id)
UNION ALL SELECT 'session ' || session_id || ' is done, and not indexed' FROM conversation_sessions s
 WHERE memory_status = 'done' AND NOT EXISTS (SELECT FROM recall_passages p WHERE p.session_id = s.session_id)
   AND EXISTS (SELECT FROM messages m WHERE m.session_id = s.session_id AND role = 'user' AND deleted_at IS NULL)"""
# Of meanings.sql, which only a database that servers with the extra use has.
HAS_MEANINGS = "SELECT to_regclass('recall_meanings') IS NOT NULL AS there"
MEANING_FAULTS = """SELECT 'meaning ' || passage_id || '.' || turn || ' belongs to no turn' AS fault
  FROM recall_meanings m
 WHERE NOT EXISTS (SELECT FROM recall_passages p WHERE p.user_id = m.user_id AND p.passage_id = m.passage_id
                      AND p.message_ids[m.turn + 1] IS NOT NULL)
UNION ALL SELECT 'claim ' || passage_id || ' belongs to no passage' FROM meaning_claims c
 WHERE NOT EXISTS (SELECT FROM recall_passages p WHERE p.user_id = c.user_id AND p.passage_id = c.passage_id)"""
SAMPLE = """SELECT session_id::text, state, extract(epoch FROM now())::float8 AS at FROM session_truth WHERE is_active
  UNION ALL SELECT NULL, NULL, extract(epoch FROM now())::float8"""
REMAINING = """SELECT count(*) FILTER (WHERE is_active) AS active,
       count(*) FILTER (WHERE memory_status = 'pending') AS pending,
       (SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered') AS unsent FROM conversation_sessions"""


@dataclass(frozen=True, slots=True)
class Sample:
    """`session_truth` at one moment: the active sessions with their state, live or orphaned."""

    at: float
    states: dict[str, str]


@dataclass(frozen=True, slots=True)
class OrphanListing:
    """What `lastcall orphans` listed. The command ran from `began` to `ended`."""

    began: float
    ended: float
    orphans: list[str]


@dataclass(slots=True)
class Row:
    """One session.

    pid, hostname: of the server process that owns it, 0 for none. lasted: from its start to its end by the database.
    closings: when each write of its end was committed. clock_set: meanwhile the database's clock was set.
    last_item: when its last item was stored, not counting a cut-off answer that is stored with the end.
    """

    session_id: str
    user_id: str
    pid: int
    is_active: bool
    start: float
    end: float | None = None
    ended_at: float | None = None
    duration: float | None = None
    reason: str | None = None
    memory_status: str = "none"
    memory_error: str | None = None
    closings: list[float] = field(default_factory=list)
    last_item: float | None = None
    hostname: str | None = None
    lasted: float | None = None
    clock_set: bool = False


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row that was deleted. committed: when."""

    session_id: str
    user_id: str
    was_active: bool
    committed: float


@dataclass(frozen=True, slots=True)
class Item:
    session_id: str
    item_id: str
    role: str
    content: str
    created: float


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    session_id: str | None
    item_id: str | None
    user_id: str
    content: str


@dataclass(slots=True)
class Records:
    """Everything. items: by item id. effects: how often a memory was applied, by session and content.

    index_faults: what is wrong with the index of turns.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    deletions: dict[str, Deletion] = field(default_factory=dict)
    items: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    memories: list[MemoryRecord] = field(default_factory=list)
    effects: dict[tuple[str, str], int] = field(default_factory=dict)
    index_faults: list[str] = field(default_factory=list)


async def install(store: PostgresStore) -> None:
    """Adds the audit's triggers to a database whose schema is applied."""
    for statement in INSTALL:
        await store.select(statement)


class Clock:
    """Tells what moment the database meant, whose clock may have been set by some multiples of an hour.

    middle: of the run, in Unix seconds. The run must be a good deal shorter than an hour.
    """

    def __init__(self, middle: float) -> None:
        self._middle = middle

    def offset(self, moment: float) -> float:
        return round((moment - self._middle) / CLOCK_STEP_SECONDS) * CLOCK_STEP_SECONDS

    def __call__(self, moment: float | None) -> float | None:
        return moment if moment is None else moment - self.offset(moment)


async def sample(store: PostgresStore, clock: Clock) -> Sample:
    found = await store.select(SAMPLE)
    at = found[-1]["at"]
    return Sample(at - clock.offset(at), {row["session_id"]: row["state"] for row in found if row["session_id"]})


@dataclass(frozen=True, slots=True)
class Remaining:
    """How many sessions are active, how many have pending memory, and how many events were not delivered."""

    active: int
    pending: int
    unsent: int


async def remaining(store: PostgresStore) -> Remaining:
    return Remaining(**dict((await store.select(REMAINING))[0]))


async def read(store: PostgresStore, clock: Clock) -> Records:
    records, starts = Records(), dict[str, float]()
    for row in await store.select(ROWS):
        records.rows[row["session_id"]] = Row(**_real(row, clock, "start", "end", "ended_at", "last_item"))
        starts[row["session_id"]] = clock.offset(row["start"])
    for row in await store.select(DELETIONS):
        records.deletions[row["session_id"]] = Deletion(**_real(row, clock, "committed"))
    for row in await store.select(CLOSINGS):
        if (closed := records.rows.get(row["session_id"])) is not None:  # else it was deleted
            closed.closings.append(row["committed"] - clock.offset(row["committed"]))
            closed.clock_set |= clock.offset(row["committed"]) != starts[row["session_id"]]
    for row in await store.select(ITEMS):
        records.items[row["item_id"]].append(Item(**_real(row, clock, "created")))
    records.memories = [MemoryRecord(**dict(row)) for row in await store.select(MEMORIES)]
    records.effects = {(row["session_id"], row["content"]): row["times"] for row in await store.select(EFFECTS)}
    faults = [*await store.select(INDEX_FAULTS)]
    if (await store.select(HAS_MEANINGS))[0]["there"]:
        faults += await store.select(MEANING_FAULTS)
    records.index_faults = [row["fault"] for row in faults]
    return records


def _real(row: Any, clock: Clock, *times: str) -> dict[str, Any]:
    return {key: clock(value) if key in times else value for key, value in row.items()}
