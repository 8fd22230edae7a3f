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

from ..starvation import Heartbeat
from .connection import ClientConnection, Gone, note
from .plan import Behaviour, behaviour
from .processes import SMALL_SHARE, set_share

CONNECT_SECONDS = 1.5
ANSWER_SECONDS = 4.0
CANCEL_SECONDS = 0.3  # from the request of a response that hangs to its cancellation
STAY_SECONDS = 8.0
BETWEEN_VISITS_SECONDS = 0.2  # at most, between two visits of one client
RETURN_SECONDS = 4.0  # the same after a visit that was cut off, so that not all clients return at once
RETRY_SECONDS = 0.2
TRIES_MAX = 4


class Settings(msgspec.Struct):
    """The settings of one client process.

    number: the process's number in this run. log_sends: note each frame that is sent, for a process that gets stopped.
    """

    seed: int
    number: int
    ports: list[int]
    clients: int
    only: list[str]
    patient: bool
    log_sends: bool


class Client:
    """One user, who visits again and again."""

    def __init__(self, settings: Settings, number: int, heartbeat: Heartbeat) -> None:
        self._settings = settings
        self._heartbeat = heartbeat
        self._random = Random(f"{settings.seed}:{settings.number if settings.patient else 0}:{number}")
        self._user = ""
        self._conversation: str | None = None

    async def run(self, stopping: trio.Event) -> None:
        while not stopping.is_set():
            how = behaviour(self._random, self._settings.only, patient=self._settings.patient)
            if not (how.returns and self._conversation):
                self._user, self._conversation = f"user-{uuid4().hex[:12]}", None
            visit = ClientVisit(self._settings, self._user, self._conversation, how, self._random, self._heartbeat)
            completed = await visit.run()
            self._conversation = visit.conversation
            await trio.sleep(self._random.uniform(0, BETWEEN_VISITS_SECONDS if completed else RETURN_SECONDS))


