"""The memory finalizer: turns the transcripts of closed sessions into memories.

Its queue is the database itself: the statement that closes a session's row marks its memory pending, whoever closes
it, and the workers of all servers claim pending sessions. So no memory is lost with a process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from uuid import UUID

import structlog
import trio

from ..agents.agent import Agent
from ..config import Settings
from ..store.errors import StoreError
from ..store.store import Store
from .attempts import CLAIM_SECONDS as CLAIM_SECONDS
from .attempts import Attempts
from .extract import uses_rules
from .reading import SessionReader, read_in_process

TOGETHER_MAX = 64  # sessions that a worker finalizes together, where the rules remember them; a model takes one
GATHER_SECONDS = 0.02  # between two workers' taking up what exit paths ask for; one that asks alone does not wait
EXPIRED_MAX = 1_000  # memories that one sweep deletes
REST_SECONDS_MAX = 0.1  # of a worker, between two sessions

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Request:
    """A session that was asked for by its exit path. done: it was finalized, or could not be for now."""

    session_id: UUID
    done: trio.Event = field(default_factory=trio.Event)


class Finalizer:
    """Finalizes the memory of closed sessions, `memory_workers` at a time.

    Sessions whose exit paths ask for it come first, where a worker is idle. All others are found by passes over what
    is pending: one is made when a session is announced, and one per sweep interval. While the agent's model is away,
    nothing is claimed but after a growing, bounded pause.

    Where the rules do it, a worker takes many sessions at once: claims, reads and stores them in one step each.
    """

    def __init__(self, store: Store, agent: Agent, settings: Settings, read: SessionReader = read_in_process) -> None:
        self._store = store
        self._settings = settings
        self._attempts = Attempts(store, agent, settings, read)
        self._together_max = TOGETHER_MAX if uses_rules(agent) else 1
        self._idle = trio.lowlevel.ParkingLot()
        self._requests: deque[_Request] = deque()  # fewer than `_together_max` where no worker is idle
        self._taken_up = -inf  # when a worker last took requests
        self._waiting: set[trio.Event] = set()
        self._announced = 0
        self._swept = 0  # what was announced before the latest pass that found nothing
        self._draining = False
        self._closing = False

    async def finalize(self, session_id: UUID) -> None:
        """Finalizes one closed session, and waits as `ask` says."""
        await self.ask(session_id).wait()

    def ask(self, session_id: UUID) -> trio.Event:
        """Has one closed session finalized. Never waits.

        Returns an event for when that is done; it is set at once where no worker or no model is there. What is not done
        then stays pending and is found by a pass. Nobody has to wait for it.
        """
        has_room = self._idle or 0 < len(self._requests) < self._together_max
        if self._draining or not has_room or self._attempts.outage.seconds_left():
            self.announce()
            return _set_event()
        request = _Request(session_id)
        self._requests.append(request)
        if len(self._requests) % self._together_max in (0, 1):  # the others are taken up with the first one
            self._idle.unpark()
        self._waiting.add(request.done)
        return request.done

    def announce(self) -> None:
        """Has a worker make a pass. Never waits; an announcement that is lost costs one sweep interval."""
        self._announced += 1
        self._idle.unpark()

    def drain(self) -> None:
        """From now on no session waits for its memory: a shutdown has a phase of its own for it."""
        self._draining = True
        for done in self._waiting:
            done.set()

    def close(self) -> None:
        """Lets the workers end as soon as a pass finds nothing."""
        self._closing = self._attempts.closing = True
        self._announced += 1
        self._idle.unpark_all()

    async def work(self) -> None:
        """One worker: finalizes until closed and nothing is pending, or none can be because the model is away."""
        due = True
        while True:
            began = trio.current_time()
            if self._requests:
                found = await self._serve()
            elif away_seconds := self._attempts.outage.seconds_left():
                if self._closing:
                    return
                due = await self._parked(away_seconds) or due
                continue
            elif due or self._announced != self._swept:
                found = due = await self._pass()
            elif self._closing:
                return
            else:
                await self._expire()
                due = await self._parked(self._settings.memory_sweep_seconds)
                continue
            if found:
                await self._rest(trio.current_time() - began)

    async def _expire(self) -> None:
        """Deletes memories whose lifetime is over, once per sweep and worker that has nothing else to do."""
        if self._settings.memory_days is None:
            return
        try:
            await self._store.expire_memories(EXPIRED_MAX)
        except StoreError as error:
            _log.warning("memories_not_expired", error=str(error))

    async def _serve(self) -> bool:
        """Finalizes sessions that were asked for: those that have gathered by now."""
        if self._together_max > 1:
            await trio.sleep_until(self._taken_up + GATHER_SECONDS)
            self._taken_up = trio.current_time()
        taken = [self._requests.popleft() for _ in range(min(len(self._requests), self._together_max))]
        try:
            return bool(taken) and await self._finalize_next([request.session_id for request in taken])
        finally:
            for request in taken:
                request.done.set()
                self._waiting.discard(request.done)

    async def _pass(self) -> bool:
        """Finalizes pending sessions, if there are any."""
        announced = self._announced  # a session that is announced during the pass needs another one
        found = await self._finalize_next()
        if not found:
            self._swept = max(self._swept, announced)
        return found

    async def _parked(self, seconds: float) -> bool:
        """Waits for something to do. True: there was nothing for so long; it is time for a pass."""
        with trio.move_on_after(seconds) as interval:
            await self._idle.park()
        return interval.cancelled_caught

    async def _rest(self, worked_seconds: float) -> None:
        """As long as the work took. When many sessions end at once, those that go on need the database more."""
        if not self._closing:
            await trio.sleep(min(worked_seconds, REST_SECONDS_MAX))

    async def _finalize_next(self, session_ids: Sequence[UUID] | None = None) -> bool:
        """Claims and finalizes these sessions, or those that have been pending the longest. False: none was free."""
        try:
            claims = await self._store.claim_memory(self._together_max, CLAIM_SECONDS, session_ids=session_ids)
        except StoreError as error:
            _log.warning("memory_not_claimed", error=str(error))
            return False
        if claims:
            await self._attempts.settle(claims)
        return bool(claims)


def _set_event() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@asynccontextmanager
async def open_finalizer(
    store: Store, agent: Agent, settings: Settings, read: SessionReader = read_in_process
) -> AsyncIterator[Finalizer]:
    """Runs the workers until the block is left, and then until nothing is pending; the caller sets the deadline."""
    finalizer = Finalizer(store, agent, settings, read)
    async with trio.open_nursery() as workers:
        for _ in range(settings.memory_workers):
            workers.start_soon(finalizer.work)
        try:
            yield finalizer
        finally:
            finalizer.close()
