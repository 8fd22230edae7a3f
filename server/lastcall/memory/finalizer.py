"""The memory finalizer: turns the transcripts of closed sessions into memories.

Its queue is the database itself: the statement that closes a session's row marks its memory pending, whoever closes
it, and the workers of all servers claim pending sessions. So no memory is lost with a process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog
import trio

from ..agents.agent import Agent, AgentFailed, Memory, Transcript, contained
from ..config import Settings
from ..store.errors import InvalidRow, StoreError
from ..store.records import MemoryClaim
from ..store.store import Store
from .extract import RulesExtractor, RulesUnavailable, extract_memories, rules_in_process
from .outcomes import CONTENT_CHARS_MAX, UnstoredOutcomes, acceptable

CLAIM_MARGIN_SECONDS = 15.0  # a claim outlives the work that it covers
RELEASE_SECONDS = 2.0  # for giving a claim back, shielded
BACKOFF_SECONDS_MIN = 2.0
BACKOFF_SECONDS_MAX = 300.0
STORE_RETRY_SECONDS = 1.0  # between two attempts to store the memories of one try
REST_SECONDS_MAX = 0.1  # of a worker, between two sessions

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Request:
    """A session that was asked for by its exit path. done: it was finalized, or could not be for now."""

    session_id: UUID
    done: trio.Event = field(default_factory=trio.Event)


class Finalizer:
    """Finalizes the memory of closed sessions, `memory_workers` at a time.

    A session whose exit path asks for it comes first, where a worker is idle. All others are found by passes over what
    is pending: one is made when a session is announced, and one per sweep interval.
    """

    def __init__(
        self, store: Store, agent: Agent, settings: Settings, by_rules: RulesExtractor = rules_in_process
    ) -> None:
        self._store = store
        self._agent = agent
        self._settings = settings
        self._by_rules = by_rules
        self._unstored = UnstoredOutcomes()
        self._idle = trio.lowlevel.ParkingLot()
        self._requests: deque[_Request] = deque()  # no more than there are workers
        self._waiting: set[trio.Event] = set()
        self._announced = 0
        self._swept = 0  # what was announced before the latest pass that found nothing
        self._draining = False
        self._closing = False

    async def finalize(self, session_id: UUID) -> None:
        """Finalizes one closed session and returns when that is done, or at once where no worker is idle.

        What is not done here stays pending and is found by a pass. A caller that stops waiting does not stop the work.
        """
        if self._draining or not self._idle:
            self.announce()
            return
        request = _Request(session_id)
        self._requests.append(request)
        self._idle.unpark()
        self._waiting.add(request.done)
        try:
            await request.done.wait()
        finally:
            self._waiting.discard(request.done)

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
        self._closing = True
        self._announced += 1
        self._idle.unpark_all()

    async def work(self) -> None:
        """One worker: finalizes until closed and nothing is pending."""
        due = True
        while True:
            began = trio.current_time()
            if self._requests:
                found = await self._serve(self._requests.popleft())
            elif due or self._announced != self._swept:
                found = due = await self._pass()
            elif self._closing:
                return
            else:
                due = await self._sweep_is_due()
                continue
            if found:
                await self._rest(trio.current_time() - began)

    async def _serve(self, request: _Request) -> bool:
        try:
            return await self._finalize_next(request.session_id)
        finally:
            request.done.set()

    async def _pass(self) -> bool:
        """Finalizes one pending session, if there is one."""
        announced = self._announced  # a session that is announced during the pass needs another one
        found = await self._finalize_next()
        if not found:
            self._swept = max(self._swept, announced)
        return found

    async def _sweep_is_due(self) -> bool:
        """Waits for something to do. True: for nothing but the sweep interval to pass."""
        with trio.move_on_after(self._settings.memory_sweep_seconds) as interval:
            await self._idle.park()
        return interval.cancelled_caught

    async def _rest(self, worked_seconds: float) -> None:
        """As long as the work took. When many sessions end at once, those that go on need the database more."""
        if not self._closing:
            await trio.sleep(min(worked_seconds, REST_SECONDS_MAX))

    async def _finalize_next(self, session_id: UUID | None = None) -> bool:
        """Claims and finalizes this session, or the one that has been pending the longest. False: none was free."""
        try:
            lease = self._settings.memory_seconds + CLAIM_MARGIN_SECONDS
            claims = await self._store.claim_memory(1, lease, session_id=session_id)
        except StoreError as error:
            _log.warning("memory_not_claimed", error=str(error))
            return False
        for claim in claims:
            await self._finalize(claim)
        return bool(claims)

    async def _finalize(self, claim: MemoryClaim) -> None:
        """Finalizes one claimed session, or notes the failure. Raises nothing but cancellation."""
        if claim.attempts > self._settings.memory_attempts_max:
            await self._note_failure(claim, "every try ended with its server")
            return
        settled = False
        try:
            await self._try(claim)
            settled = True
        finally:
            # The budget of a shutdown is over: give the claim back, so that the next server need not wait for its end.
            # Not `except Cancelled`: from an agent's own tasks it comes in a group, or as what their clean-up raised.
            if not settled:
                with trio.move_on_after(RELEASE_SECONDS, shield=True):
                    await self._release(claim)

    async def _try(self, claim: MemoryClaim) -> None:
        """Finalizes, or notes why that failed. Raises only where it was cancelled."""
        session_id = UUID(claim.transcript.session_id)
        try:
            with trio.fail_after(self._settings.memory_seconds):
                memories = await self._extracted(claim.transcript)
                await self._store_memories(session_id, memories)
        except RulesUnavailable as error:
            _log.warning("memory_waits_for_rules", session_id=str(session_id), reason=str(error))
            await self._release(claim)
        except trio.TooSlowError:
            await self._note_failure(claim, f"took longer than {self._settings.memory_seconds:g} s")
        except (AgentFailed, InvalidRow) as error:
            await self._note_failure(claim, str(error))
        except StoreError as error:
            await self._note_failure(claim, f"not stored: {error}")
        except Exception as error:  # noqa: BLE001 - whatever an agent raises costs this one try
            _log.exception("finalize_raised", session_id=str(session_id))
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._note_failure(claim, f"{type(error).__name__}: {error}")

    async def _extracted(self, transcript: Transcript) -> Sequence[Memory]:
        """The session's memories: from an earlier try that could not store them, or extracted now."""
        memories = self._unstored.find(transcript)
        if memories is None:
            with contained():
                memories = acceptable(await extract_memories(self._agent, transcript, self._by_rules))
            self._unstored.keep(transcript, memories)
        return memories

    async def _store_memories(self, session_id: UUID, memories: Sequence[Memory]) -> None:
        """Stores a session's memories, again and again for as long as the try may last and the store is away."""
        while True:
            try:
                await self._store.finish_memory(session_id, memories)
            except InvalidRow:
                self._unstored.drop(str(session_id))
                raise
            except StoreError:
                over = trio.current_time() + STORE_RETRY_SECONDS >= trio.current_effective_deadline()
                if over or self._closing:
                    raise
                await trio.sleep(STORE_RETRY_SECONDS)
            else:
                self._unstored.drop(str(session_id))
                return

    async def _release(self, claim: MemoryClaim) -> None:
        try:
            await self._store.release_memory(UUID(claim.transcript.session_id))
        except StoreError as error:
            _log.warning("memory_not_released", session_id=claim.transcript.session_id, error=str(error))

    async def _note_failure(self, claim: MemoryClaim, reason: str) -> None:
        session_id = UUID(claim.transcript.session_id)
        _log.warning("memory_not_finalized", session_id=str(session_id), reason=reason, attempts=claim.attempts)
        retry_after: float | None = min(BACKOFF_SECONDS_MIN * 2.0**claim.attempts, BACKOFF_SECONDS_MAX)
        if claim.attempts >= self._settings.memory_attempts_max:
            retry_after = None
        try:
            await self._store.fail_memory(session_id, reason[:CONTENT_CHARS_MAX], retry_after=retry_after)
        except StoreError as error:
            # The claim expires by itself, and the session is tried again then.
            _log.warning("memory_failure_not_noted", session_id=str(session_id), error=str(error))


@asynccontextmanager
async def open_finalizer(
    store: Store, agent: Agent, settings: Settings, by_rules: RulesExtractor = rules_in_process
) -> AsyncIterator[Finalizer]:
    """Runs the workers until the block is left, and then until nothing is pending; the caller sets the deadline."""
    finalizer = Finalizer(store, agent, settings, by_rules)
    async with trio.open_nursery() as workers:
        for _ in range(settings.memory_workers):
            workers.start_soon(finalizer.work)
        try:
            yield finalizer
        finally:
            finalizer.close()
