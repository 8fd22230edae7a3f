"""One attempt at the memory of a claimed session: extract and store it, or say why that failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from uuid import UUID

import structlog
import trio

from ..agents.agent import Agent, AgentFailed, Memory, ModelUnavailable, contained
from ..config import Settings
from ..store.errors import InvalidRow, StoreError
from ..store.records import MemoryClaim
from ..store.store import Store
from .by_model.outage import ModelOutage
from .extract import RulesExtractor, RulesUnavailable, SessionRefused, TurnIndexer, extract_memories
from .outcomes import CONTENT_CHARS_MAX, UnstoredOutcomes, acceptable

RELEASE_SECONDS = 2.0  # for giving a claim back, shielded
BACKOFF_SECONDS_MIN = 2.0
BACKOFF_SECONDS_MAX = 300.0
STORE_RETRY_SECONDS = 1.0  # between two attempts to store the memories of one try
SUSPECTS_MAX = 256  # sessions that the model failed on once
DAY_SECONDS = 86_400.0
MODEL_SHARE = 0.75  # of a try's seconds that its model may take; the rest is for the rules and the store

_log = structlog.get_logger(__name__)


class Attempts:
    """Finalizes claimed sessions, and settles each claim: done, failed, or given back.

    Attributes:
        outage: Whether the model is away. Its sessions are given back untried, and cost no attempt.
        closing: Whether the server shuts down: the store is not waited for.
    """

    def __init__(
        self, store: Store, agent: Agent, settings: Settings, by_rules: RulesExtractor, index: TurnIndexer
    ) -> None:
        self.outage = ModelOutage()
        self.closing = False
        self._store = store
        self._agent = agent
        self._settings = settings
        self._by_rules = by_rules
        self._index = index
        self._unstored = UnstoredOutcomes()
        days = settings.memory_days
        self._lifetime_seconds = None if days is None else days * DAY_SECONDS
        self._suspects: deque[UUID] = deque(maxlen=SUSPECTS_MAX)  # what is dropped has another try for nothing

    async def settle(self, claim: MemoryClaim) -> None:
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
                memories = await self._extracted(claim)
                passages = await self._indexed(claim)
                await self._store_memories(session_id, memories, passages)
        except ModelUnavailable as error:
            seconds = self.outage.begin()
            _log.warning("memory_waits_for_model", session_id=str(session_id), reason=str(error), again_seconds=seconds)
            await self._release(claim)
        except SessionRefused as error:
            await self._suspect(claim, str(error))
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

    async def _extracted(self, claim: MemoryClaim) -> Sequence[Memory]:
        """The session's memories: from an earlier try that could not store them, or extracted now."""
        memories = self._unstored.find(claim.transcript)
        if memories is None:
            with contained():
                memories = acceptable(await self._extract(claim))
            self.outage.end()
            self._unstored.keep(claim.transcript, memories)
        return memories

    async def _extract(self, claim: MemoryClaim) -> Sequence[Memory]:
        """The last of several tries is without the model: what it fails on each time, the rules remember."""
        return await extract_memories(
            self._agent,
            claim.transcript,
            self._by_rules,
            model_seconds=MODEL_SHARE * self._settings.memory_seconds,
            without_model=1 < claim.attempts == self._settings.memory_attempts_max,
        )

    async def _indexed(self, claim: MemoryClaim) -> str:
        """The words of the session's turns; in its last try none where that fails, which must not cost its memories."""
        try:
            return await self._index(claim.transcript)
        except AgentFailed as error:
            if claim.attempts < self._settings.memory_attempts_max:
                raise
            _log.warning("turns_not_indexed", session_id=claim.transcript.session_id, reason=str(error))
            return "[]"

    async def _store_memories(self, session_id: UUID, memories: Sequence[Memory], passages: str) -> None:
        """Stores a session's memories, again and again for as long as the try may last and the store is away."""
        while True:
            try:
                await self._store.finish_memory(session_id, memories, passages, lifetime_seconds=self._lifetime_seconds)
            except InvalidRow:
                self._unstored.drop(str(session_id))
                raise
            except StoreError:
                over = trio.current_time() + STORE_RETRY_SECONDS >= trio.current_effective_deadline()
                if over or self.closing:
                    raise
                await trio.sleep(STORE_RETRY_SECONDS)
            else:
                self._unstored.drop(str(session_id))
                return

    async def _suspect(self, claim: MemoryClaim, reason: str) -> None:
        """From the second time on it is a failed try. A request that an outage held up looks the same when it ends."""
        session_id = UUID(claim.transcript.session_id)
        if session_id in self._suspects:
            await self._note_failure(claim, reason)
            return
        self._suspects.append(session_id)
        _log.warning("memory_tried_again", session_id=str(session_id), reason=reason)
        await self._release(claim)

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
