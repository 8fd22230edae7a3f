"""Each server's link to the shared database: the verified fake of the store, with everything that can go wrong.

A `Link` is a `FakeStore` on the tables of another one. It has all the trouble of a real connection: answers that are
late or never come, errors before and after an effect, a lost connection, a process that dies with its writes queued or
in flight.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Literal, TypeVar
from uuid import UUID

import trio
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.records import Instance

from tests.support.fake_rows import InstanceRecord
from tests.support.fake_store import LEAVING, FakeLeaseConnection, FakeStore, Write

if TYPE_CHECKING:
    from ..server import Server

T = TypeVar("T")

TABLES = (
    "instances", "guards", "conversations", "sessions", "closings", "messages", "stored_at", "message_ids",
    "ids_in_session", "ids_in_conversation", "memories",
)  # fmt: skip
LOOK_AT_OTHERS = "suspects"  # what a reaper asks again and again
LATENCIES = (0.0, 0.0, 0.0, 0.0, 0.0, 0.001, 0.001, 0.002, 0.005)  # seconds to the effect, and from there to the answer
Kind = Literal["refused", "silent", "errors", "slow"]


@dataclass(eq=False, slots=True)
class Trouble:
    """What is wrong with a link. refused: no connection; silent: no answer; errors, slow: now and then.

    seconds: the longest delay, if it is slow. share: of the operations that have errors or delays.
    """

    kind: Kind
    seconds: float = 0.0
    share: float = 0.5

    @property
    def cut(self) -> bool:
        """Whether nothing gets through."""
        return self.kind in ("refused", "silent")


@dataclass(frozen=True, slots=True)
class Lag:
    """Delays an operation by so many seconds. began: set when it is asked for. fails: it fails once, without effect."""

    name: str
    seconds: float
    began: trio.Event
    fails: bool = False


class LeaseLink(FakeLeaseConnection):
    """A lease connection that can be lost."""

    def __init__(self, link: Link, instance_id: UUID) -> None:
        super().__init__(link, instance_id)
        self._link = link

    def notify(self, session_id: UUID) -> None:
        if not self._link.cut:
            super().notify(session_id)

    def notify_of_changes(self, session_id: UUID, message_ids: Sequence[UUID] | None) -> None:
        if not self._link.cut:
            super().notify_of_changes(session_id, message_ids)


class Link(FakeStore):
    """One server's access to the shared tables.

    frozen, dead: set by the process that it belongs to. Operations of a dead process never return.
    closed_in_bulk: the bulk close of a shutdown has had its effect.
    """

    def __init__(self, database: FakeStore, server: Server, random: Random) -> None:
        super().__init__()
        for table in TABLES:
            setattr(self, table, getattr(database, table))
        self.trouble: Trouble | None = None
        self.frozen = False
        self.dead = False
        self.lag: Lag | None = None
        self.closed_in_bulk = False
        self._died_at = 0.0
        self.server = server
        self._random = random
        self._changed = trio.Event()

    @property
    def cut(self) -> bool:
        return self.trouble is not None and self.trouble.cut

    def set_trouble(self, trouble: Trouble | None) -> None:
        """Begins trouble, or ends it. The lease connection is lost with the first query that gets no answer."""
        self.trouble = trouble
        if self.cut:
            for guard in self._guards():
                guard.lost = True
            if trouble is not None and trouble.kind == "refused":
                self._drop_guards()
        self._change()

    def freeze(self, frozen: bool) -> None:
        self.frozen = frozen
        self._change()

    def die(self) -> None:
        """The process is gone: its connections are closed, its queue is lost."""
        self.dead, self._died_at = True, trio.current_time()
        self._change()
        self._drop_guards()
        self._queue.clear()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _never(self) -> None:
        """Waits as a dead process does."""
        await trio.sleep_forever()

    def _guards(self) -> list[LeaseLink]:
        return [guard for guard in self.guards.values() if isinstance(guard, LeaseLink) and guard._link is self]

    @property
    def unguarded(self) -> bool:
        """Whether the database has seen its lease connection end, and no other one yet."""
        return not self._guards()

    def _drop_guards(self) -> None:
        for guard in self._guards():
            guard.lost = True
            del self.guards[guard._instance_id]

    async def drained(self) -> None:
        """Returns once no write is queued or in flight."""
        while self._committing:
            await self._changed.wait()

    async def _commit_queued(self) -> None:
        await super()._commit_queued()
        self._change()

    def _next_write(self) -> Write:
        """Picks as the real store may: a session's writes keep their order, and two commits are in flight at once."""
        if len(self._queue) == 1:
            return self._queue[0]
        firsts: dict[UUID | None, Write] = {}
        for write in self._queue:
            if write.name not in LEAVING:
                firsts.setdefault(write.session_id, write)
        return self._random.choice(list(firsts.values())) if firsts else self._queue[0]

    # --- what differs from a store with its own tables

    async def register_instance(self, instance: Instance) -> None:
        await super().register_instance(
            replace(instance, pid=self.server.pid, process_started=self.server.number, host_id=self.server.host)
        )

    @asynccontextmanager
    async def open_lease_connection(self, instance_id: UUID) -> AsyncIterator[FakeLeaseConnection]:
        def take() -> FakeLeaseConnection:
            guard = self.guards[instance_id] = LeaseLink(self, instance_id)
            return guard

        before = self.guards.get(instance_id)
        try:
            yield await self._ask("open_lease_connection", take)
        finally:
            # Even if the answer was lost: the lock goes with the connection.
            if self.guards.get(instance_id) is not before:
                self.guards.pop(instance_id, None)

    def own(self) -> list[InstanceRecord]:
        """The rows of `server_instances` that this process wrote."""
        return [record for record in self.instances.values() if record.instance.process_started == self.server.number]

    async def _ask(self, name: str, effect: Callable[[], T]) -> T:
        """Sets a timeout only if it may expire: a cancel scope would cost more than all the rest.

        No trouble that begins meanwhile lasts that long.
        """
        if self.trouble is None and self.lag is None and not self.frozen:
            await trio.lowlevel.checkpoint()
            return await self._attempt(name, effect)
        return await super()._ask(name, effect)

    async def _attempt(self, name: str, effect: Callable[[], T]) -> T:
        """One statement: there, its effect, and back. If it is cancelled on the way, it may have its effect all the
        same."""

        def act() -> T:
            try:
                return effect()
            finally:
                if name == "begin_session" and self.closed_in_bulk:
                    self.server.world.count("state", "begun behind the bulk close")
                self.closed_in_bulk |= name == "close_instance_sessions"
                self.server.world.on_effect(self, name)

        try:
            await self._go(name)
        except trio.Cancelled:
            if not self.cut and (not self.dead or trio.current_time() == self._died_at) and self._random.random() < 0.5:
                self._count(name, "cancelled_yet_done")
                with suppress(StoreError):
                    act()
            raise
        self._maybe_fail(name, "before")
        result = act()
        try:
            await self._come_back(name)
        except trio.Cancelled:
            self._count(name, "cancelled_unheard")
            raise
        self._maybe_fail(name, "after")
        return result

    async def _go(self, name: str) -> None:
        if self.dead:
            await self._never()
        await self._wait(name)
        if self.lag is not None and self.lag.name == name:
            await self._be_late(self.lag)
        if self.dead:
            if self._random.random() < 0.5:
                self._count(name, "done_after_death")
                return
            await self._never()
        while self.frozen:
            await self._changed.wait()
        while self.trouble is not None and self.trouble.kind == "silent":
            self._count(name, "silent")
            await self._changed.wait()
            self._fail(name, "the connection was lost")
        if self.trouble is not None and self.trouble.kind == "refused":
            self._count(name, "refused")
            self._fail(name, "connection refused")

    async def _be_late(self, lag: Lag) -> None:
        lag.began.set()
        await trio.sleep(lag.seconds)
        if lag.fails:
            self.lag = None
            if lag.name == LOOK_AT_OTHERS:
                self.server.blind_at.append(trio.current_time())
            self._fail(lag.name, "the connection was lost")

    async def _travel(self) -> None:
        """One way to the database or back. If it takes no time, the caller has its checkpoint elsewhere."""
        seconds = LATENCIES[int(self._random.random() * len(LATENCIES))]
        if seconds:
            await trio.sleep(seconds)

    async def _come_back(self, name: str) -> None:
        await self._travel()
        if self.dead:
            self._count(name, "done_unheard")
            await self._never()
        if self.cut:
            self._count(name, "cut_after")
            self._fail(name, "the connection was lost")

    async def _wait(self, name: str) -> None:
        trouble = self.trouble
        if trouble is None or trouble.kind != "slow" or self._random.random() >= trouble.share:
            await self._travel()
            return
        self._count(name, "slow")
        # A share of 1 is a database that stalls: everything waits, and nothing is lost.
        least = trouble.seconds if trouble.share == 1.0 else 0.0
        with trio.move_on_after(self._random.uniform(least, trouble.seconds)):
            while self.trouble is trouble and not self.dead:
                await self._changed.wait()

    def _maybe_fail(self, name: str, when: str) -> None:
        trouble = self.trouble
        if trouble is not None and trouble.kind == "errors" and self._random.random() < trouble.share / 2:
            self._count(name, when)
            self._fail(name, f"an error {when} the effect")

    def _fail(self, name: str, why: str) -> None:
        raise StoreUnavailable(f"{name}: {why}")

    def _count(self, name: str, kind: str) -> None:
        self.server.world.count("store", f"{name}/{kind}")
