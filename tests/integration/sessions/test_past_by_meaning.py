"""A turn comes back with a message that means the same, in other words: a server on PostgreSQL with pgvector."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection

import httpx2
import pytest
from lastcall.agents.agent import Piece, Turn
from lastcall.memory.search import past
from lastcall.store.people.meanings import MeaningResult
from lastcall.store.postgres import PostgresStore

from tests.support.clients import connect
from tests.support.meanings import encode_subjects, open_meaning_store
from tests.support.scripted_agents import ScriptedAgent
from tests.support.servers import open_server
from tests.support.waiting import eventually

HOME = "Our home is in Lyon."
QUESTION = "Which town do I live in?"
INDEXED = "SELECT count(*) FROM recall_meanings"
WAIT_SECONDS = 10.0


class Recalling(ScriptedAgent):
    """Says what came back, and what a search of its own finds."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        came_back = ", ".join(each.text for each in turn.recalled)
        found = await turn.search(QUESTION) if turn.search is not None else ""
        yield f"came back: {came_back or 'nothing'}; found: {HOME in found}"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer than the deadline, which has tests of its own."""
    monkeypatch.setattr(past, "RECALL_SECONDS", WAIT_SECONDS)


@pytest.fixture
async def store(meaning_url: str) -> AsyncIterator[PostgresStore]:
    async with open_meaning_store(meaning_url) as store:
        yield store


async def said(url: str, text: str, user: str = "ada") -> str:
    """The answer, in a session of its own."""
    async with connect(url, user=user) as client:
        answer = (await client.ask(text))["response"]["output"][0]["content"][0]["text"]
    return str(answer)


async def test_a_turn_comes_back_with_a_message_that_shares_no_word_with_it(store: PostgresStore) -> None:
    async with open_server(store, Recalling(), encode_subjects) as server:
        assert await said(server.url, HOME) == "came back: nothing; found: False"
        await eventually(lambda: store.select(INDEXED), lambda rows: rows[0][0] > 0, within=WAIT_SECONDS)
        async with httpx2.AsyncClient() as http:
            query = {"user": "ada", "query": QUESTION}
            told = (await http.get(f"{server.url}/v1/memories/recalled", params=query)).json()
        assert (await said(server.url, QUESTION)).startswith(f"came back: {HOME}")
        assert (await said(server.url, "Hello, it is me again.")).endswith("found: True")
        assert "nothing" in await said(server.url, QUESTION, user="eve")
    assert told["comes_back"] is True
    assert (told["data"][0]["text"], told["data"][0]["words"]) == (HOME, [])
    assert told["data"][0]["nearness"] > 0.9


async def test_a_user_without_a_past_and_a_server_without_the_extra_make_no_further_statement(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def search(
        self: PostgresStore, user_id: str, vector: str, among: Collection[int], passages_max: int
    ) -> MeaningResult:
        asked.append(user_id)
        return MeaningResult({}, 0, 0.0, 0.0, 0.0)

    async with open_server(store, Recalling(), encode_subjects) as server:
        await said(server.url, HOME)
        await eventually(lambda: store.select(INDEXED), lambda rows: rows[0][0] > 0, within=WAIT_SECONDS)
        monkeypatch.setattr(PostgresStore, "search_meanings", search)
        await said(server.url, QUESTION, user="eve")
        assert asked == []
        await said(server.url, QUESTION)
    assert {*asked} == {"ada"}
    asked.clear()
    async with open_server(store, Recalling()) as server:
        await said(server.url, QUESTION)
    assert asked == []
