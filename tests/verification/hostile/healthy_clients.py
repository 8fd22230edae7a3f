"""The healthy clients, which take turns during the whole attack."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import trio
from trio_websocket import ConnectionClosed

from tests.support.clients import Client, connect

TURN_SECONDS_MAX = 30.0
THINK_SECONDS = 2.0  # between two turns of one client
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass(frozen=True, slots=True)
class Turn:
    """began: in Unix seconds. seconds: how long it took."""

    began: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Disconnection:
    """The end of a healthy client. began, ended: of its last turn. timed_out: the server did not answer in time."""

    reason: str
    began: float
    ended: float
    timed_out: bool


@dataclass
class Tally:
    """sent: bad inputs, by kind. answered: the first answers to them, by status."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    turns: list[Turn] = field(default_factory=list)
    lost: list[Disconnection] = field(default_factory=list)


async def chat(url: str, number: int, tally: Tally, leave: trio.Event) -> None:
    """Takes turn after turn on one connection until told to leave."""
    began = time.time()
    try:
        async with connect(url, user=f"healthy{number}") as client:
            await trio.sleep(THINK_SECONDS * (number % 10) / 10)
            while not leave.is_set():
                began = time.time()
                await _turn(client, number, tally)
                client.events.clear()
                with trio.move_on_after(THINK_SECONDS):
                    await leave.wait()
    except* (ConnectionClosed, trio.TooSlowError, AssertionError, *BROKEN) as gone:
        error = gone.exceptions[0]
        timed_out = isinstance(error, trio.TooSlowError)
        tally.lost.append(Disconnection(f"client {number}: {error!r}", began, time.time(), timed_out))


async def _turn(client: Client, number: int, tally: Tally) -> None:
    wall, began = time.time(), time.monotonic()
    with trio.fail_after(TURN_SECONDS_MAX):
        done = await client.ask(f"Turn {len(tally.turns)} of {number}")
    tally.turns.append(Turn(wall, time.monotonic() - began))
    assert done["response"]["status"] == "completed", done
