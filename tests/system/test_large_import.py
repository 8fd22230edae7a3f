"""An import of 100,000 sessions beside a server that people talk to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from tests.support.databases import new_database, psql

from ..support.clients import connect
from ..support.processes import run_server

pytestmark = [pytest.mark.alone, pytest.mark.slow]

ROWS = 100_000
IMPORT_SECONDS = 300.0
TURN_SECONDS_MAX = 1.0  # for one whole turn, on two busy cores
CHATS = f"""
CREATE TABLE old_chats AS
SELECT n AS id, 'user-' || n % 5000 AS user_id, now() - make_interval(mins => n) AS started_at,
       CASE WHEN n % 5 > 0 THEN now() - make_interval(mins => n) + interval '30 s' END AS ended_at,
       now() - make_interval(mins => n) + interval '40 s' AS updated_at
  FROM generate_series(1, {ROWS}) n
"""


@pytest.fixture
def theirs(database_url: str) -> Iterator[str]:
    with new_database(database_url) as url:
        psql(url, CHATS)
        yield url


@pytest.fixture
def ours(database_url: str) -> Iterator[str]:
    with new_database(database_url) as url:
        yield url


async def test_turns_go_on_beside_a_large_import(theirs: str, ours: str) -> None:
    """Killed half way, it goes on where it was when it is run again."""
    command = [sys.executable, "-m", "lastcall", "import", "--from-table", "old_chats", "--json"]
    command += ["--database-url", ours, "--from-url", theirs]
    took: list[float] = []
    with run_server("--database-url", ours, "--agent", "echo") as server:
        async with connect(server.url, user="ada") as client, trio.open_nursery() as nursery:

            async def chat() -> None:
                while True:
                    began = trio.current_time()
                    await client.ask(f"turn {len(took)}")
                    took.append(trio.current_time() - began)

            nursery.start_soon(chat)
            with trio.fail_after(IMPORT_SECONDS):
                killed = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                assert killed.stderr is not None
                async with killed.stderr:
                    assert b" rows: " in await killed.stderr.receive_some()  # how far it is
                killed.kill()
                await killed.wait()
                done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
            nursery.cancel_scope.cancel()
    report = json.loads(done.stdout)
    assert report["present"] > 0
    assert report["imported"] + report["present"] == ROWS
    assert psql(ours, "SELECT count(*), count(original_id) FROM conversation_sessions") == f"{ROWS + 1}|{ROWS}"
    took.sort()
    print(f"{len(took)} turns, median {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s")
    assert took[-1] < TURN_SECONDS_MAX
