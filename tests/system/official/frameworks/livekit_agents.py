"""The `livekit-agents` package's sessions with its OpenAI plugin, in text. It needs packages of .venv-frameworks."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from livekit.agents import Agent, AgentSession, RunResult, function_tool
from livekit.agents.llm import ChatMessage, RealtimeModelError
from livekit.agents.types import APIConnectOptions
from livekit.agents.voice.io import TextOutput
from livekit.plugins import openai

from ..conversing import TOOL_NAME, converse_async, weather

PATIENCE_SECONDS = 10.0
ITEMS = ("message", "function_call", "function_call_output")


class Screen(TextOutput):
    """Where the session's text goes; notes each piece."""

    def __init__(self, arrived: asyncio.Queue[str]) -> None:
        super().__init__(label="Screen", next_in_chain=None)
        self._arrived = arrived

    async def capture_text(self, text: str) -> None:
        """Takes a piece."""
        await self._arrived.put(text)

    def flush(self) -> None:
        """Whole answers are of no interest here."""


class Client:
    """One session at a time. The framework runs the tools, keeps the history, and replays it when it reconnects."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []

    async def open(self, url: str, key: str) -> None:
        """Starts a session, with no room: what is said comes from here, and the answers go to the screen."""
        self._text: asyncio.Queue[str] = asyncio.Queue()
        self._errors: asyncio.Queue[Any] = asyncio.Queue()
        self._reconnections: asyncio.Queue[Any] = asyncio.Queue()
        self._stored: asyncio.Queue[str] = asyncio.Queue()
        self._http = aiohttp.ClientSession()
        model = openai.realtime.RealtimeModel(
            model="lastcall",
            base_url=f"{url}/v1",
            api_key=key,
            modalities=["text"],
            turn_detection=None,
            http_session=self._http,
            conn_options=APIConnectOptions(max_retry=60, retry_interval=0.5),
        )
        self._agent = Agent(instructions="Be brief.", tools=[self._tool()])
        self._session: AgentSession[None] = AgentSession(llm=model)
        self._session.output.transcription = Screen(self._text)
        self._session.on("error", lambda event: self._errors.put_nowait(event.error))
        await self._session.start(self._agent)
        connection: Any = self._agent.realtime_llm_session
        connection.on("session_reconnected", self._reconnections.put_nowait)
        connection.on("openai_server_event_received", self._note_stored)

    def _note_stored(self, event: dict[str, Any]) -> None:
        if event["type"] == "conversation.item.done":
            self._stored.put_nowait(event["item"]["id"])

    def _tool(self) -> Any:
        @function_tool(name=TOOL_NAME)
        async def get_weather(city: str) -> str:
            """The weather in a city."""
            self._calls.append({"city": city})
            return weather(city)

        return get_weather

    async def _run(self, text: str) -> list[str]:
        run: RunResult[None] = self._session.run(user_input=text)
        await asyncio.wait_for(run, PATIENCE_SECONDS)
        return [self._text.get_nowait() for _ in range(self._text.qsize())]

    async def turn(self, text: str) -> list[str]:
        """A turn's text as it was streamed."""
        return await self._run(text)

    async def tool(self, text: str) -> dict[str, Any]:
        """A turn in which the agent calls a tool, which the framework runs: the calls' arguments, and the answer."""
        self._calls.clear()
        return {"text": "".join(await self._run(text)), "calls": self._calls}

    async def cancel(self, text: str) -> None:
        """Interrupts an answer at its first words."""
        run: RunResult[None] = self._session.run(user_input=text)
        await asyncio.wait_for(self._text.get(), PATIENCE_SECONDS)
        await asyncio.wait_for(self._session.interrupt(), PATIENCE_SECONDS)
        await asyncio.wait_for(run, PATIENCE_SECONDS)

    async def edit(self, old: str, new: str) -> None:
        """Replaces the text of the message that is `old`: the framework deletes it and creates it again."""
        context = self._agent.chat_ctx.copy()
        message = next(each for each in context.items if isinstance(each, ChatMessage) and each.content == [old])
        index = context.items.index(message)
        context.items[index] = message.model_copy(update={"content": [new]})
        await self._agent.update_chat_ctx(context)

    async def truncate(self, text: str) -> None:
        """Cuts the newest answer to `text`, as the framework does for one of which less was shown than has come."""
        newest = next(each for each in reversed(self._session.history.items) if each.type == "message")
        self._stored = asyncio.Queue()
        session: Any = self._agent.realtime_llm_session
        session.truncate(message_id=newest.id, modalities=["text"], audio_end_ms=0, audio_transcript=text)
        while await asyncio.wait_for(self._stored.get(), PATIENCE_SECONDS) != newest.id:
            pass

    async def error(self) -> str:
        """Cuts the sound of an item that is not there, and returns the code of the error."""
        self._agent.realtime_llm_session.truncate(message_id="item_none", modalities=["audio"], audio_end_ms=1)
        error: RealtimeModelError = await asyncio.wait_for(self._errors.get(), PATIENCE_SECONDS)
        return str(error.error.body.code)  # an APIError, whose body is the event's

    async def reconnected(self) -> None:
        """Waits until the framework has connected again by itself, and its history is back.

        What is said before that, the framework puts at the beginning of the conversation.
        """
        await asyncio.wait_for(self._reconnections.get(), PATIENCE_SECONDS)
        missing = {each.id for each in self._session.history.items if each.type in ITEMS}
        while missing:
            missing.discard(await asyncio.wait_for(self._stored.get(), PATIENCE_SECONDS))

    async def close(self) -> None:
        """Ends the session."""
        await self._session.aclose()
        await self._http.close()


if __name__ == "__main__":
    asyncio.run(converse_async(Client()))
