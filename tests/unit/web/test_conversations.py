"""Conversations over HTTP: pages of items and conversations, in memory, on the fake store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from lastcall.auth.authenticator import Authenticator
from lastcall.auth.identity import Presented, Principal
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.memory.meaning.encoder import Encode
from lastcall.metrics import Metrics
from lastcall.protocol.ids import parse_public_id, public_id
from lastcall.protocol.items import MessageItem
from lastcall.store.records import SessionStart, StoredItem
from lastcall.web.app import create_app
from lastcall.web.conversations import PAGE_MAX, SEARCH_CHARS_MAX, TITLE_CHARS_MAX

from tests.support.fake_store import FakeStore
from tests.support.instances import instance

WITHIN = 1.0
ITEMS = 5
Answer = dict[str, Any]


class OneConversation(Authenticator):
    """only: the conversation that every client's secret is for."""

    only: UUID | None = None

    async def principal(self, presented: Presented) -> Principal:
        return replace(await super().principal(presented), conversation_id=self.only)


class Services:
    """A running server, as the routes see it, on a store in memory."""

    def __init__(self, store: FakeStore) -> None:
        self.settings = Settings()
        self.metrics = Metrics()
        self.gate = Gate(self.settings, self.metrics.count_refusal)
        self.store = store
        self.encode: Encode | None = None
        self.authenticator = OneConversation(store, self.settings)

    async def ready(self) -> str | None:
        return None


@pytest.fixture
async def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def services(store: FakeStore) -> Services:
    return Services(store)


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def converse(store: FakeStore, user_id: str, prefix: str = "i") -> str:
    """A conversation of five items, i1 to i5; its public id."""
    owner, conversation = uuid4(), uuid4()
    await store.register_instance(instance(owner))
    start = SessionStart(
        session_id=uuid4(), conversation_id=conversation, user_id=user_id, instance_id=owner, started=0.0
    )
    await store.begin_session(start, within=WITHIN)
    for number in range(1, ITEMS + 1):
        await store.append_items([_item(start, f"{prefix}{number}", number)], within=WITHIN)
    return public_id("conv", conversation)


def _item(start: SessionStart, item_id: str, number: int) -> StoredItem:
    return StoredItem(
        session_id=start.session_id,
        conversation_id=start.conversation_id,
        item_id=item_id,
        position=number,
        role="assistant" if number % 2 == 0 else "user",
        content=f"text {number}",
        status="incomplete" if number == 2 else "completed",
    )


@pytest.fixture
async def path(store: FakeStore) -> str:
    return f"/v1/conversations/{await converse(store, 'ada')}/items"


async def page(http: httpx2.AsyncClient, path: str, **query: str) -> tuple[list[str], bool]:
    """The ids of a page, and whether there are more."""
    answer = await http.get(path, params={"user": "ada", **query})
    assert answer.status_code == 200, answer.text
    body: Answer = answer.json()
    assert list(body) == ["object", "data", "first_id", "last_id", "has_more"]
    ids = [each["id"] for each in body["data"]]
    assert (body["object"], body["first_id"], body["last_id"]) == (
        "list",
        *((ids[0], ids[-1]) if ids else (None, None)),
    )
    return ids, body["has_more"]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "54321", False),
        ({"limit": "2"}, "54", True),
        ({"limit": "2", "after": "i4"}, "32", True),
        ({"limit": "3", "after": "i4"}, "321", False),
        ({"limit": "2", "before": "i2"}, "43", True),
        ({"limit": "3", "before": "i2"}, "543", False),
        ({"after": "i1"}, "", False),
        ({"before": "i5"}, "", False),
        ({"order": "asc"}, "12345", False),
        ({"order": "asc", "limit": "2"}, "12", True),
        ({"order": "asc", "limit": "2", "after": "i2"}, "34", True),
        ({"order": "asc", "limit": "2", "before": "i4"}, "23", True),
        ({"order": "asc", "limit": "9", "before": "i4"}, "123", False),
    ],
)
async def test_a_page_begins_after_or_ends_before_a_cursor_in_either_order(
    query: dict[str, str], ids: str, more: bool, http: httpx2.AsyncClient, path: str
) -> None:
    assert await page(http, path, **query) == ([f"i{digit}" for digit in ids], more)


async def test_items_have_the_shape_that_they_have_on_the_websocket(http: httpx2.AsyncClient, path: str) -> None:
    body = (await http.get(path, params={"user": "ada", "order": "asc", "limit": "2"})).json()
    assert body["data"] == [
        {
            "type": "message",
            "id": "i1",
            "object": "realtime.item",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "text 1"}],
        },
        {
            "type": "message",
            "id": "i2",
            "object": "realtime.item",
            "status": "incomplete",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "text 2"}],
        },
    ]
    assert set(body["data"][0]) == {"type", *MessageItem.__struct_fields__}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": str(PAGE_MAX + 1)}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "\u0661"}, "limit"),
        ({"order": "newest"}, "order"),
        ({"after": "i1", "before": "i3"}, "before"),
        ({"after": "elsewhere1"}, "after"),
        ({"before": "none"}, "before"),
        ({"after": ""}, "after"),
        ({"after": "nul \0"}, "after"),
        ({"before": "x" * 129}, "before"),
        ({"user": "a\0b"}, "user"),
    ],
)
async def test_invalid_parameters_of_a_page_are_refused(
    query: dict[str, str], param: str, http: httpx2.AsyncClient, path: str, store: FakeStore
) -> None:
    await converse(store, "ada", "elsewhere")
    answer = await http.get(path, params={"user": "ada", **query})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", param)


