"""The client processes of `scripts/chaos`: killed one at a time, at a known moment."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .chaos.clients import Settings
from .chaos.ledger import Ledger
from .chaos.plan import FAULTS
from .chaos.process_pool import ClientProcess, ProcessPool, open_process_pool
from .chaos.processes import AUTOGROUP, SMALL_SHARE
from .chaos.run import free_ports


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ProcessPool]:
    async with open_process_pool(Ledger(), tmp_path) as pool:
        yield pool


async def start(pool: ProcessPool, number: int) -> ClientProcess:
    """Starts clients that find no server."""
    settings = Settings(1, number, free_ports(1), 1, list(FAULTS), patient=True, log_sends=False)
    return await pool.start(settings)


async def test_killed_clients_are_gone_at_the_second_moment_the_others_live_on(pool: ProcessPool) -> None:
    first, second = await start(pool, 1), await start(pool, 2)
    before = time.time()

    at, gone = await first.kill()

    assert before <= at <= gone <= time.time()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    assert second.is_alive()


@pytest.mark.skipif(
    not Path(AUTOGROUP.format("self")).exists(), reason="this kernel does not group processes by session"
)
async def test_the_living_have_their_small_share_of_the_processor_again(pool: ProcessPool) -> None:
    first, second = await start(pool, 1), await start(pool, 2)

    await first.kill()

    assert share(second) == str(SMALL_SHARE)


def share(clients: ClientProcess) -> str:
    return Path(AUTOGROUP.format(clients.pid)).read_text().split()[-1]
