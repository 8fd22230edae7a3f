"""The statements by name, each sent as the server sends it: through `BatchStatement` and the store's own methods.

`now` is the database's clock, in microseconds; ages count back from it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from typing import Any
from uuid import UUID, uuid5

import asyncpg
from lastcall.agents.agent import Memory
from lastcall.sessions.death import Silence, cause_of_death
from lastcall.store.errors import InstanceHeld, StoreError, StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.batch import BatchStatement, BulkClose, InstanceStop, Write
from lastcall.store.queries import QUERIES
from lastcall.store.records import (
    EVIDENCE_SECONDS,
    EndReason,
    FinishedMemory,
    Instance,
    SessionEnd,
    SessionStart,
    StoredItem,
    Suspect,
)

from tests.support.operators import OPERATOR

from .model import expected
from .state import CLAIM, END_AGE, LATE_AGE, LEASE, RETRY_AFTER, START_AGE, State

EPOCH = datetime(2001, 1, 1, tzinfo=UTC)
A, B, C = (UUID(int=number) for number in (1, 2, 3))
SERVERS = {"A": A, "B": B, "C": C}
SESSION, CONVERSATION = UUID(int=10), UUID(int=11)
OTHER_SESSION, OTHER_CONVERSATION = UUID(int=20), UUID(int=21)
USER, OTHER_USER = "ada", "eve"

ROW = f"session_id = '{SESSION}'"
BY_HAND = {
    "repair": "UPDATE conversation_sessions SET is_active = false, session_end = NOW(), ended_at = NOW(),"
    f" duration_seconds = EXTRACT(EPOCH FROM (NOW() - session_start)) WHERE is_active = true AND {ROW}",
    "plain": f"UPDATE conversation_sessions SET is_active = false WHERE {ROW}",
    "redate": "UPDATE conversation_sessions SET is_active = false, session_end = now(), end_reason = 'redated'"
    f" WHERE {ROW}",
    "recode": "UPDATE conversation_sessions SET is_active = false, close_code = coalesce(close_code, 0) + 1"
    f" WHERE {ROW}",
    "reopen": f"UPDATE conversation_sessions SET is_active = true WHERE {ROW}",
}

Pause = Callable[[], Awaitable[None]]


class Sql:
    """A connection. texts: statements to send instead of others. between: awaited between two statements."""

    def __init__(self, connection: asyncpg.Connection[Any], texts: Mapping[str, str]) -> None:
        self.raw = connection
        self._texts = texts
        self.between: Pause | None = None
        self._sent = 0

    async def fetch(self, text: str, *args: object) -> list[Any]:
        if self.between is None or text != QUERIES["commit_batch"]:
            return await self._send(text, *args)
        return [await self._in_parts(text, *args)]  # type: ignore[arg-type]

    async def _in_parts(self, text: str, moment: object, patience: object, writes: str) -> dict[str, str]:
        """Sends a batch's starts, items and ends one by one, so that others come between them."""
        answer: dict[str, Any] = {}
        for kind, rows in json.loads(writes).items():
            (row,) = await self._send(text, moment, patience, json.dumps({kind: rows}))
            answer |= json.loads(row["answer"])
        return {"answer": json.dumps(answer)}

    async def _send(self, text: str, *args: object) -> list[Any]:
        if self.between is not None and self._sent:
            await self.between()
        self._sent += 1
        return await self.raw.fetch(self._texts.get(text, text), *args)

    def pause(self, between: Pause | None) -> None:
        self.between, self._sent = between, 0


