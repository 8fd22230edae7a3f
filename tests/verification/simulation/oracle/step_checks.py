"""Checks while a world runs: at each effect in the database, and at each event that a client receives."""

from __future__ import annotations

from itertools import islice
from uuid import UUID

import trio
from lastcall.store.records import StoredItem

from tests.support.fake_rows import SessionRecord
from tests.support.fake_store import FakeStore

from ...promises import Promise
from ..fakes.link import Link
from ..server import Server
from ..visits import Acknowledged, Visit
from ..world import World
from .findings import Findings, overlap

GHOST_SECONDS = 1.0  # after its row was closed, nothing is acknowledged on a socket
ROUNDING_SECONDS = 1e-6
_CLOSING = frozenset({"end_session", "close_instance_sessions", "reap", "by_hand", "declared_dead", "begin_session"})
_STORING = frozenset({"append_items", "end_session", "close_instance_sessions"})


def silence_seconds(owner: Server, judge: Server) -> float:
    """For how long a living server must have been silent before another one may take it for dead.

    Only where the other one cannot see its process, and its connection is gone, is that less than its lease. The
    connection of a frozen process stays.
    """
    if owner.host == judge.host or (owner.frozen and not owner.link.unguarded):
        return owner.settings.lease_seconds
    return owner.settings.gone_seconds


def end_of(row: SessionRecord) -> tuple[object, ...]:
    """Everything that a row says about its end."""
    return (row.is_active, row.session_end, row.ended_at, row.duration_seconds, row.end_reason, row.close_code,
            row.closed_by)  # fmt: skip


