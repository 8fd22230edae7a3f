"""Clients that try to stop a server for others: `python -m tests.support.attackers NAME URL`, until it is killed.

In a process of their own, so that what they cost delays no client of the test's own process. Each prints a line once it
does its worst, and goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed

from .clients import Client, Event, connect

NICENESS = 5  # below the server and its healthy client, where there are too few cores for all
HELD = 300
ROUND_SECONDS = 1.0
FULL = 3  # refused or ended sessions, from which on the memory is full
FILLERS = 12

HOST = b"Host: localhost\r\n"
PAGE = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
HALF_A_HEAD = b"GET / HTTP/1.1\r\n" + HOST
SECRETS = b"POST /v1/realtime/client_secrets HTTP/1.1\r\n" + HOST
HALF_A_BODY = SECRETS + b"Content-Length: 99\r\n\r\n{"
TWO_LENGTHS = SECRETS + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + PAGE
SPACES = (("i" + " " * 390 + "xx. ") * 128)[:49_990]  # the worst for patterns that look for facts
PROSE = ("I went to the market with my sister and we bought apples, pears and a small red lamp. " * 600)[:49_990]
LONG_WORDS = ("A" * 300_000, "a." * 150_000, "eyJaaaaaaaa-" * 25_000, "a://x:" * 50_000)

GONE = (OSError, ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, BaseExceptionGroup)

Attack = Callable[[str], Awaitable[None]]


def under_way() -> None:
    print("under way", flush=True)


async def dial(url: str, data: bytes) -> trio.SocketStream:
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
    await stream.send_all(data)
    return stream


def holding(data: bytes) -> Attack:
    """Many connections that send this and then nothing. One that the server ends is replaced."""

    async def hold(url: str, started: Callable[[], None]) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await dial(url, data) as stream:
                    started()
                    while await stream.receive_some():
                        pass
            await trio.sleep(ROUND_SECONDS / 2)

    async def attack(url: str) -> None:
        numbers = count(1)

        def started() -> None:
            if next(numbers) == HELD:
                under_way()

        async with trio.open_nursery() as nursery:
            for _ in range(HELD):
                nursery.start_soon(hold, url, started)

    return attack


async def two_lengths(url: str) -> None:
    """Requests that two servers would read differently, as many as there is time for."""

    async def send() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await dial(url, TWO_LENGTHS) as stream:
                    while await stream.receive_some():
                        pass

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(send)
        await trio.sleep(ROUND_SECONDS)
        under_way()


def user_item(*texts: str) -> Event:
    content = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}


async def answer(client: Client, *kinds: str) -> Event:
    """The next event of one of these types."""
    while (event := await client.receive())["type"] not in kinds:
        pass
    client.events.clear()
    return event


async def filling_memory(url: str) -> None:
    """Sessions that hold more and more, and come back when they are ended."""
    event = json.dumps(user_item("\U0001f4a5" * 60_000), ensure_ascii=False)
    refused = count(1)

    async def fill(user: str) -> None:
        async with connect(url, user=user) as client:
            while True:
                await client.send(event)
                if (await answer(client, "conversation.item.done", "error"))["type"] == "error":
                    return

    async def come_back(user: str) -> None:
        while True:
            with suppress(*GONE):
                await fill(user)
            if next(refused) == FULL:
                under_way()
            await trio.sleep(ROUND_SECONDS / 10)

    async with trio.open_nursery() as nursery:
        for number in range(FILLERS):
            nursery.start_soon(come_back, f"attacker-{number}")


async def long_texts_when_sessions_end(url: str) -> None:
    """Everybody pastes a long text and is gone, and what it says has to be worked out."""

    async def paste(number: int, text: str) -> None:
        async with connect(url, user=f"attacker-{number}") as client:
            await client.say(text)
            client.reset()

    for number in count():
        with suppress(
            OSError, ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, BaseExceptionGroup
        ):
            await paste(number, SPACES if number % 2 else PROSE)
        if number == 20:
            under_way()


async def many_log_lines(url: str) -> None:
    """Sessions that begin and end, each with as much in the log as a user can get into it."""
    numbers = count(1)

    async def come_and_go() -> None:
        while True:
            async with connect(url, user="\U0001f4a5" * 40):
                pass
            if next(numbers) == 200:
                under_way()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(come_and_go)


async def long_words_in_errors(url: str) -> None:
    for number in count():
        async with connect(url, user="attacker") as client:
            for text in LONG_WORDS:
                await client.say(text)
                await client.send({"type": "response.create"})
                await answer(client, "response.done")
        if number == 1:
            under_way()


async def long_conversation(url: str) -> None:
    """Turns of a conversation of a thousand items, some of many parts."""
    async with connect(url, user="attacker") as client:
        for _ in range(10):
            for number in range(100):
                await client.send(user_item(*["x"] * (1 if number % 50 else 300)))
            for _ in range(100):
                await answer(client, "conversation.item.done")
        under_way()
        while True:
            for conversation in ("auto", "none"):
                await client.send({"type": "response.create", "response": {"conversation": conversation}})
                await answer(client, "response.done")


ATTACKS: dict[str, Attack] = {
    "held pages": holding(PAGE),
    "half heads": holding(HALF_A_HEAD),
    "half bodies": holding(HALF_A_BODY),
    "two lengths": two_lengths,
    "memory": filling_memory,
    "long texts": long_texts_when_sessions_end,
    "log lines": many_log_lines,
    "long words": long_words_in_errors,
    "long conversation": long_conversation,
}

if __name__ == "__main__":
    os.nice(NICENESS)
    trio.run(ATTACKS[sys.argv[1]], sys.argv[2])