class Direct(PostgresStore):
    """The store's own statements and arguments on one given connection, without pool, queue or Trio."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def select(self, sql: str, *args: object, urgent: bool = False) -> list[Any]:
        return await self._sql.fetch(sql, *args)


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def start(now: int, session_id: UUID = SESSION, instance_id: UUID = A) -> SessionStart:
    conversation, user = (CONVERSATION, USER) if session_id == SESSION else (OTHER_CONVERSATION, OTHER_USER)
    return SessionStart(
        session_id=session_id,
        conversation_id=conversation,
        user_id=user,
        instance_id=instance_id,
        started=(now - START_AGE) / 1e6,
    )


def item(item_id: str, session_id: UUID = SESSION) -> StoredItem:
    """An item that depends only on its id, so that it can be sent again."""
    kind, _, position = item_id.rpartition("-")
    return StoredItem(
        message_id=uuid5(session_id, item_id),
        session_id=session_id,
        conversation_id=CONVERSATION if session_id == SESSION else OTHER_CONVERSATION,
        item_id=item_id,
        position=int(position),
        role="user" if kind == "user" else "assistant",
        content=f"words of {item_id}",
        status="incomplete" if kind == "unsaid" else "completed",
    )


def end(now: int, age: int, reason: EndReason, code: int | None) -> SessionEnd:
    return SessionEnd(session_id=SESSION, instance_id=A, ended=(now - age) / 1e6, reason=reason, close_code=code)


def writes(verb: str, state: State, now: int) -> Sequence[Write]:
    """What the group-commit writer hands to one batch."""
    ended = end(now, END_AGE, EndReason.CLIENT_CLOSED, 1000)
    said = (item(f"user-{now}"),)
    made: dict[str, Callable[[], list[Write]]] = {
        "begin": lambda: [start(now)],
        "append-user": lambda: [said],
        "append-reply": lambda: [(item(f"reply-{now}"),)],
        "append-again": lambda: [(item(state.snapshot.items[-1].item_id),)],
        "begin-append": lambda: [start(now), said],
        "visit": lambda: [start(now), said, ended],
        "end": lambda: [ended],
        "end-late": lambda: [(item(f"unsaid-{now}"),), end(now, LATE_AGE, EndReason.CLIENT_VANISHED, None)],
        "leave": lambda: [BulkClose(A, (now - END_AGE) / 1e6)],
        "stop": lambda: [InstanceStop(A)],
    }
    return made[verb]()


async def batch(sql: Sql, verb: str, state: State, now: int) -> str:
    """Sends a batch. Returns its outcomes in words."""
    sent = writes(verb, state, now)
    outcomes = await BatchStatement(sent).run(sql, now / 1e6, moment(now))
    words = [_word(write, outcome) for write, outcome in zip(sent, outcomes, strict=True)]
    return ", ".join(words)


def _word(write: Write, outcome: Any) -> str:
    match write:
        case SessionStart():
            done, refused = "begun", "gone"
        case SessionEnd():
            done, refused = "ended" if outcome else "not ended", "closed"
        case BulkClose():
            done, refused = f"closed {len(outcome)}", "refused"
        case InstanceStop():
            done, refused = "done", "refused"
        case _:
            done, refused = "stored", "closed"
    if isinstance(outcome, StoreUnavailable):
        return "held"
    return refused if isinstance(outcome, StoreError) else done


async def renew(sql: Sql, _state: State, _now: int) -> str:
    return "renewed" if await sql.fetch(QUERIES["renew_instance"], A) else "lost"


async def silence(sql: Sql, _state: State, _now: int) -> str:
    for judge in (B, C):
        await sql.fetch(QUERIES["renew_instance"], judge)
    return "done"


async def judge(sql: Sql, _state: State, now: int, by: UUID | None) -> str:
    """Looks at all suspects, as B or as a person, with the reaper's own judgement: it has seen every heartbeat."""
    dead = []
    for each in await Direct(sql).suspects(by):
        seen = Silence((now - micros(each.heartbeat)) / 1e6, -inf)
        if each.instance_id == A and cause_of_death(each, seen, None, inf) is not None:
            dead.append(f"dead {micros(each.heartbeat)}")
    return " ".join(dead) or "none"


async def suspect(_sql: Sql, state: State, now: int) -> str:
    """Sends nothing: A's death is judged by another of its sessions, which has no row here."""
    return expected("suspect:B", state._replace(now=now))[1]


async def reap(sql: Sql, state: State, _now: int, by: UUID) -> str:
    assert state.known.verdict is not None
    try:
        return f"closed {await Direct(sql).reap(_dead(state.known.verdict), by)}"
    except InstanceHeld:
        return "closed 0"


