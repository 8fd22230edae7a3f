"""The extra itself: its model, its process, and a server that finds turns by meaning. Skipped where it is not there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from math import hypot

import httpx2
import pytest
import trio
from lastcall.memory.meaning.encoder import DIMENSIONS, EXTRA, UNIT, is_installed
from lastcall.memory.meaning.encoder_process import EncoderProcess, open_encoder_process

from tests.support.databases import new_database

from ..support.clients import connect
from ..support.processes import run_server
from ..support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_installed(), reason=f"{EXTRA} is not installed")]

WAIT_SECONDS = 30.0
FACTS = (
    "My dog is called Bruno and is three years old.",
    "I am allergic to nuts.",
    "My sister Lena lives in Vienna.",
    "I cycle to the office.",
)
QUESTIONS = {
    "Wie heißt mein Hund?": 0,
    "我对什么过敏": 1,
    "Где живёт моя сестра?": 2,
    "Comment je vais au bureau ?": 3,
}


async def encoded(encoder: EncoderProcess, texts: Sequence[str]) -> list[list[int]]:
    with trio.fail_after(WAIT_SECONDS):
        vectors = await encoder.encode_turns(texts)
    assert vectors is not None
    return [json.loads(vector) for vector in vectors]


async def ready(encoder: EncoderProcess, *, other_than: int = 0) -> int:
    async def look() -> int:
        await trio.lowlevel.checkpoint()
        return encoder._process.pid if encoder._process is not None else 0

    return await eventually(look, lambda pid: pid not in (0, other_than), within=WAIT_SECONDS)


async def test_questions_in_other_languages_are_nearest_to_what_answers_them() -> None:
    async with open_encoder_process() as encoder:
        await ready(encoder)
        facts = await encoded(encoder, FACTS)
        for question, answer in zip(await encoded(encoder, [*QUESTIONS]), QUESTIONS.values(), strict=True):
            products = [sum(a * b for a, b in zip(question, fact, strict=True)) for fact in facts]
            assert products.index(max(products)) == answer
        assert {len(fact) for fact in facts} == {DIMENSIONS}
        assert all(abs(hypot(*fact) / UNIT - 1) < 0.02 for fact in facts)


async def test_whatever_a_text_is_it_has_a_vector_and_secrets_have_none() -> None:
    async with open_encoder_process() as encoder:
        await ready(encoder)
        texts = ["", " ", "x" * 1_000_000, "\0\n😀", "'" * 5_000, "我" * 5_000, "a\u0301" * 5_000]
        assert len(await encoded(encoder, texts)) == len(texts)
        with_key, without = await encoded(
            encoder, ["The key is sk-proj-abcdefghijklmnopqrstuvwx123456.", "The key is  ."]
        )
        assert sum(a * b for a, b in zip(with_key, without, strict=True)) / UNIT**2 > 0.97
        assert await ready(encoder)


async def test_a_process_that_was_killed_is_replaced_and_questions_do_not_wait_for_it() -> None:
    async with open_encoder_process() as encoder:
        pid = await ready(encoder)
        os.kill(pid, signal.SIGSTOP)
        with trio.move_on_after(0.05):
            await encoder.encode_question(["Where is my boat?"])
        os.kill(pid, signal.SIGKILL)
        await ready(encoder, other_than=pid)
        assert await encoder.encode_question(["Where is my boat?"]) is not None


async def test_a_server_finds_a_turn_by_its_meaning_in_another_language(database_url: str) -> None:
    with new_database(database_url) as url, run_server("--database-url", url, "--agent", "echo") as server:
        async with connect(server.url, user="ada") as client:
            for fact in FACTS:
                await client.say(fact)
        await trio.to_thread.run_sync(server.wait_for, "session_ended")

        async def best() -> dict[str, object]:
            query = {"user": "ada", "query": "Wie heißt mein Hund?"}
            async with httpx2.AsyncClient() as http:
                turns = (await http.get(f"{server.url}/v1/memories/recalled", params=query)).json()["data"]
            return turns[0] if turns else {}

        found = await eventually(best, lambda turn: turn.get("nearness") is not None, within=WAIT_SECONDS)
        assert found["text"] == FACTS[0]


async def test_what_was_said_before_the_extra_was_there_is_encoded_by_the_next_start(database_url: str) -> None:
    with new_database(database_url) as url:
        arguments = ("--database-url", url, "--agent", "echo")
        with run_server(*arguments, "--no-meaning") as server:
            async with connect(server.url, user="ada") as client:
                for fact in FACTS:
                    await client.say(fact)
        with run_server(*arguments) as server:
            completed = await trio.to_thread.run_sync(server.wait_for, "meanings_completed")
            assert (completed["passages"], completed["turns"]) == (1, len(FACTS))
            async with httpx2.AsyncClient() as http:
                metrics = (await http.get(f"{server.url}/metrics")).text.splitlines()
        assert f"lastcall_turns_encoded_late_total {len(FACTS)}.0" in metrics
        assert "lastcall_meaning_passages_pending 0.0" in metrics