class StepChecks:
    """Checks every step, and keeps what the final checks need of it.

    by_hand, declared: when the plan itself closed a session's row, or declared an instance dead.
    beats: when each server renewed its lease.
    """

    def __init__(self, world: World) -> None:
        self.findings = Findings()
        self.by_hand: dict[UUID, float] = {}
        self.declared: dict[UUID, float] = {}
        self.beats: dict[Server, list[float]] = {}
        self._world = world
        self._database: FakeStore = world.database
        self._ends: dict[UUID, tuple[object, ...]] = {}
        self._closings_seen = 0
        self._items: dict[tuple[UUID, str], list[StoredItem]] = {}  # of one id: all but the last are deleted
        self._items_seen = 0
        self._deleted: set[UUID] = set()
        self._finalized: dict[UUID, float] = {}
        world.on_effect = self.stored

    def broken(self, promise: Promise, example: str) -> None:
        self._world.trace.add("CHECK", promise, example)
        self.findings.add(promise, f"{example} (at {trio.current_time():.3f})")

    # --- the database

    def stored(self, link: Link | None, name: str) -> None:
        """An operation on the store has had its effect."""
        if name in ("renew", "renew_lease") and link is not None:
            self._note_beat(link)
        if name in _STORING:
            self._check_items()
        if name in _CLOSING:
            self._check_closings()
        if name == "delete_item":
            self._check_deletions()
        if name == "finish_memory":
            self._check_memory()

    def _note_beat(self, link: Link) -> None:
        if any(row.heartbeat_at == trio.current_time() for row in link.own()):
            self.beats.setdefault(link.server, []).append(trio.current_time())

    def _check_memory(self) -> None:
        now = trio.current_time()
        for key, row in self._database.sessions.items():
            at = row.memory_finalized_at
            if at == now and self._finalized.setdefault(key, at) != at:
                self._finalized[key] = at
                self.broken(Promise.MEMORY_ONCE, f"the memory of {key} was applied again")

    def _check_deletions(self) -> None:
        for key, item in self._database.messages.items():
            if item.deleted and key not in self._deleted:
                self._deleted.add(key)
                closed_at = self._database.sessions[item.session_id].ended_at
                if closed_at is not None and closed_at < trio.current_time():
                    self.broken(Promise.NO_GHOST, f"item {item.item_id} was deleted after its session's row was closed")

    def _check_items(self) -> None:
        messages = self._database.messages
        for item in islice(messages.values(), self._items_seen, None):
            key = item.conversation_id, item.item_id
            stored = self._items.setdefault(key, [])
            stored.append(item)
            if sum(not messages[each.message_id].deleted for each in stored) > 1:
                self.broken(Promise.NOTHING_LOST, f"item {item.item_id} is stored twice")
            if item.deleted:  # while its answer was still streaming
                self._deleted.add(item.message_id)
            closed_at = self._database.sessions[item.session_id].ended_at
            if closed_at is not None and closed_at < trio.current_time():
                self.broken(Promise.NO_GHOST, f"item {item.item_id} was stored after its session's row was closed")
        self._items_seen = len(messages)

    def _check_closings(self) -> None:
        for row in islice(self._database.closings, self._closings_seen, None):
            if row.session_id not in self._ends:
                self._check_sweep(row)
                self._ends[row.session_id] = end_of(row)
                self._world.trace.add("row", f"closed {row.end_reason}", row.session_id)
                self._check_end(row)
            else:
                self.check_end_unchanged(row)
        self._closings_seen = len(self._database.closings)

    def check_end_unchanged(self, row: SessionRecord) -> None:
        """A row keeps the end that it was closed with."""
        known = self._ends.get(row.session_id)
        if known != end_of(row) and (known or not row.is_active):
            self.broken(Promise.ONE_END, f"the end of {row.session_id} was rewritten: {known} became {end_of(row)}")
            self._ends[row.session_id] = end_of(row)

    def _check_sweep(self, row: SessionRecord) -> None:
        """Nobody sweeps a living server before it was silent for as long as the rule says."""
        if row.end_reason != "owner_died" or row.instance_id is None or row.instance_id in self.declared:
            return
        record, now = self._database.instances[row.instance_id], trio.current_time()
        owner = next(server for server in self._world.servers if server.number == record.instance.process_started)
        judge = next(server for server in self._world.servers if row.closed_by in server.instance_ids)
        silent = now - record.heartbeat_at
        if owner.over_at is None and record.stopped_at is None and silent < silence_seconds(owner, judge):
            self.broken(
                Promise.NONE_SWEPT,
                f"{row.session_id} of {owner.name}, which renewed its lease {silent:.3f} s before",
            )

    def _check_end(self, row: SessionRecord) -> None:
        if row.session_end is None or row.ended_at is None or row.duration_seconds is None:
            self.broken(Promise.ONE_END, f"{row.session_id} is closed without an end")
        elif not row.session_start <= row.session_end <= row.ended_at:
            self.broken(Promise.ONE_END, f"{row.session_id} ended before it began, or after it was closed")
        elif abs(row.duration_seconds - (row.session_end - row.session_start)) > ROUNDING_SECONDS:
            self.broken(Promise.ONE_END, f"{row.session_id} has a duration of {row.duration_seconds}, not end - start")

    # --- what clients receive

    def begun(self, visit: Visit) -> None:
        """A client was told of its session."""
        assert visit.session_id is not None
        if visit.session_id not in self._database.sessions:
            self.broken(Promise.NOTHING_LOST, f"{visit.name} was told of a session that is not stored")

    def acknowledged(self, visit: Visit, ack: Acknowledged) -> None:
        """A client was told that an item is stored."""
        items = self._items.get(_key(visit, ack.item_id), ())
        if (ack.role, ack.text) not in [(item.role, item.content) for item in items]:
            self.broken(Promise.NOTHING_LOST, f"{visit.name} was told that {ack.item_id} is stored: {ack.text!r:.60}")
        self._served(visit, ack.item_id)

    def deleted(self, visit: Visit, item_id: str) -> None:
        """A client was told that an item is deleted. One that is still streaming is stored later, already marked."""
        items = self._items.get(_key(visit, item_id), ())
        if not items and visit.behaviour.request != "delete_open":
            self.broken(Promise.NOTHING_LOST, f"{visit.name} was told that {item_id} is deleted; it was never stored")
        elif items and not any(self._database.messages[item.message_id].deleted for item in items):
            self.broken(Promise.NOTHING_LOST, f"{visit.name} was told that {item_id} is deleted; its row is not marked")
        self._served(visit, item_id)

    def answered_outside(self, visit: Visit, item_id: str) -> None:
        """A client received an answer outside its conversation."""
        if _key(visit, item_id) in self._items:
            self.broken(Promise.CONTAINED, f"{item_id}, an answer outside {visit.name}'s conversation, is stored in it")
        self._served(visit, item_id)

    def _served(self, visit: Visit, item_id: str) -> None:
        """A client receives nothing any more soon after its row was closed."""
        assert visit.session_id is not None
        row, now = self._database.sessions.get(visit.session_id), trio.current_time()
        if row is None or row.ended_at is None or now <= row.ended_at + GHOST_SECONDS:
            return
        excused = overlap(visit.server.trouble, row.ended_at, now) or any(what == "slow" for _, what in visit.causes)
        if not excused:
            late = now - row.ended_at
            self.broken(Promise.NO_GHOST, f"{visit.name} was told of {item_id} {late:.3f} s after its row was closed")


def _key(visit: Visit, item_id: str) -> tuple[UUID, str]:
    return visit.conversation_id, item_id
