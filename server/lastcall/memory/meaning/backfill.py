"""Gives meanings to turns that were indexed without: before the extra was installed, or while its process was away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
import trio

from ...logs.trouble import Trouble
from ...store.errors import StoreError
from ...store.people.meanings import UnencodedPassage
from ..facts.redaction import SECRET_CHARS_READ
from .encoder import TEXT_CHARS_MAX, Encode

WALK_SECONDS = 3_600.0  # between two walks over all passages
LEASE_SECONDS = 600.0  # that a claim lasts; longer than one passage can take with all its tries
TRIES_MAX = 3  # of one passage in a walk, while the encoder does not answer
AWAY_SECONDS = 60.0  # before it is asked again
REST_SHARE = 4.0  # times as long as a passage took, before the next: a fifth of one processor at most
REST_SECONDS_MIN = 0.05
REST_SECONDS_MAX = 30.0
_CHARS = TEXT_CHARS_MAX + SECRET_CHARS_READ  # of each text
_BEFORE_ALL = ("", -1)

_log = structlog.get_logger(__name__)


class UnencodedStore(Protocol):
    """The part of the store that the backfill uses. Raises `StoreError`."""

    async def count_unencoded(self) -> int: ...

    async def claim_unencoded(
        self, after: tuple[str, int], chars_max: int, lease_seconds: float
    ) -> UnencodedPassage | None: ...

    async def store_encoded(self, passage: UnencodedPassage, vectors: Mapping[int, str]) -> int: ...


class Backfill:
    """Walks over all passages, one at a time and with rests; servers share the work by claims.

    encode: of turns; questions and sessions that have just ended go between two of its calls. pending: is told how many
    passages are left, counted: how many turns have got a meaning.
    """

    def __init__(
        self,
        store: UnencodedStore,
        encode: Encode,
        pending: Callable[[int], object],
        counted: Callable[[int], object],
    ) -> None:
        self._store = store
        self._encode = encode
        self._pending = pending
        self._counted = counted
        self._trouble = Trouble()

    async def run(self) -> None:
        """Walks again and again, until this is cancelled."""
        while True:
            try:
                await self.walk()
                self._trouble.over()
            except StoreError as error:
                if self._trouble.is_new(error):
                    _log.warning("meanings_not_completed", error=str(error))
            await trio.sleep(WALK_SECONDS)

    async def walk(self) -> None:
        """Encodes what is missing now. Raises `StoreError`."""
        left = await self._store.count_unencoded()
        self._pending(left)
        if not left:
            return
        _log.info("meanings_missing", passages=left)
        passages = turns = 0
        after = _BEFORE_ALL
        while (passage := await self._store.claim_unencoded(after, _CHARS, LEASE_SECONDS)) is not None:
            after = passage.user_id, passage.passage_id
            began = trio.current_time()
            if passage.texts and (stored := await self._complete(passage)) is not None:
                passages, turns = passages + 1, turns + stored
                self._pending(max(left - passages, 0))
                self._counted(stored)
            rest = REST_SHARE * (trio.current_time() - began)
            await trio.sleep(min(max(rest, REST_SECONDS_MIN), REST_SECONDS_MAX))
        self._pending(await self._store.count_unencoded())
        _log.info("meanings_completed", passages=passages, turns=turns)

    async def _complete(self, passage: UnencodedPassage) -> int | None:
        """How many turns have got a meaning; None where the encoder did not answer: the next walk tries again."""
        for number in range(TRIES_MAX):
            vectors = await self._encode(list(passage.texts.values()))
            if vectors is not None:
                return await self._store.store_encoded(passage, dict(zip(passage.texts, vectors, strict=True)))
            if number + 1 < TRIES_MAX:
                await trio.sleep(AWAY_SECONDS)
        return None
