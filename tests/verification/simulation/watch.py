"""What is checked while a world runs: at each effect in the database, and at each word on the wire.

Nothing here asks the server: only the tables, the clients and the plan's own deeds count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from uuid import UUID

import trio
from lastcall.store.records import StoredItem

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore

from .clients import Acknowledged, Visit
from .database import Link
from .world import Server, World

GHOST_SECONDS = 1.0  # after its row was closed, nothing is acknowledged on a socket
LEAST_SILENT_SECONDS = 1.5  # a server's own, before anybody may take it for dead
EXAMPLES_MAX = 5
PROMISES = {
    "I1 orphan": "a row is active although nobody holds its session",
    "I2 ghost": "a session is served although its row is closed",
    "I3 end": "an end was rewritten, or is not when and why the session ended",
    "I4 memory": "a session's memory is missing, or was applied twice",
    "I5 lost": "something acknowledged is not stored",
    "I6 swept": "a living server's session was closed as a dead one's",
    "I7 unbounded": "something took longer than its bound",
    "I8 contained": "a connection or a server ended for no reason that anybody gave it",
}
_CLOSING = frozenset({"end_session", "close_instance_sessions", "reap", "by_hand", "declared_dead", "begin_session"})
_STORING = frozenset({"append_items", "end_session", "close_instance_sessions"})


class Findings:
    """How often each promise was broken, and the first few examples of each."""

    def __init__(self) -> None:
        self.broken: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, promise: str, example: str) -> None:
        self.broken[promise] += 1
        if self.broken[promise] <= EXAMPLES_MAX:
            self.examples.append(f"{promise}: {example}")


def overlap(spans: Iterable[list[float]], start: float, end: float) -> bool:
    return any(begin <= end and start <= over for begin, over in spans)


def end_of(row: SessionRecord) -> tuple[object, ...]:
    return (row.is_active, row.session_end, row.ended_at, row.duration_seconds, row.end_reason, row.close_code,
            row.closed_by)  # fmt: skip


class Watch:
    """Looks at every step. `by_hand`, `declared`: the plan's own closings, by session and by instance. `beats`: when
    each server's lease was renewed."""

    def __init__(self, world: World) -> None:
        self.findings = Findings()
        self.by_hand: dict[UUID, float] = {}
        self.declared: dict[UUID, float] = {}
        self.beats: dict[Server, list[float]] = {}
        self._world = world
        self._database: FakeStore = world.database
        self._ends: dict[UUID, tuple[object, ...]] = {}
        self._closings_seen = 0
        self._items: dict[tuple[UUID, str], StoredItem] = {}
        self._items_seen = 0
        self._deleted: set[UUID] = set()
        self._finalized: dict[UUID, float] = {}
        world.stored = self.stored

    def broken(self, promise: str, example: str) -> None:
        self._world.trace.add("CHECK", promise, example)
        self.findings.add(promise, f"{example} (at {trio.current_time():.3f})")

    # --- the database

    def stored(self, link: Link | None, name: str) -> None:
        """After each effect."""
        if name == "renew" and link is not None and any(row.heartbeat_at == trio.current_time() for row in link.own()):
            self.beats.setdefault(link.server, []).append(trio.current_time())
        if name in _STORING:
            self._note_items()
        if name in _CLOSING:
            self._look_at_ends()
        if name == "delete_item":
            self._look_at_deletions()
        if name == "finish_memory":
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        now = trio.current_time()
        for key, row in self._database.sessions.items():
            at = row.memory_finalized_at
            if at == now and self._finalized.setdefault(key, at) != at:
                self._finalized[key] = at
                self.broken("I4 memory", f"the memory of {key} was applied again")

    def _look_at_deletions(self) -> None:
        for key, item in self._database.messages.items():
            if item.deleted and key not in self._deleted:
                self._deleted.add(key)
                closed_at = self._database.sessions[item.session_id].ended_at
                if closed_at is not None and closed_at < trio.current_time():
                    self.broken("I2 ghost", f"item {item.item_id} was deleted after its session's row was closed")

    def _note_items(self) -> None:
        messages = self._database.messages
        for item in islice(messages.values(), self._items_seen, None):
            key = item.conversation_id, item.item_id
            if key in self._items:
                self.broken("I5 lost", f"item {item.item_id} is stored twice")
            self._items[key] = item
            if item.deleted:  # while it was still being said
                self._deleted.add(item.message_id)
            closed_at = self._database.sessions[item.session_id].ended_at
            if closed_at is not None and closed_at < trio.current_time():
                self.broken("I2 ghost", f"item {item.item_id} was stored after its session's row was closed")
        self._items_seen = len(messages)

    def _look_at_ends(self) -> None:
        for row in islice(self._database.closings, self._closings_seen, None):
            if row.session_id not in self._ends:
                self._check_sweep(row)
                self._ends[row.session_id] = end_of(row)
                self._world.trace.add("row", f"closed {row.end_reason}", row.session_id)
                self._check_end(row)
            else:
                self.look_at_end(row)
        self._closings_seen = len(self._database.closings)

    def look_at_end(self, row: SessionRecord) -> None:
        """Whether what a row says of its end is what it said at first."""
        known = self._ends.get(row.session_id)
        if known != end_of(row) and (known or not row.is_active):
            self.broken("I3 end", f"the end of {row.session_id} was rewritten: {known} became {end_of(row)}")
            self._ends[row.session_id] = end_of(row)

    def _check_sweep(self, row: SessionRecord) -> None:
        """Whoever is alive and has just said so is swept by nobody."""
        if row.end_reason != "owner_died" or row.instance_id is None or row.instance_id in self.declared:
            return
        record, now = self._database.instances[row.instance_id], trio.current_time()
        owner = next(server for server in self._world.servers if server.number == record.instance.process_started)
        if owner.over_at is None and record.stopped_at is None and now - record.heartbeat_at < LEAST_SILENT_SECONDS:
            self.broken("I6 swept", f"{row.session_id} of {owner.name}, heard {now - record.heartbeat_at:.3f} s before")

    def _check_end(self, row: SessionRecord) -> None:
        if row.session_end is None or row.ended_at is None or row.duration_seconds is None:
            self.broken("I3 end", f"{row.session_id} is closed without an end")
        elif not row.session_start <= row.session_end <= row.ended_at:
            self.broken("I3 end", f"{row.session_id} ended before it began, or after it was closed")
        elif abs(row.duration_seconds - (row.session_end - row.session_start)) > 1e-6:
            self.broken("I3 end", f"{row.session_id} lasted {row.duration_seconds}, says its row")

    # --- the wire

    def begun(self, visit: Visit) -> None:
        """A client hears that it has a session."""
        assert visit.session_id is not None
        if visit.session_id not in self._database.sessions:
            self.broken("I5 lost", f"{visit.name} was told of a session that is not stored")

    def acknowledged(self, visit: Visit, ack: Acknowledged) -> None:
        """A client hears that an item is stored."""
        item = self._items.get(_key(visit, ack.item_id))
        if item is None or (item.role, item.content) != (ack.role, ack.text):
            self.broken("I5 lost", f"{visit.name} was told that {ack.item_id} is stored: {ack.text!r:.60}")
        self._served(visit, ack.item_id)

    def deleted(self, visit: Visit, item_id: str) -> None:
        """A client hears that an item is deleted. One that is still being said is stored later, marked."""
        item = self._items.get(_key(visit, item_id))
        if item is None and visit.manner.request != "delete_open":
            self.broken("I5 lost", f"{visit.name} was told that {item_id} is deleted, which never was stored")
        elif item is not None and not self._database.messages[item.message_id].deleted:
            self.broken("I5 lost", f"{visit.name} was told that {item_id} is deleted; its row is not marked")
        self._served(visit, item_id)

    def said_outside(self, visit: Visit, item_id: str) -> None:
        """A client hears an answer outside its conversation."""
        if _key(visit, item_id) in self._items:
            self.broken("I8 contained", f"{item_id}, said outside {visit.name}'s conversation, is stored in it")
        self._served(visit, item_id)

    def _served(self, visit: Visit, item_id: str) -> None:
        """Whether a client may still hear anything: not for long once its row is closed."""
        assert visit.session_id is not None
        row, now = self._database.sessions.get(visit.session_id), trio.current_time()
        if row is None or row.ended_at is None or now <= row.ended_at + GHOST_SECONDS:
            return
        excused = overlap(visit.server.trouble, row.ended_at, now) or any(what == "slow" for _, what in visit.causes)
        if not excused:
            late = now - row.ended_at
            self.broken("I2 ghost", f"{visit.name} was told of {item_id} {late:.3f} s after its row was closed")


def _key(visit: Visit, item_id: str) -> tuple[UUID, str]:
    return visit.conversation_id, item_id
