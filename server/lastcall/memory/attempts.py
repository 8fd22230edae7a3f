"""Attempts at the memory of claimed sessions: read and store it, or say why that failed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
import trio

from ..agents.agent import Agent, AgentFailed, Memory, ModelUnavailable, Transcript, contained
from ..config import Settings
from ..store.errors import InvalidRow, StoreError
from ..store.records import FinishedMemory, MemoryClaim
from ..store.store import Store
from .by_model.model_extract import KNOWN_MAX
from .by_model.outage import ModelOutage
from .extract import RulesUnavailable, SessionRefused, extract_memories, uses_rules
from .outcomes import CONTENT_CHARS_MAX, UnstoredOutcomes, acceptable
from .reading import Reading, SessionReader

CLAIM_SECONDS = 10.0  # that a claim lasts after its server was last heard of
RENEW_SECONDS = 3.0  # between renewals of the claims in hand
RELEASE_SECONDS = 2.0  # for giving claims back, shielded
BACKOFF_SECONDS_MIN = 2.0
BACKOFF_SECONDS_MAX = 300.0
STORE_RETRY_SECONDS = 1.0  # between two attempts to store the memories of one try
SUSPECTS_MAX = 256  # sessions that the model failed on once
DAY_SECONDS = 86_400.0
MODEL_SHARE = 0.75  # of a try's seconds that its model may take; the rest is for reading and the store

_log = structlog.get_logger(__name__)


class Attempts:
    """Finalizes claimed sessions, and settles each claim: done, failed, or given back.

    Attributes:
        outage: Whether the model is away. Its sessions are given back untried, and cost no attempt.
        closing: Whether the server shuts down: the store is not waited for.
    """

    def __init__(self, store: Store, agent: Agent, settings: Settings, read: SessionReader) -> None:
        self.outage = ModelOutage()
        self.closing = False
        self._store = store
        self._agent = agent
        self._settings = settings
        self._read = read
        self._unstored = UnstoredOutcomes()
        days = settings.memory_days
        self._lifetime_seconds = None if days is None else days * DAY_SECONDS
        self._suspects: deque[UUID] = deque(maxlen=SUSPECTS_MAX)  # what is dropped has another try for nothing

    async def settle(self, claims: Sequence[MemoryClaim]) -> None:
        """Finalizes claimed sessions, or notes their failures. Raises nothing but cancellation.

        What the rules remember is read and stored together. Where that fails, each session is tried alone: what is
        wrong with one costs no other a try.
        """
        open_claims = {claim.transcript.session_id: claim for claim in claims}
        try:
            async with self._renewed(open_claims):
                for claim in claims:
                    if claim.attempts > self._settings.memory_attempts_max:
                        await self._note_failure(claim, "every try ended with its server")
                        del open_claims[claim.transcript.session_id]
                if len(open_claims) > 1 and uses_rules(self._agent):
                    await self._try_together(open_claims)
                for claim in [*open_claims.values()]:
                    await self._try(claim)
                    del open_claims[claim.transcript.session_id]
        finally:
            # The budget of a shutdown is over: give the claims back, so that the next server need not wait for them to
            # run out. Not `except Cancelled`: from an agent's own tasks it comes in a group, or as what their clean-up
            # raised.
            if open_claims:
                with trio.move_on_after(RELEASE_SECONDS, shield=True):
                    await self._release([*open_claims.values()])

    @asynccontextmanager
    async def _renewed(self, claims: dict[str, MemoryClaim]) -> AsyncIterator[None]:
        """Keeps what is still in `claims` from other servers. A server that is killed keeps it no longer than that."""
        async with trio.open_nursery() as beside:
            beside.start_soon(self._renew, claims)
            try:
                yield
            finally:
                beside.cancel_scope.cancel()

    async def _renew(self, claims: dict[str, MemoryClaim]) -> None:
        while True:
            await trio.sleep(RENEW_SECONDS)
            try:
                await self._store.renew_memory([*claims.values()], CLAIM_SECONDS)
            except StoreError as error:  # others may try these sessions, too; the first to finish one stores it
                _log.warning("memory_claims_not_renewed", sessions=len(claims), error=str(error))

    async def _try_together(self, claims: dict[str, MemoryClaim]) -> None:
        """Finalizes by the rules. What is settled leaves `claims`; what is not is to be tried alone."""
        try:
            with trio.fail_after(self._settings.memory_seconds):
                readings = await self._read([claim.transcript for claim in claims.values()])
                read = [
                    FinishedMemory(UUID(session_id), reading.memories, reading.passages, reading.meanings)
                    for session_id, reading in zip(claims, readings, strict=True)
                    if reading.error is None
                ]
                await self._finish(read)
        except RulesUnavailable as error:
            _log.warning("memory_waits_for_rules", sessions=len(claims), reason=str(error))
            await self._release([*claims.values()])
            claims.clear()
        except Exception as error:  # noqa: BLE001 - whatever it is, each try alone tells whose it is
            _log.info("memory_tried_alone", sessions=len(claims), reason=repr(error))
        else:
            for each in read:
                del claims[str(each.session_id)]

    async def _try(self, claim: MemoryClaim) -> None:
        """Finalizes one session, or notes why that failed. Raises only where it was cancelled."""
        session_id = UUID(claim.transcript.session_id)
        try:
            with trio.fail_after(self._settings.memory_seconds):
                reading = await self._read_alone(claim)
                memories = await self._extracted(claim, reading)
                await self._finish([FinishedMemory(session_id, memories, reading.passages, reading.meanings)])
        except ModelUnavailable as error:
            seconds = self.outage.begin()
            _log.warning("memory_waits_for_model", session_id=str(session_id), reason=str(error), again_seconds=seconds)
            await self._release([claim])
        except SessionRefused as error:
            await self._suspect(claim, str(error))
        except RulesUnavailable as error:
            _log.warning("memory_waits_for_rules", session_id=str(session_id), reason=str(error))
            await self._release([claim])
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

    async def _read_alone(self, claim: MemoryClaim) -> Reading:
        """Reads one session. In its last try it may fail: that must not cost the memories of a model."""
        try:
            (reading,) = await self._read([claim.transcript])
        except AgentFailed as error:
            reading = Reading(error=str(error))
        if reading.error is not None:
            if uses_rules(self._agent) or claim.attempts < self._settings.memory_attempts_max:
                raise AgentFailed("extraction_failed", reading.error)
            _log.warning("turns_not_indexed", session_id=claim.transcript.session_id, reason=reading.error)
        return reading

    async def _extracted(self, claim: MemoryClaim, reading: Reading) -> Sequence[Memory]:
        """The session's memories: from an earlier try that could not store them, or extracted now."""
        memories = self._unstored.find(claim.transcript)
        if memories is None:
            with contained():
                memories = acceptable(await self._extract(claim, reading))
            self.outage.end()
            self._unstored.keep(claim.transcript, memories)
        return memories

    async def _extract(self, claim: MemoryClaim, reading: Reading) -> Sequence[Memory]:
        """The last of several tries is without the model: what it fails on each time, the rules remember."""

        async def by_rules(_transcript: Transcript) -> Sequence[Memory]:
            await trio.lowlevel.checkpoint()
            if reading.error is not None:
                raise AgentFailed("extraction_failed", reading.error)
            return reading.memories

        return await extract_memories(
            self._agent,
            claim.transcript,
            by_rules,
            known=lambda: self._store.known_memories(claim.transcript.user_id, KNOWN_MAX),
            model_seconds=MODEL_SHARE * self._settings.memory_seconds,
            without_model=1 < claim.attempts == self._settings.memory_attempts_max,
        )

    async def _finish(self, finished: Sequence[FinishedMemory]) -> None:
        """Stores what is kept, again and again for as long as the try may last and the store is away."""
        while finished:
            try:
                await self._store.finish_memory(finished, lifetime_seconds=self._lifetime_seconds)
            except InvalidRow:
                self._drop_unstored(finished)
                raise
            except StoreError:
                over = trio.current_time() + STORE_RETRY_SECONDS >= trio.current_effective_deadline()
                if over or self.closing:
                    raise
                await trio.sleep(STORE_RETRY_SECONDS)
            else:
                self._drop_unstored(finished)
                return

    def _drop_unstored(self, finished: Sequence[FinishedMemory]) -> None:
        for each in finished:
            self._unstored.drop(str(each.session_id))

    async def _suspect(self, claim: MemoryClaim, reason: str) -> None:
        """From the second time on it is a failed try. A request that an outage held up looks the same when it ends."""
        session_id = UUID(claim.transcript.session_id)
        if session_id in self._suspects:
            await self._note_failure(claim, reason)
            return
        self._suspects.append(session_id)
        _log.warning("memory_tried_again", session_id=str(session_id), reason=reason)
        await self._release([claim])

    async def _release(self, claims: Sequence[MemoryClaim]) -> None:
        try:
            await self._store.release_memory([UUID(claim.transcript.session_id) for claim in claims])
        except StoreError as error:
            _log.warning("memory_not_released", sessions=len(claims), error=str(error))

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