async def test_another_users_conversation_is_answered_like_a_missing_one(
    http: httpx2.AsyncClient, path: str, store: FakeStore
) -> None:
    unknown = f"/v1/conversations/{public_id('conv', UUID(int=0))}/items"
    answers = [
        await http.get(path, params={"user": "eve"}),
        await http.get(path, params={"user": "eve", "after": "i1"}),
        await http.get(path),
        await http.get(unknown, params={"user": "eve"}),
        await http.get("/v1/conversations/no-id/items", params={"user": "eve"}),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert answers[0].json()["error"]["code"] == "conversation_not_found"


async def test_a_secret_for_one_conversation_shows_no_other(
    http: httpx2.AsyncClient, path: str, store: FakeStore, services: Services
) -> None:
    other = await converse(store, "ada", "other")
    services.authenticator.only = parse_public_id("conv", path.split("/")[3])
    assert len((await page(http, path))[0]) == ITEMS
    hidden = await http.get(f"/v1/conversations/{other}/items", params={"user": "ada"})
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "conversation_not_found")
    assert (await http.get("/v1/conversations", params={"user": "ada"})).status_code == 403


async def test_a_users_conversations_are_listed_newest_first_in_pages(
    http: httpx2.AsyncClient, store: FakeStore
) -> None:
    mine = [await converse(store, "ada", f"c{number}-") for number in range(3)]
    theirs = await converse(store, "eve", "eve-")
    assert await page(http, "/v1/conversations") == (mine[::-1], False)
    assert await page(http, "/v1/conversations", limit="2") == (mine[:0:-1], True)
    assert await page(http, "/v1/conversations", limit="2", after=mine[1]) == (mine[:1], False)
    body = (await http.get("/v1/conversations", params={"user": "ada"})).json()
    assert set(body["data"][0]) == {"id", "object", "created_at", "title", "last_active_at"}
    for after in (theirs, "no id", ""):
        answer = await http.get("/v1/conversations", params={"user": "ada", "after": after})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


async def test_a_conversation_is_renamed_searched_and_deleted(http: httpx2.AsyncClient, store: FakeStore) -> None:
    mine, other = await converse(store, "ada", "a"), await converse(store, "ada", "b")
    ada = {"user": "ada"}
    renamed = await http.post(f"/v1/conversations/{mine}", params=ada, json={"title": "  The \n garden "})
    assert renamed.json() == {"id": mine, "object": "conversation", "title": "The garden"}
    assert await page(http, "/v1/conversations", search="GARDEN") == ([mine], False)
    assert await page(http, "/v1/conversations", search="text 1", limit="1") == ([other], True)
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 plans"
    assert (await http.post(f"/v1/conversations/{mine}", params=ada, json={"title": family})).json()["title"] == family
    assert (await http.post(f"/v1/conversations/{mine}", params=ada, json={"title": None})).json()["title"] is None
    listed = (await http.get("/v1/conversations", params=ada)).json()["data"]
    assert [each["title"] for each in listed] == ["text 1", "text 1"]
    deleted = await http.delete(f"/v1/conversations/{mine}", params=ada)
    assert deleted.json() == {"id": mine, "object": "conversation.deleted", "deleted": True}
    assert await page(http, "/v1/conversations") == ([other], False)
    for answer in (
        await http.delete(f"/v1/conversations/{mine}", params=ada),
        await http.delete(f"/v1/conversations/{other}", params={"user": "eve"}),
        await http.post(f"/v1/conversations/{other}", params={"user": "eve"}, json={"title": "x"}),
        await http.delete("/v1/conversations/no-id", params=ada),
        await http.get(f"/v1/conversations/{mine}/items", params=ada),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_value"),
        (b"{}", "invalid_value"),
        (b"[" * 5000, "invalid_value"),
        (b'{"title": 1}', "invalid_value"),
        (b'{"title": " \\n "}', "invalid_value"),
        (b'{"title": "nul \\u0000"}', "invalid_value"),
        (b'{"title": "half \\ud800"}', "invalid_value"),
        (b'{"title": "turned \\u202e"}', "invalid_value"),
        (b'{"title": "' + b"x" * (TITLE_CHARS_MAX + 1) + b'"}', "invalid_value"),
        (b'{"title": "x", "user": "eve"}', "unknown_parameter"),
    ],
)
async def test_a_bad_title_is_refused_and_changes_nothing(
    body: bytes, code: str, http: httpx2.AsyncClient, store: FakeStore
) -> None:
    mine = await converse(store, "ada")
    answer = await http.post(f"/v1/conversations/{mine}", params={"user": "ada"}, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert store.titles == {}


@pytest.mark.parametrize("words", ["", "nul \0", "x" * (SEARCH_CHARS_MAX + 1)])
async def test_bad_words_of_a_search_are_refused(words: str, http: httpx2.AsyncClient) -> None:
    answer = await http.get("/v1/conversations", params={"user": "ada", "search": words})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "search")


async def test_a_page_has_times_only_where_they_are_asked_for(http: httpx2.AsyncClient, path: str) -> None:
    for query in ({"limit": "2"}, {"limit": "2", "order": "asc"}):
        body = (await http.get(path, params={"user": "ada", "times": "true", **query})).json()
        assert len(body["times"]) == len(body["data"]) == 2
    assert "times" not in (await http.get(path, params={"user": "ada", "times": "false"})).json()
    assert (await http.get(path, params={"user": "ada", "times": "1"})).json()["error"]["param"] == "times"
