"""A standby that takes over: turns work again soon, and what was acknowledged is there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
import trio
from lastcall.sessions.upkeep.reconciler import PASS_SECONDS

from ..support.clients import connect
from ..support.databases import psql
from ..support.processes import run_server
from ..support.replication import Fault, Pair
from ..support.waiting import eventually
from .failover.play import play

pytestmark = pytest.mark.slow

BACK_SECONDS = 10.0
CLOSED_WITHIN = 2 * PASS_SECONDS + 15.0  # of two passes, and to find the new primary
END = "SELECT session_end FROM conversation_sessions WHERE session_id = '{}'"
END_ERROR_SECONDS_MAX = 0.1


@pytest.mark.parametrize("fault", get_args(Fault))
def test_nothing_is_lost_where_commits_wait_for_the_standby(fault: Fault) -> None:
    outcome = play(fault, synchronous=True)
    assert outcome.back_seconds <= BACK_SECONDS
    assert (outcome.lost, outcome.active_rows, outcome.exit_code) == (0, 0, 0)
    assert outcome.acknowledged > 0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    tmp_path.chmod(0o711)
    pair = Pair(tmp_path, synchronous=False)
    try:
        yield pair
    finally:
        pair.remove()


async def test_an_end_that_the_standby_has_not_got_is_written_again(pair: Pair) -> None:
    with run_server("--database-url", pair.url, "--agent", "echo") as server:
        async with connect(server.url, user="ada") as client:
            await client.ask("hello")
            await eventually(lambda: _has(pair, client.session_id), lambda there: there, within=BACK_SECONDS)
            pair.detach()
            await client.ws.aclose()
            server.wait_for("session_ended")
            ended = psql(pair.primary.url, END.format(client.session_id))
        pair.break_primary("kill")
        pair.promote()
        assert psql(pair.standby.url, END.format(client.session_id)) == ""
        again = await eventually(lambda: _end(pair, client.session_id), lambda end: end != "", within=CLOSED_WITHIN)
    late = datetime.fromisoformat(again) - datetime.fromisoformat(ended)
    assert abs(late.total_seconds()) <= END_ERROR_SECONDS_MAX


async def _has(pair: Pair, session_id: str) -> bool:
    await trio.lowlevel.checkpoint()
    return psql(pair.standby.url, f"SELECT count(*) FROM messages WHERE session_id = '{session_id}'") == "2"


async def _end(pair: Pair, session_id: str) -> str:
    await trio.lowlevel.checkpoint()
    return psql(pair.standby.url, END.format(session_id))
