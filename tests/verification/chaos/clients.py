"""Client processes that chat: `python -m tests.verification.chaos.clients`. Each line on stdout is for the ledger."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from random import Random
from typing import Any, NoReturn
from uuid import uuid4

import msgspec
import trio
from lastcall.cli.serve import COLLECTION_THRESHOLDS

from .chat import Chat, Gone, note
from .plan import Manner, manner

CONNECT_SECONDS = 1.5
ANSWER_SECONDS = 4.0
HANG_PATIENCE_SECONDS = 0.3
STAY_SECONDS = 8.0
APART_SECONDS = 0.2  # between two visits of one person, at most
RETURN_SECONDS = 4.0  # the same after a visit that was cut off: not all come back at once
PAUSE_SECONDS = 0.2  # after a refusal
RETRIES_MAX = 4


class Settings(msgspec.Struct):
    """What the parent passes. log_sends: note each frame that is sent, for a process that will be stopped."""

    seed: int
    number: int  # the process's, in this run
    ports: list[int]
    clients: int
    only: list[str]
    patient: bool
    log_sends: bool


class Person:
    """One user, who comes again and again."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings = settings
        self._random = Random(f"{settings.seed}:{settings.number if settings.patient else 0}:{number}")
        self._user = ""
        self._conversation: str | None = None

    async def live(self, leaving: trio.Event) -> None:
        while not leaving.is_set():
            how = manner(self._random, self._settings.only, patient=self._settings.patient)
            if not (how.returns and self._conversation):
                self._user, self._conversation = f"user-{uuid4().hex[:12]}", None
            visit = Visiting(self._settings, self._user, self._conversation, how, self._random)
            went_well = await visit.run(self)
            await trio.sleep(self._random.uniform(0, APART_SECONDS if went_well else RETURN_SECONDS))

    def remember(self, conversation: str) -> None:
        self._conversation = conversation


class Visiting:
    """One visit: connect, some turns, an end."""

    def __init__(self, settings: Settings, user: str, conversation: str | None, how: Manner, random: Random) -> None:
        self._settings = settings
        self._id = uuid4().hex[:12]
        self._user = user
        self._query = f"user={user}" + (f"&conversation={conversation}" if conversation else "")
        self._how = how
        self._port = random.choice(settings.ports)
        self._left = False

    async def run(self, person: Person) -> bool:
        """Whether the visit came to the end that it was meant to have."""
        began = time.time()
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            return False
        note("open", self._id, self._user, self._port, self._settings.number, at=began)
        async with stream:
            chat = Chat(stream, self._id, self._settings.log_sends)
            try:
                await self._chat(chat, person)
            except Gone as gone:
                note("gone", self._id, gone.code)
        return self._left

    async def _chat(self, chat: Chat, person: Person) -> None:
        with trio.move_on_after(CONNECT_SECONDS) as limit:
            await chat.open(f"127.0.0.1:{self._port}", f"/v1/realtime?{self._query}")
            created = await self._until(chat, "session.created")
        if limit.cancelled_caught:
            note("refused", self._id)
            return
        session = created["session"]
        note("created", self._id, session["id"].removeprefix("sess_"))
        person.remember(session["conversation_id"])
        await self._turns(chat)
        await self._end(chat)

    async def _turns(self, chat: Chat) -> None:
        for number, mark in enumerate(self._how.turns):
            with trio.move_on_after(ANSWER_SECONDS) as limit:
                if await self._say(chat, number, mark):
                    await self._ask(chat, mark)
            if limit.cancelled_caught:
                return
            await self._listen(chat, self._how.thinks)

    async def _listen(self, chat: Chat, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while True:
                self._take(await chat.receive())

    async def _say(self, chat: Chat, number: int, mark: str) -> bool:
        """Whether the item was acknowledged. Tries again, with the same id, where it could not be stored."""
        item_id = f"item_{self._id}_{number}"
        # One fact that memory must hold once, then words that no other turn has.
        text = f"My name is N{self._id}." if number == 0 else f"Turn {number} of {self._id}."
        content = [{"type": "input_text", "text": f"{text} {mark}".strip()}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        for _ in range(RETRIES_MAX):
            await chat.send({"type": "conversation.item.create", "item": item})
            while True:
                event = await chat.receive()
                self._take(event)
                if event["type"] == "conversation.item.done" and event["item"]["id"] == item_id:
                    return True
                if event["type"] == "error":
                    break
            if event["error"]["code"] != "store_unavailable":
                return False
            await self._listen(chat, PAUSE_SECONDS)
        return False

    async def _ask(self, chat: Chat, mark: str) -> None:
        await chat.send({"type": "response.create"})
        if mark == "#hang":
            await self._listen(chat, HANG_PATIENCE_SECONDS)
            await chat.send({"type": "response.cancel"})
        await self._until(chat, "response.done", "error")

    async def _until(self, chat: Chat, *kinds: str) -> dict[str, Any]:
        while True:
            event = await chat.receive()
            self._take(event)
            if event["type"] in kinds:
                return event

    def _take(self, event: dict[str, Any]) -> None:
        """Notes what an event acknowledges."""
        kind = event["type"]
        if kind == "conversation.item.done":
            self._acknowledged(event["item"])
        elif kind == "response.done" and not _refused(event["response"]):
            for item in event["response"]["output"]:
                self._acknowledged(item)

    def _acknowledged(self, item: dict[str, Any]) -> None:
        note("ack", self._id, item["id"], item["role"], "".join(part["text"] for part in item["content"]))

    async def _end(self, chat: Chat) -> None:
        ending = self._how.ending
        if ending == "stay":
            await self._listen(chat, STAY_SECONDS)
        self._left = True
        await chat.leave(ending)


def _refused(response: dict[str, Any]) -> bool:
    """Whether a response says of itself that it is not kept."""
    details = response.get("status_details") or {}
    return (details.get("error") or {}).get("code") == "store_unavailable"


async def run(settings: Settings) -> None:
    """Chats until SIGTERM, after which every visit still takes its course."""
    leaving = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            for number in range(settings.clients):
                nursery.start_soon(Person(settings, number).live, leaving)
            async for _ in signals:
                leaving.set()
                break


def live(settings: Settings) -> NoReturn:
    """A process's whole life."""
    end = "failed"
    try:
        note("born", settings.number, os.getpid())
        trio.run(run, settings)
        end = "home"
    except BaseException:  # noqa: BLE001 - nothing of this process may run on behind it
        traceback.print_exc()
        sys.stderr.flush()
    with suppress(BrokenPipeError):
        note(end, settings.number)
    os._exit(0)


def keep_house() -> None:
    """Forks a process of clients for every line of settings on stdin. When that ends, so do they all."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    # As in the server: a collection would stop all clients, and afterwards they would all connect at once.
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    gc.freeze()
    for line in sys.stdin.buffer:
        settings = msgspec.json.decode(line, type=Settings)
        if os.fork() == 0:
            live(settings)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    keep_house()
