"""Search by meaning, where the extra is installed and the database has what it needs; else words have to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..config import Settings
from ..diagnosis.meaning import is_wanted
from ..memory.meaning.backfill import Backfill
from ..memory.meaning.encoder_process import EncoderProcess, open_encoder_process
from ..metrics import Metrics
from ..runtime.check import CheckStatus, log_checks, warn
from ..store.errors import StoreError
from ..store.postgres import MEANING, PostgresStore


@asynccontextmanager
async def open_meaning(
    settings: Settings, store: PostgresStore, metrics: Metrics
) -> AsyncIterator[EncoderProcess | None]:
    """The encoder, for as long as the block lasts; None, and a line in the log where that is not as wanted.

    Beside it, what was indexed without meanings gets them.
    """
    if not is_wanted(settings):
        yield None  # the checks of the host have said why, if anything is missing
        return
    try:
        check = await store.prepare_meanings()
    except StoreError as error:
        check = warn(MEANING, f"{error}: turns are found by their words only", "start again")
    log_checks([check])
    if check.status is not CheckStatus.OK:
        yield None
        return
    async with open_encoder_process() as encoder, trio.open_nursery() as beside:
        backfill = Backfill(store, encoder.encode_turns, metrics.meanings_pending.set, metrics.turns_encoded_late.inc)
        beside.start_soon(backfill.run)
        yield encoder
        beside.cancel_scope.cancel()
