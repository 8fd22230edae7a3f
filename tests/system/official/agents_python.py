"""The `openai-agents` package's `RealtimeRunner`. It needs asyncio, and so a process without Trio."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeModelSendRawMessage, RealtimeRunner, RealtimeSession

from .conversing import TOOL_NAME, converse_async, tell, weather

PATIENCE_SECONDS = 10.0


class Client:
    """One session at a time. The SDK runs the tools, keeps the history and does not reconnect."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []

    def _runner(self) -> RealtimeRunner:
        """A new one for each session: they share the runner's only connection."""
        return RealtimeRunner(
            RealtimeAgent(name="lastcall", tools=[self._tool()]),
            config={"model_settings": {"output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}},
        )

    def _tool(self) -> Any:
        @function_tool(name_override=TOOL_NAME)
        def get_weather(city: str) -> str:
            """The weather in a city."""
            self._calls.append({"city": city})
            return weather(city)

        return get_weather

    async def open(self, url: str, key: str, query: dict[str, str]) -> str:
        """Connects, and returns the conversation's id."""
        address = url.replace("http", "ws", 1) + "/v1/realtime?" + urlencode({"model": "lastcall", **query})
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._query, self._key = query, key
        self._history: list[Any] = []
        self._session: RealtimeSession = await self._runner().run(model_config={"url": address, "api_key": key})
        await self._session.enter()
        self._reading = asyncio.create_task(self._read())
        self._conversation = str((await self._until("session.created"))["session"]["conversation_id"])
        return self._conversation

    async def _read(self) -> None:
        """Takes the session's events until the connection ends."""
        try:
            async for event in self._session:
                await self._take(event)
        except Exception as error:  # noqa: BLE001 - how the SDK tells of a connection that ended
            await self._arrived.put({"type": "sdk.lost", "why": repr(error)})
        else:
            await self._arrived.put({"type": "sdk.lost", "why": "the session ended"})

    async def _take(self, event: Any) -> None:
        if event.type == "raw_model_event" and event.data.type == "raw_server_event":
            tell("frame", event.data.data)
            await self._arrived.put(event.data.data)
        elif event.type == "raw_model_event" and event.data.type == "output_text_delta":
            await self._arrived.put({"type": "sdk.delta", "delta": event.data.delta})
        elif event.type == "history_updated":
            self._history = event.history
        elif event.type == "history_added":
            self._history = [*self._history, event.item]
        elif event.type == "error":
            await self._arrived.put({"type": "sdk.error", "error": event.error})

    async def _until(self, kind: str) -> dict[str, Any]:
        while True:
            event = await asyncio.wait_for(self._arrived.get(), PATIENCE_SECONDS)
            if event["type"] == kind:
                return event
            if event["type"] in ("sdk.error", "sdk.lost"):
                raise RuntimeError(f"{event} before {kind}")

    async def turn(self, text: str) -> dict[str, Any]:
        """A streamed turn: the answer's deltas and its status."""
        await self._session.send_message(text)
        deltas: list[str] = []
        while True:
            event = await asyncio.wait_for(self._arrived.get(), PATIENCE_SECONDS)
            if event["type"] == "sdk.delta":
                deltas.append(event["delta"])
            elif event["type"] == "response.done":
                return {"deltas": deltas, "status": event["response"]["status"]}
            elif event["type"].startswith("sdk."):
                raise RuntimeError(str(event))

    async def cancel(self, text: str) -> str:
        """Interrupts an answer at its first words, and returns its status."""
        await self._session.send_message(text)
        await self._until("sdk.delta")
        await self._session.interrupt()
        return str((await self._until("response.done"))["response"]["status"])

    async def error(self) -> dict[str, Any]:
        """Cancels where there is nothing to cancel, and returns what the client is told."""
        message: Any = {"type": "response.cancel", "other_data": {"event_id": "mine"}}
        await self._session.model.send_event(RealtimeModelSendRawMessage(message=message))
        error = (await self._until("sdk.error"))["error"]
        return {"code": error.code, "event_id": error.event_id}

    async def tool(self, text: str) -> dict[str, Any]:
        """A turn in which the agent calls a tool, which the SDK runs: the calls' arguments, and the answer."""
        self._calls.clear()
        await self._session.send_message(text)
        while True:
            outputs = (await self._until("response.done"))["response"]["output"]
            if all(each["type"] != "function_call" for each in outputs):
                return {"calls": self._calls, "text": outputs[-1]["content"][0]["text"]}

    async def history(self) -> list[tuple[str, str]]:
        """Role and text of every message in the SDK's history."""
        await self._session.model.send_event(
            RealtimeModelSendRawMessage(
                message={"type": "session.update", "other_data": {"session": {"type": "realtime"}}}
            )
        )
        await self._until("session.updated")
        messages = [each for each in self._history if each.type == "message"]
        return [(each.role, "".join(part.text or "" for part in each.content)) for each in messages]

    async def resumed(self, url: str) -> str:
        """Waits for the end of the connection, and goes on in a new one, as an application has to."""
        await self._until("sdk.lost")
        return await self.open(url, self._key, {**self._query, "conversation": self._conversation})

    async def close(self) -> None:
        """Ends the session."""
        await self._session.close()
        await self._reading


if __name__ == "__main__":
    asyncio.run(converse_async(Client()))
