"""The `pipecat-ai` package's realtime service in a pipeline. It needs asyncio, and packages of .venv-frameworks."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame, LLMFullResponseEndFrame, LLMRunFrame, LLMTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from ..conversing import TOOL, TOOL_NAME, converse_async, weather

PATIENCE_SECONDS = 10.0


class Tap(FrameProcessor):
    """Stands behind the service in the pipeline, and notes the text that comes out of it."""

    def __init__(self, arrived: asyncio.Queue[tuple[str, Any]]) -> None:
        super().__init__()
        self._arrived = arrived

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            await self._arrived.put(("delta", frame.text))
        elif isinstance(frame, LLMFullResponseEndFrame):
            await self._arrived.put(("end", None))
        await self.push_frame(frame, direction)


class Client:
    """One pipeline at a time. The framework runs the tools and keeps the context. It ends the service at any error."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []

    async def open(self, url: str, key: str) -> None:
        """Connects. The key says who the user is: there is no place for a query."""
        self._arrived: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._service = OpenAIRealtimeLLMService(
            api_key=key,
            base_url=url.replace("http", "ws", 1) + "/v1/realtime",
            settings=OpenAIRealtimeLLMService.Settings(
                model="lastcall",
                session_properties=events.SessionProperties(
                    output_modalities=["text"],
                    audio=events.AudioConfiguration(input=events.AudioInput(turn_detection=False)),
                    tools=[TOOL],
                ),
            ),
        )
        self._service.register_function(TOOL_NAME, self._get_weather)
        self._service.add_event_handler("on_conversation_item_updated", self._note_item)
        self._service.add_event_handler("on_error", self._note_error)
        self._context = LLMContext()
        # Nobody speaks: without this, the framework loads a model that hears when a turn ends.
        turns = LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
        user, assistant = LLMContextAggregatorPair(self._context, user_params=turns)
        pipeline = Pipeline([user, self._service, Tap(self._arrived), assistant])
        self._worker = PipelineWorker(pipeline, idle_timeout_secs=None)
        started = asyncio.Event()
        self._worker.add_event_handler("on_pipeline_started", lambda *_: started.set())
        self._runner = WorkerRunner(handle_sigint=False)
        await self._runner.add_workers(self._worker)
        self._running = asyncio.create_task(self._runner.run())
        await asyncio.wait_for(started.wait(), PATIENCE_SECONDS)

    async def _get_weather(self, params: FunctionCallParams) -> None:
        self._calls.append(dict(params.arguments))
        await params.result_callback(weather(**params.arguments))

    async def _note_item(self, _service: object, _item_id: str, item: Any) -> None:
        if item is not None and item.type == "message" and item.role == "assistant":
            self._answer = item
            await self._arrived.put(("answer", item))

    async def _note_error(self, _service: object, error: Any) -> None:
        await self._arrived.put(("error", error.error))

    async def _until(self, kind: str) -> Any:
        """The next of a kind: a delta, the end of a response, an answer that is an item now. Raises for an error."""
        while True:
            what, content = await asyncio.wait_for(self._arrived.get(), PATIENCE_SECONDS)
            if what == kind:
                return content
            if what == "error":
                raise RuntimeError(content)

    async def _streamed(self) -> list[str]:
        """The text of the first response that has any: before a tool's output, there is one that has none."""
        deltas = [await self._until("delta")]
        while True:
            what, content = await asyncio.wait_for(self._arrived.get(), PATIENCE_SECONDS)
            if what == "end":
                return deltas
            if what == "error":
                raise RuntimeError(content)
            if what == "delta":
                deltas.append(content)

    async def _ask(self, text: str) -> None:
        """The first text is the pipeline's context; later ones are events, for the framework expects speech there."""
        if not self._context.get_messages():
            self._context.add_message({"role": "user", "content": text})
            await self._worker.queue_frame(LLMRunFrame())
            return
        content = [events.ItemContent(type="input_text", text=text)]
        item = events.ConversationItem(type="message", role="user", content=content)
        await self._service.send_client_event(events.ConversationItemCreateEvent(item=item))
        await self._service.send_client_event(events.ResponseCreateEvent())

    async def turn(self, text: str) -> list[str]:
        """A turn's text as it was streamed."""
        await self._ask(text)
        return await self._streamed()

    async def cancel(self, text: str) -> None:
        """Interrupts an answer at its first words, as an urgent frame through the whole pipeline."""
        await self._ask(text)
        await self._until("delta")
        await self._worker.queue_frame(InterruptionFrame())
        await self._until("answer")

    async def tool(self, text: str) -> dict[str, Any]:
        """A turn in which the agent calls a tool, which the framework runs: the calls' arguments, and the answer."""
        self._calls.clear()
        return {"text": "".join(await self.turn(text)), "calls": self._calls}

    async def error(self) -> str:
        """Retrieves an item that is not there, which is the only error that the framework outlives; its message."""
        try:
            await asyncio.wait_for(self._service.retrieve_conversation_item("item_none"), PATIENCE_SECONDS)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - the framework raises no other
            return str(error)
        raise AssertionError("it was there")

    async def retrieve(self) -> str:
        """The text of the newest answer, as the server has it."""
        item = await asyncio.wait_for(self._service.retrieve_conversation_item(self._answer.id), PATIENCE_SECONDS)
        return str(item.content[0].text)

    async def reset(self) -> list[str]:
        """Begins a new conversation, which the framework seeds with its context, and returns its first answer."""
        await self._service.reset_conversation()
        await self._service._create_response()  # what the framework's own examples call there
        return await self._streamed()

    async def close(self) -> None:
        """Ends the pipeline."""
        await self._worker.cancel()
        await self._running


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    asyncio.run(converse_async(Client()))