async def sweep(sql: Sql, state: State, _now: int) -> str:
    assert state.known.looked is not None
    row = await sql.fetch(QUERIES["reap_instance"], A, moment(state.known.looked), None, 1, EVIDENCE_SECONDS)
    return f"closed {len(row)}"


def _dead(heartbeat: int) -> Suspect:
    """A, found dead at this heartbeat."""
    return Suspect(
        instance_id=A,
        host_id=None,
        pid=1,
        process_started=None,
        lease_seconds=LEASE / 1e6,
        gone=False,
        guard_gone=False,
        heartbeat=moment(heartbeat),
    )


async def close(sql: Sql, _state: State, _now: int) -> str:
    return f"closed {len(await sql.fetch(QUERIES['close_session'], *OPERATOR.columns, SESSION, None))}"


async def by_hand(sql: Sql, _state: State, _now: int, verb: str) -> str:
    status = await sql.raw.execute(BY_HAND[verb])
    return status.replace("UPDATE", "closed") if verb == "repair" else status


async def claim(sql: Sql, _state: State, _now: int) -> str:
    claims = await Direct(sql).claim_memory(1, CLAIM / 1e6)
    return " ".join(f"claimed {each.attempts}" for each in claims) or "none"


async def finish(sql: Sql, _state: State, now: int, by: str) -> str:
    told = Memory("note", f"told {by} at {now}", f"user-{now}", "")
    return "done" if await Direct(sql).finish_memory([FinishedMemory(SESSION, [told])]) else "not done"


async def fail(sql: Sql, _state: State, _now: int, *, for_good: bool) -> str:
    await Direct(sql).fail_memory(SESSION, "it failed", retry_after=None if for_good else RETRY_AFTER / 1e6)
    return "done"


async def release(sql: Sql, _state: State, _now: int) -> str:
    await Direct(sql).release_memory([SESSION])
    return "done"


async def retry(sql: Sql, _state: State, _now: int) -> str:
    return f"retried {len(await sql.fetch(QUERIES['retry_memories'], *OPERATOR.columns, USER, None))}"


Sender = Callable[[Sql, State, int], Awaitable[str]]
_SENDERS: dict[str, Sender] = {
    "renew:A": renew,
    "silence": silence,
    "judge:B": partial(judge, by=B),
    "suspect:B": suspect,
    "look:hand": partial(judge, by=None),
    "sweep:hand": sweep,
    "close:hand": close,
    "claim:A": claim,
    "claim:B": claim,
    "fail:B": partial(fail, for_good=False),
    "give-up:B": partial(fail, for_good=True),
    "release:B": release,
    "retry:hand": retry,
}


async def send(sql: Sql, name: str, state: State, now: int) -> str:
    """Sends a statement by name. Returns its answer in words; a refusal by the database is an answer as well."""
    try:
        return await _send(sql, name, state, now)
    except asyncpg.CheckViolationError:
        return "refused"
    except asyncpg.PostgresError as error:
        return f"error {error.sqlstate}: {error}"
    except TimeoutError:
        return "error: no answer in time"


async def _send(sql: Sql, name: str, state: State, now: int) -> str:
    verb, _, who = name.partition(":")
    if name in _SENDERS:
        return await _SENDERS[name](sql, state, now)
    if verb == "reap":
        return await reap(sql, state, now, SERVERS[who[-1]])
    if verb == "finish":
        return await finish(sql, state, now, who)
    if verb in BY_HAND:
        return await by_hand(sql, state, now, verb)
    return await batch(sql, verb, state, now)


async def create_servers(sql: Sql, set_clock: Callable[[int], Awaitable[None]]) -> None:
    """Registers three servers, and a session of B's that nobody may touch. B and C have lived for an hour."""
    store = Direct(sql)
    for now, servers in ((-3_600_000_000, "BC"), (0, "A")):
        await set_clock(now)
        for name in servers:
            await store.register_instance(
                Instance(instance_id=SERVERS[name], hostname=name, pid=1, version="0", lease_seconds=LEASE / 1e6)
            )
    await silence(sql, State(None, None, 0), 0)  # type: ignore[arg-type]
    await BatchStatement([start(0, OTHER_SESSION, B), (item("user-0", OTHER_SESSION),)]).run(sql, 0.0, moment(0))
