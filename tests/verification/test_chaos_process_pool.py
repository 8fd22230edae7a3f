"""Where the clients of `scripts/chaos` live: they are killed one process at a time, and it is known when that was."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .chaos.clients import Settings
from .chaos.ledger import Ledger
from .chaos.plan import FAULTS
from .chaos.process_pool import House, People, open_house
from .chaos.processes import SMALL_SHARE
from .chaos.run import free_ports


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(Ledger(), tmp_path) as house:
        yield house


async def move_in(house: House, number: int) -> People:
    """Clients that find no server."""
    settings = Settings(1, number, free_ports(1), 1, list(FAULTS), patient=True, log_sends=False)
    return await house.move_in(settings)


async def test_killed_clients_are_gone_by_the_second_moment_and_the_others_go_on(house: House) -> None:
    first, second = await move_in(house, 1), await move_in(house, 2)
    before = time.time()

    at, gone = await first.kill()

    assert before <= at <= gone <= time.time()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    assert second.lives()


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group processes by session")
async def test_the_living_have_their_small_share_of_the_processor_again(house: House) -> None:
    first, second = await move_in(house, 1), await move_in(house, 2)

    await first.kill()

    assert share(second) == str(SMALL_SHARE)


def share(people: People) -> str:
    return Path(f"/proc/{people.pid}/autogroup").read_text().split()[-1]
