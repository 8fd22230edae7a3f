"""The healthy clients, who talk all the while."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import trio
from trio_websocket import ConnectionClosed

from tests.support.clients import Client, connect

TURN_SECONDS_MAX = 30.0
THINK_SECONDS = 2.0  # between two turns of one healthy client
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass
class Tally:
    """What happened. sent: bad inputs, by kind. answered: the first answers to them, by status.

    turns: seconds that each healthy one took. lost: what ended a healthy client, or went wrong.
    """

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    turns: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def talk(url: str, number: int, tally: Tally, leave: trio.Event) -> None:
    """One healthy client: turn after turn on one connection, until it is told to leave."""
    try:
        async with connect(url, user=f"healthy{number}") as client:
            await trio.sleep(THINK_SECONDS * (number % 10) / 10)
            while not leave.is_set():
                await _turn(client, number, tally)
                client.events.clear()
                with trio.move_on_after(THINK_SECONDS):
                    await leave.wait()
    except* (ConnectionClosed, trio.TooSlowError, AssertionError, *BROKEN) as gone:
        tally.lost.append(f"client {number}: {gone.exceptions[0]!r}")


async def _turn(client: Client, number: int, tally: Tally) -> None:
    began = time.monotonic()
    with trio.fail_after(TURN_SECONDS_MAX):
        done = await client.ask(f"Turn {len(tally.turns)} of {number}")
    tally.turns.append(time.monotonic() - began)
    assert done["response"]["status"] == "completed", done
