"""A healthy client beside attackers: none of its turns takes long, and nothing is logged but what is about them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest
import trio

from ..support.attackers import ATTACKS, dial
from ..support.clients import connect
from ..support.processes import run_server

pytestmark = [pytest.mark.alone, pytest.mark.slow]
TURN_SECONDS_MAX = 1.0
ATTACK_SECONDS = 3.0  # that the turns go on, once the attack is under way
START_SECONDS = 20.0  # until it is
TURN_EVERY_SECONDS = 0.05
MEMORY_MIB_MAX = 150
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ABOUT_THE_ATTACKER = {"long words": {"agent_raised"}, "log lines": {"log_lines_dropped"}}


@dataclass
class Noticed:
    """What the healthy client noticed: the longest times, in seconds."""

    turn: float = 0.0
    probe: float = 0.0
    turns: int = 0


@asynccontextmanager
async def attacked(name: str, url: str) -> AsyncIterator[trio.Event]:
    """The attack while the block runs; yields what is set once it is under way."""
    started = trio.Event()

    async def wait(process: trio.Process) -> None:
        assert process.stdout is not None
        assert await process.stdout.receive_some(), "the attacker ended"
        started.set()
        assert not await process.wait(), "the attacker failed"

    command = [sys.executable, "-m", "tests.support.attackers", name, url]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, process)
            yield started
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def healthy_turns(url: str, started: trio.Event, noticed: Noticed) -> None:
    """Turns and probes until the attack has been under way for a while."""
    async with connect(url, user="healthy") as healthy:
        until = trio.current_time() + START_SECONDS
        counting = False
        while (began := trio.current_time()) < until:
            if started.is_set() and not counting:
                counting, until = True, began + ATTACK_SECONDS
            await healthy.ask("Still there?")
            done = trio.current_time()
            async with await dial(url, PROBE) as probe:
                assert b" 200 " in await probe.receive_some()
            noticed.turn = max(noticed.turn, done - began)
            noticed.probe = max(noticed.probe, trio.current_time() - done)
            noticed.turns += 1
            await trio.sleep(TURN_EVERY_SECONDS)
    assert started.is_set(), "the attack did not get under way"


async def turns_beside(name: str, url: str) -> Noticed:
    noticed = Noticed()
    async with attacked(name, url) as started:
        await healthy_turns(url, started, noticed)
    return noticed


def check(noticed: Noticed, log: list[dict[str, object]], name: str) -> None:
    about_the_attacker = ABOUT_THE_ATTACKER.get(name, set())
    others = [line for line in log if line["level"] in ("warning", "error", "critical")]
    assert [line for line in others if line["event"] not in about_the_attacker] == []
    assert max(noticed.turn, noticed.probe) < TURN_SECONDS_MAX, noticed


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "log lines"])
async def test_a_healthy_client_and_a_probe_notice_no_attack(name: str, database_url: str) -> None:
    settings = ("--agent", "tests.support.scripted_agents:Quoting", "--memory-mib-max", str(MEMORY_MIB_MAX))
    with run_server("--database-url", database_url, *settings) as server:
        noticed = await turns_beside(name, server.url)
        log = await trio.to_thread.run_sync(server.stop_and_read)
    check(noticed, log, name)


@contextmanager
def server_with_unread_log(database_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose log is read up to its `ready`, and its URL."""
    command = [sys.executable, "-m", "lastcall", "serve", "--port", "0", "--json-logs", "--agent", "echo"]
    process = subprocess.Popen([*command, "--database-url", database_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = next(event for line in process.stdout if (event := json.loads(line))["event"] == "ready")
        yield process, ready["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_healthy_client_does_not_notice_that_nobody_reads_the_log(database_url: str) -> None:
    name = "log lines"
    with server_with_unread_log(database_url) as (process, url):
        noticed = await turns_beside(name, url)
        process.terminate()
        output, _ = await trio.to_thread.run_sync(process.communicate)
    check(noticed, [json.loads(line) for line in output.splitlines()], name)
    assert process.returncode == 0
