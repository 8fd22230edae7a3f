"""A conversation that goes on when its connection breaks: nothing is said twice, and no answer is asked for twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import trio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from ...protocol.ids import new_id
from .wire import Address, Event, Lost, Wire, open_wire

RETRY_SECONDS = 60.0  # for which a lost connection is opened again
RETRY_PAUSE_SECONDS, RETRY_PAUSE_SECONDS_MAX = 0.5, 5.0
BREAKS_MAX = 10  # connections that may be lost during one turn
DUPLICATE = "item_create_duplicate_item_id"


class Screen(Protocol):
    """Where a conversation is shown."""

    def piece(self, text: str) -> None:
        """The next piece of an answer."""

    def note(self, text: str) -> None:
        """Something about the conversation, on a line of its own."""


class Talk:
    """One conversation. nursery: for its connections. conversation: to go on with; None: a new one."""

    def __init__(self, nursery: trio.Nursery, address: Address, screen: Screen, conversation: str | None) -> None:
        self.conversation = conversation
        self._nursery = nursery
        self._address = address
        self._screen = screen
        self._wire: Wire | None = None
        self.answering = self.stopping = False

    async def open(self) -> list[Event]:
        """Connects. Returns the items of the conversation, as far as they are replayed. Raises `Lost`."""
        self.close()
        self._wire = wire = await open_wire(self._nursery, self._address, self.conversation)
        await wire.send({"type": "session.update", "session": {"type": "realtime"}})  # asks for the replay
        items: list[Event] = []
        while (event := await wire.receive())["type"] != "session.updated":
            if event["type"] == "session.created":
                self.conversation = event["session"].get("conversation_id")
            elif event["type"] == "conversation.item.done":
                items.append(event["item"])
        return items

    async def say(self, text: str) -> bool:
        """Has a turn. Returns whether it was answered. Raises `Lost`."""
        turn = _Turn(self._screen, text)
        self.answering, self.stopping = True, False
        try:
            for _ in range(BREAKS_MAX):
                try:
                    wire = self._wire or await self._reopened(turn)
                    return turn.answered if turn.over else await turn.take(wire)
                except Lost as lost:
                    self.close()
                    if lost.final:
                        raise
            raise Lost(f"the connection broke {BREAKS_MAX} times", final=True)
        finally:
            self.answering = False

    async def stop(self) -> None:
        """Stops the answer that is under way: what was said of it is kept."""
        self.stopping = True
        if self._wire is not None:
            await self._wire.send({"type": "response.cancel"})

    async def until_lost(self) -> None:
        """Waits while nobody says anything. Raises `Lost`."""
        while self._wire is not None:
            try:
                await self._wire.receive()
            except Lost:
                self.close()
                raise
        await trio.sleep_forever()

    def close(self) -> None:
        """Lets go of the connection; its own task says goodbye."""
        if self._wire is not None:
            self._wire.over.set()
            self._wire = None

    async def _reopened(self, turn: _Turn) -> Wire:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Lost) and not error.final),
            stop=stop_after_delay(RETRY_SECONDS),
            wait=wait_random_exponential(RETRY_PAUSE_SECONDS, max=RETRY_PAUSE_SECONDS_MAX),
            sleep=trio.sleep,
            before_sleep=self._tell_outage,
            reraise=True,
        )
        turn.catch_up(await retrying(self.open))
        assert self._wire is not None
        return self._wire

    def _tell_outage(self, state: RetryCallState) -> None:
        if state.attempt_number == 1:
            self._screen.note("(the connection is lost; trying again)")


class _Turn:
    """What the user says, under an id of its own, and what has come of the answer."""

    def __init__(self, screen: Screen, text: str) -> None:
        self._screen = screen
        self._item: Event = {"type": "message", "id": new_id("item"), "role": "user",
                      "content": [{"type": "input_text", "text": text}]}  # fmt: skip
        self._stored = False
        self._shown = ""
        self.over = False
        self.answered = False

    async def take(self, wire: Wire) -> bool:
        """Asks, where that is still to do, and shows the answer; returns whether there was one. Raises `Lost`."""
        asked: list[Event] = [{"type": "response.create", "event_id": new_id("event")}]
        if not self._stored:
            asked.insert(0, {"type": "conversation.item.create", "event_id": new_id("event"), "item": self._item})
        for each in asked:
            await wire.send(each)
        ours = {each["event_id"] for each in asked}
        while not self.over:
            self._handle(await wire.receive(), ours)
        return self.answered

    def catch_up(self, items: Sequence[Event]) -> None:
        """items: of the conversation, after a connection was lost. What is stored is neither said nor asked again."""
        ids = [item["id"] for item in items]
        self._stored = self._item["id"] in ids
        if not self._stored:
            return
        answers = [item for item in items[ids.index(self._item["id"]) :] if item.get("role") == "assistant"]
        if not answers:
            return
        said = text_of(answers[0])
        self._show(said.removeprefix(self._shown) if said.startswith(self._shown) else f"\n{said}")
        whole = answers[0].get("status") == "completed"
        self._end(whole, "" if whole else "(the connection was lost here)")

    def _handle(self, event: Event, ours: set[Any]) -> None:
        match event:
            case {"type": "response.output_text.delta", "delta": str(delta)}:
                self._show(delta)
            case {"type": "response.done", "response": {"status": "completed"}}:
                self._end(True, "")
            case {"type": "response.done", "response": {"status": "cancelled"}}:
                self._end(True, "(stopped)")
            case {"type": "response.done", "response": response}:
                self._end(False, f"({_why(response)})")
            case {"type": "error", "error": {"event_id": id, **error}} if id in ours and error["code"] != DUPLICATE:
                self._end(False, f"({error['message']})")

    def _show(self, text: str) -> None:
        self._shown += text
        self._screen.piece(text)

    def _end(self, answered: bool, note: str) -> None:
        self.over, self.answered = True, answered
        if note:
            self._screen.note(note)


def text_of(item: Event) -> str:
    """What a message says."""
    return "".join(str(part.get("text", "")) for part in item.get("content") or ())


def _why(response: Event) -> str:
    details = response.get("status_details") or {}
    error = details.get("error") or {}
    return str(error.get("message") or details.get("reason") or f"the answer is {response['status']}")
