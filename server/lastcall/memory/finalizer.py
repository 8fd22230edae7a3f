"""Memory: what a session leaves behind, and what the next one begins with.

The queue of work is the database itself: the statement that closes a session's row marks its memory pending, whoever
closes it, and finalizers claim pending sessions. So nothing is lost with a process, and no session waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
import trio

from ..agents.agent import Agent, AgentFailed, Memory
from ..agents.containment import contained
from ..config import Settings
from ..store.errors import InvalidRow, StoreError
from ..store.records import MemoryClaim, RememberedFact
from ..store.store import Store

CLAIM_MARGIN_SECONDS = 15.0  # a claim outlives the work that it covers
RELEASE_SECONDS = 2.0  # for the shielded word that a claim is given back
BACKOFF_SECONDS_MIN = 2.0
BACKOFF_SECONDS_MAX = 300.0
KIND_CHARS_MAX = 32
CONTENT_CHARS_MAX = 1000
MEMORIES_MAX = 50  # per session
REST_SECONDS_MAX = 0.1

_log = structlog.get_logger(__name__)


def briefing(facts: Sequence[RememberedFact]) -> str:
    """What an agent is told about a user it has met before; empty for a stranger."""
    if not facts:
        return ""
    lines = "\n".join(f"- {' '.join(fact.content.split())}" for fact in facts)
    return f"Facts about the user you are talking to, in the user's own words, from earlier conversations:\n{lines}"


class Finalizer:
    """Turns the transcripts of closed sessions into memories, `memory_workers` at a time."""

    def __init__(self, store: Store, agent: Agent, settings: Settings) -> None:
        self._store = store
        self._agent = agent
        self._settings = settings
        self._idle = trio.lowlevel.ParkingLot()
        self._announced = 0
        self._closing = False

    def wake(self) -> None:
        """Says that a session was closed. Never waits; a word that gets lost costs one sweep interval."""
        self._announced += 1
        self._idle.unpark()

    def close(self) -> None:
        """Lets the workers end as soon as nothing is pending."""
        self._closing = True
        self._idle.unpark_all()

    async def work(self) -> None:
        """One worker: claims and finalizes until closed and nothing is pending."""
        while True:
            announced, began = self._announced, trio.current_time()
            if await self._finalize_next():
                await self._rest(trio.current_time() - began)
                continue
            # A session that ended during the look was announced to nobody: look again before sleeping or ending.
            if announced != self._announced:
                continue
            if self._closing:
                return
            with trio.move_on_after(self._settings.memory_sweep_seconds):
                await self._idle.park()

    async def _rest(self, worked_seconds: float) -> None:
        """As long as the work took. When many sessions end at once, those that go on need the database more."""
        if not self._closing:
            await trio.sleep(min(worked_seconds, REST_SECONDS_MAX))

    async def _finalize_next(self) -> bool:
        """Finalizes one pending session, if there is one to be had."""
        try:
            lease = self._settings.memory_seconds + CLAIM_MARGIN_SECONDS
            claims = await self._store.claim_memory(1, lease)
        except StoreError as error:
            _log.warning("memory_not_claimed", error=str(error))
            return False
        for claim in claims:
            await self._finalize(claim)
        return bool(claims)

    async def _finalize(self, claim: MemoryClaim) -> None:
        """One claimed session, to the end or to a noted failure. Raises nothing but cancellation."""
        if claim.attempts > self._settings.memory_attempts_max:
            await self._note_failure(claim, "every try ended with its server")
            return
        settled = False
        try:
            await self._try(claim)
            settled = True
        finally:
            # The budget of a shutdown is over: give the claim back, so that the next server need not wait it out.
            # Not `except Cancelled`: out of an agent's own tasks it comes as a group, or as what its clean-up raised.
            if not settled:
                with trio.move_on_after(RELEASE_SECONDS, shield=True):
                    await self._release(claim)

    async def _try(self, claim: MemoryClaim) -> None:
        """Finalizes, or notes why not. Raises only where it was cut off."""
        session_id = UUID(claim.transcript.session_id)
        try:
            with trio.fail_after(self._settings.memory_seconds):
                with contained():
                    memories = await self._agent.finalize(claim.transcript)
                await self._store.finish_memory(session_id, _acceptable(memories))
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
            # The claim runs out by itself, and the session is tried again then.
            _log.warning("memory_failure_not_noted", session_id=str(session_id), error=str(error))


def _acceptable(memories: Sequence[Memory]) -> list[Memory]:
    """Holds an agent's memories to the schema's bounds."""
    cleaned = (
        Memory(
            memory.kind.replace("\0", "")[:KIND_CHARS_MAX] or "note",
            memory.content.replace("\0", "")[:CONTENT_CHARS_MAX],
            memory.item_id,
            memory.quote.replace("\0", "")[:CONTENT_CHARS_MAX],
        )
        for memory in memories[:MEMORIES_MAX]
    )
    return [memory for memory in cleaned if memory.content.strip()]


@asynccontextmanager
async def open_finalizer(store: Store, agent: Agent, settings: Settings) -> AsyncIterator[Finalizer]:
    """Runs the workers until the block is left, and then until nothing is pending. Who leaves it sets the deadline."""
    finalizer = Finalizer(store, agent, settings)
    async with trio.open_nursery() as workers:
        for _ in range(settings.memory_workers):
            workers.start_soon(finalizer.work)
        try:
            yield finalizer
        finally:
            finalizer.close()
