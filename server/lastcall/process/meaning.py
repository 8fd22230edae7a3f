"""Search by meaning, where the extra is installed and the database has what it needs; else words have to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..config import Settings
from ..diagnosis.meaning import is_wanted
from ..memory.meaning.encoder_process import EncoderProcess, open_encoder_process
from ..runtime.check import CheckStatus, log_checks, warn
from ..store.errors import StoreError
from ..store.postgres import MEANING, PostgresStore


@asynccontextmanager
async def open_meaning(settings: Settings, store: PostgresStore) -> AsyncIterator[EncoderProcess | None]:
    """The encoder, for as long as the block lasts; None, and a line in the log where that is not as wanted."""
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
    async with open_encoder_process() as encoder:
        yield encoder
