"""The `openai` package's asynchronous Realtime client. It needs asyncio, and so a process without Trio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI

from .conversing import TOOL, converse_async, item, tell_frame, weather


class Client:
    """One connection at a time."""

    def _api(self, url: str, key: str) -> AsyncOpenAI:
        """The package's client of a server."""
        return AsyncOpenAI(base_url=f"{url}/v1", api_key=key)

    async def open(self, url: str, key: str, query: dict[str, str]) -> str:
        """Connects, and returns the conversation's id."""
        self._history: dict[str, tuple[str, str]] = {}
        self._openai = self._api(url, key)
        manager = self._openai.realtime.connect(model="lastcall", extra_query=query, on_reconnecting=self._resume)
        self._connection = await manager.enter()
        return await self._begun()

    async def _begun(self) -> str:
        self._conversation = str((await self._until("session.created")).session.conversation_id)
        return self._conversation

    def _resume(self, event: Any) -> Any:
        return {"extra_query": {**event.extra_query, "conversation": self._conversation}}

    async def _events(self) -> AsyncIterator[Any]:
        async for event in self._connection:
            tell_frame(event)
            if event.type == "conversation.item.done" and event.item.type == "message":
                text = "".join(part.text or "" for part in event.item.content)
                self._history[str(event.item.id)] = (event.item.role, text)
            yield event

    async def _until(self, kind: str) -> Any:
        async for event in self._events():
            if event.type == kind:
                return event
            if event.type == "error":
                raise RuntimeError(event.error.message)
        raise EOFError(f"the connection ended before {kind}")

    async def _ask(self, text: str) -> None:
        await self._connection.conversation.item.create(item=item(text))
        await self._connection.response.create()

    async def turn(self, text: str) -> dict[str, Any]:
        """A streamed turn: the answer's deltas and its status."""
        await self._ask(text)
        deltas: list[str] = []
        async for event in self._events():
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            elif event.type == "response.done":
                return {"deltas": deltas, "status": event.response.status}
        raise EOFError("the connection ended before the response")

    async def cancel(self, text: str) -> str:
        """Cancels an answer at its first words, and returns its status."""
        await self._ask(text)
        await self._until("response.output_text.delta")
        await self._connection.response.cancel()
        return str((await self._until("response.done")).response.status)

    async def error(self) -> dict[str, Any]:
        """Cancels where there is nothing to cancel, and returns what the client is told."""
        await self._connection.response.cancel(event_id="mine")
        error = (await self._until("error")).error
        return {"code": error.code, "event_id": error.event_id}

    async def tool(self, text: str) -> dict[str, Any]:
        """A turn in which the agent calls a tool: the calls' arguments, and the answer."""
        await self._connection.session.update(session={"type": "realtime", "tools": [TOOL]})
        await self._ask(text)
        calls: list[Any] = []
        while True:
            outputs = (await self._until("response.done")).response.output
            wanted = [each for each in outputs if each.type == "function_call"]
            if not wanted:
                return {"calls": calls, "text": outputs[-1].content[0].text}
            for call in wanted:
                calls.append(json.loads(call.arguments))
                answer: Any = {"type": "function_call_output", "call_id": call.call_id, "output": weather(**calls[-1])}
                await self._connection.conversation.item.create(item=answer)
            await self._connection.response.create()

    async def history(self) -> list[tuple[str, str]]:
        """Role and text of every message that the client knows of."""
        await self._connection.session.update(session={"type": "realtime"})
        await self._until("session.updated")
        return list(self._history.values())

    async def resumed(self, _url: str) -> str:
        """Waits until the client has connected again by itself; the conversation's id."""
        self._history.clear()
        return await self._begun()

    async def close(self) -> None:
        """Ends the connection."""
        await self._connection.close()
        await self._openai.close()


if __name__ == "__main__":
    asyncio.run(converse_async(Client()))