class ClientVisit:
    """One visit: connects, takes some turns, ends. conversation: the one it was in, if any."""

    def __init__(
        self,
        settings: Settings,
        user: str,
        conversation: str | None,
        how: Behaviour,
        random: Random,
        heartbeat: Heartbeat,
    ) -> None:
        self._settings = settings
        self._id = uuid4().hex[:12]
        self._user = user
        self.conversation = conversation
        self._how = how
        self._port = random.choice(settings.ports)
        self._heartbeat = heartbeat
        self._left = False

    async def run(self) -> bool:
        """Returns whether the visit ended as planned."""
        began = time.time()
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            return False
        note("open", self._id, self._user, self._port, self._settings.number, at=began)
        async with stream:
            connection = ClientConnection(stream, self._id, self._heartbeat, log_sends=self._settings.log_sends)
            try:
                await self._chat(connection)
            except Gone as gone:
                note("gone", self._id, gone.code, gone.arrival.earliest, at=gone.arrival.latest)
        return self._left

    async def _chat(self, connection: ClientConnection) -> None:
        query = f"user={self._user}" + (f"&conversation={self.conversation}" if self.conversation else "")
        with trio.move_on_after(CONNECT_SECONDS) as limit:
            await connection.open(f"127.0.0.1:{self._port}", f"/v1/realtime?{query}")
            created = await self._until(connection, "session.created")
        if limit.cancelled_caught:
            note("refused", self._id)
            return
        session = created["session"]
        note("created", self._id, session["id"].removeprefix("sess_"))
        self.conversation = session["conversation_id"]
        await self._turns(connection)
        await self._end(connection)

    async def _turns(self, connection: ClientConnection) -> None:
        for number, mark in enumerate(self._how.turns):
            with trio.move_on_after(ANSWER_SECONDS) as limit:
                if await self._create_item(connection, number, mark):
                    await self._ask(connection, mark)
            if limit.cancelled_caught and not self._settings.patient:
                return
            await self._listen(connection, self._how.think_seconds)

    async def _listen(self, connection: ClientConnection, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while True:
                self._note_acknowledged(await connection.receive(), connection)

    async def _create_item(self, connection: ClientConnection, number: int, mark: str) -> bool:
        """Returns whether the item was acknowledged. Tries again, with the same id, where it could not be stored."""
        item_id = f"item_{self._id}_{number}"
        # One fact that memory must hold once, then words that no other turn has.
        text = f"My name is N{self._id}." if number == 0 else f"Turn {number} of {self._id}."
        content = [{"type": "input_text", "text": f"{text} {mark}".strip()}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        for _ in range(TRIES_MAX):
            await connection.send({"type": "conversation.item.create", "item": item})
            error = await self._outcome(connection, item_id)
            if error is None:
                return True
            if error["code"] != "store_unavailable":
                return False
            await self._listen(connection, RETRY_SECONDS)
        return False

    async def _outcome(self, connection: ClientConnection, item_id: str) -> dict[str, Any] | None:
        """Returns the error that answered an item, or None once the item is acknowledged."""
        while True:
            event = await self._until(connection, "conversation.item.done", "error")
            if event["type"] == "error":
                return dict(event["error"])
            if event["item"]["id"] == item_id:
                return None

    async def _ask(self, connection: ClientConnection, mark: str) -> None:
        await connection.send({"type": "response.create"})
        if mark == "#hang":
            await self._listen(connection, CANCEL_SECONDS)
            await connection.send({"type": "response.cancel"})
        await self._until(connection, "response.done", "error")

    async def _until(self, connection: ClientConnection, *kinds: str) -> dict[str, Any]:
        while True:
            event = await connection.receive()
            self._note_acknowledged(event, connection)
            if event["type"] in kinds:
                return event

    def _note_acknowledged(self, event: dict[str, Any], connection: ClientConnection) -> None:
        items: list[dict[str, Any]] = []
        if event["type"] == "conversation.item.done":
            items = [event["item"]]
        elif event["type"] == "response.done" and not _unstored(event["response"]):
            items = event["response"]["output"]
        for item in items:
            text = "".join(part["text"] for part in item["content"])
            note("ack", self._id, item["id"], item["role"], text, at=connection.arrival.earliest)

    async def _end(self, connection: ClientConnection) -> None:
        ending = self._how.ending
        if ending == "stay":
            await self._listen(connection, STAY_SECONDS)
        self._left = True
        await connection.leave(ending)


def _unstored(response: dict[str, Any]) -> bool:
    """Whether a response says of itself that it could not be stored."""
    details = response.get("status_details") or {}
    return (details.get("error") or {}).get("code") == "store_unavailable"


async def run(settings: Settings) -> None:
    """Chats until SIGTERM, after which every visit still takes its course."""
    stopping = trio.Event()
    heartbeat = Heartbeat(lambda begin, end: note("late", settings.number, begin, at=end))
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as background:
            background.start_soon(heartbeat.run)
            async with trio.open_nursery() as nursery:
                for number in range(settings.clients):
                    nursery.start_soon(Client(settings, number, heartbeat).run, stopping)
                async for _ in signals:
                    stopping.set()
                    break
            background.cancel_scope.cancel()


def run_process(settings: Settings) -> NoReturn:
    """The whole life of one client process."""
    end = "failed"
    try:
        note("started", settings.number, os.getpid())
        trio.run(run, settings)
        end = "finished"
    except BaseException:  # noqa: BLE001 - a forked process must never return into its parent's code
        traceback.print_exc()
        sys.stderr.flush()
    with suppress(BrokenPipeError):
        note(end, settings.number)
    os._exit(0)


def fork_on_request() -> None:
    """Forks a client process for every line of settings on stdin; when stdin ends, kills them all."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    # Only now: with a small share the imports alone would take half a minute on a busy machine.
    os.nice(SMALL_SHARE)
    with suppress(OSError):
        set_share(os.getpid(), SMALL_SHARE)
    # As in the server: a collection would pause all clients, and afterwards they would all act at once.
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    gc.freeze()
    for line in sys.stdin.buffer:
        settings = msgspec.json.decode(line, type=Settings)
        if os.fork() == 0:
            run_process(settings)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    fork_on_request()
