"""Clients that chat through restarts: each comes back to its conversation, and keeps a ledger of what it was told."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from trio_websocket import ConnectionClosed, HandshakeError

from .clients import Client, connect_with, user_item

RESTARTING, CUT = 1012, 1006
PAUSE_SECONDS_MAX = 2.0  # between two turns
RETURN_SECONDS_MAX = 1.0  # before coming back, so that not all do so at once
LOST = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass
class Ledger:
    """What a client saw.

    Attributes:
        acknowledged: The ids of items of which it was told that they are stored.
        turns: How many it has completed.
        sessions: How many it has had.
        resumed: How often it came back to its conversation.
        told_again: How often it was let in only to be told that the server restarts.
        cut: How often the close frame was lost, because it wrote into a connection that had just been closed.
        refused: Connections that were not let in, or told so in any other way.
        away_seconds_max: The longest time between two of its sessions, without its own pause.
    """

    acknowledged: list[str] = field(default_factory=list)
    turns: int = 0
    sessions: int = 0
    resumed: int = 0
    told_again: int = 0
    cut: int = 0
    refused: list[str] = field(default_factory=list)
    away_seconds_max: float = 0.0


class Talker:
    """A user who says one thing after the other, with pauses.

    Args:
        url: Of the server, or of a proxy.
        number: Which client it is.
        key: An API key that may name users; None: the server needs none.
        tls: How to check a server's certificate; None: it has none.
        pause_seconds_max: Between two turns.
    """

    def __init__(
        self,
        url: str,
        number: int,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        pause_seconds_max: float = PAUSE_SECONDS_MAX,
    ) -> None:
        self.name = f"talker-{number}"
        self.ledger = Ledger()
        self._url, self._key, self._tls = url, key, tls
        self._random = random.Random(number)
        self._pause_seconds_max = pause_seconds_max
        self._query = {"user": self.name}
        self._said = 0
        self._lost_at: float | None = None

    async def talk(self, goes_on: Callable[[Ledger], bool]) -> None:
        """goes_on: asked before each turn. Raises `TooSlowError` where a server says nothing for ten seconds."""
        while goes_on(self.ledger):
            sessions = self.ledger.sessions
            try:
                async with connect_with(self._url, self._query, self._key, self._tls) as client:
                    self._begun(client)
                    while goes_on(self.ledger):
                        await self._turn(client)
                        await self._pause(self._pause_seconds_max)
            except* (*LOST, HandshakeError, OSError) as errors:
                self._lost(errors, was_in=self.ledger.sessions > sessions)
            else:
                continue
            await self._pause(RETURN_SECONDS_MAX)

    async def _pause(self, seconds_max: float) -> None:
        seconds = self._random.uniform(0, seconds_max)
        if self._lost_at is not None:
            self._lost_at += seconds
        await trio.sleep(seconds)

    def _begun(self, client: Client) -> None:
        assert client.created["type"] == "session.created", client.created
        ledger = self.ledger
        ledger.sessions += 1
        if "conversation" in self._query:
            assert client.conversation_id == self._query["conversation"]
            ledger.resumed += 1
        self._query["conversation"] = client.conversation_id
        if self._lost_at is not None:
            ledger.away_seconds_max = max(ledger.away_seconds_max, trio.current_time() - self._lost_at)
            self._lost_at = None

    def _lost(self, errors: BaseExceptionGroup[BaseException], *, was_in: bool) -> None:
        ledger = self.ledger
        if self._lost_at is None:
            self._lost_at = trio.current_time()
        code = next((found for each in flat(errors) if (found := close_code(each))), None)
        if was_in and code == RESTARTING:
            return
        if was_in and code in (CUT, None):
            ledger.cut += 1
        elif not was_in and code == RESTARTING:
            ledger.told_again += 1
        else:
            ledger.refused.append("; ".join(repr(each) for each in flat(errors)))

    async def _turn(self, client: Client) -> None:
        item_id = f"{self.name}_{self._said}"
        await self._say(client, item_id)
        self.ledger.acknowledged.append(item_id)
        self._said += 1
        await client.send({"type": "response.create"})
        response = (await client.until("response.done"))["response"]
        if response["status"] == "completed":
            self.ledger.acknowledged += [item["id"] for item in response["output"]]
            self.ledger.turns += 1

    async def _say(self, client: Client, item_id: str) -> None:
        """The same item again where its acknowledgement was lost: then it is stored already."""
        await client.send(user_item(f"This is {item_id}.", item_id))
        while True:
            event = await client.receive()
            if event["type"] == "conversation.item.done" and event["item"]["id"] == item_id:  # others are replayed
                return
            if event["type"] == "error":
                assert event["error"]["code"] == "item_create_duplicate_item_id", event
                return


def flat(error: BaseException) -> list[BaseException]:
    """The exceptions in groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [found for each in error.exceptions for found in flat(each)]
    return [error]


def close_code(error: BaseException) -> int | None:
    return error.reason.code if isinstance(error, ConnectionClosed) and error.reason is not None else None
