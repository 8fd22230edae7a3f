"""The `pydantic-ai` package's realtime sessions. It needs asyncio, and packages of .venv-frameworks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import (
    PartDeltaEvent,
    PartStartEvent,
    RealtimeSessionErrorEvent,
    RealtimeSessionReconnectEvent,
    RealtimeTurnCompleteEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.realtime import RealtimeSession
from pydantic_ai.realtime.openai import OpenAIRealtimeModel, OpenAIRealtimeModelSettings

from ..conversing import TOOL_NAME, converse_async, weather

PATIENCE_SECONDS = 10.0


class Client:
    """One session at a time. The framework runs the tools, keeps the history, and replays it when it reconnects."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []
        self._agent = Agent(instructions="Be brief.")

        @self._agent.tool_plain(name=TOOL_NAME)
        def get_weather(city: str) -> str:
            """The weather in a city."""
            self._calls.append({"city": city})
            return weather(city)

    async def open(self, url: str, key: str) -> None:
        """Connects. The key says who the user is: there is no place for a query."""
        model = OpenAIRealtimeModel("lastcall", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))
        settings = OpenAIRealtimeModelSettings(
            output_modality="text",
            turn_detection=False,
            input_transcription_model=None,
            reconnect={"max_attempts": 60, "max_delay": 0.5},
        )
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._stack = AsyncExitStack()
        session = self._agent.realtime(model, model_settings=settings).session()
        self._session: RealtimeSession = await self._stack.enter_async_context(session)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self._session:
            await self._arrived.put(event)

    async def _next(self) -> Any:
        return await asyncio.wait_for(self._arrived.get(), PATIENCE_SECONDS)

    async def turn(self, text: str) -> list[str]:
        """A turn's text as it was streamed, until the framework says that all answers have come."""
        await self._session.send(text)
        deltas: list[str] = []
        while not isinstance(event := await self._next(), RealtimeTurnCompleteEvent):
            deltas += streamed(event)
        return deltas

    async def cancel(self, text: str) -> None:
        """Interrupts an answer at its first words."""
        await self._session.send(text)
        while not streamed(await self._next()):
            pass
        await self._session.interrupt()
        while not isinstance(await self._next(), RealtimeTurnCompleteEvent):
            pass

    async def tool(self, text: str) -> dict[str, Any]:
        """A turn in which the agent calls a tool, which the framework runs: the calls' arguments, and the answer."""
        self._calls.clear()
        return {"text": "".join(await self.turn(text)), "calls": self._calls}

    async def error(self) -> str:
        """Commits a buffer that no audio is in, and returns the code of the error."""
        await self._session.commit_audio()
        while not isinstance(event := await self._next(), RealtimeSessionErrorEvent):
            pass
        return str(event.code)

    async def reconnected(self) -> None:
        """Waits until the framework has connected again by itself."""
        while not isinstance(await self._next(), RealtimeSessionReconnectEvent):
            pass

    async def close(self) -> None:
        """Ends the session."""
        await self._stack.aclose()
        await self._reading


def streamed(event: Any) -> list[str]:
    """The text in an event of the framework, if there is any. Raises for an error."""
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return [text] if text else []
        case RealtimeSessionErrorEvent():
            raise RuntimeError(event.message)
    return []


if __name__ == "__main__":
    asyncio.run(converse_async(Client()))
