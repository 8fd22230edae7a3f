"""The HTTP routes in memory: their responses and the shape of their errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import structlog.testing
from lastcall.auth.identity import USER_CHARS_MAX, user_of
from lastcall.store.errors import StoreUnavailable
from lastcall.web.app import create_app
from lastcall.web.middleware import SECURITY_HEADERS
from lastcall.web.pages import STATIC
from prometheus_client import Counter

from tests.support.fake_services import FakeServices


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def client(services: FakeServices) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def error_of(answer: httpx2.Response) -> tuple[int, str, str, str | None]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["type"], error["code"], error["param"]


async def test_health_is_ok_while_the_process_serves(client: httpx2.AsyncClient, services: FakeServices) -> None:
    services.unready = "draining"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readiness_tells_why_the_server_is_unready(client: httpx2.AsyncClient, services: FakeServices) -> None:
    assert (await client.get("/readyz")).status_code == 200
    services.unready = "database unreachable"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "database unreachable")


async def test_metrics_come_from_the_servers_registry(client: httpx2.AsyncClient, services: FakeServices) -> None:
    Counter("sessions_begun", "Sessions begun.", registry=services.metrics.registry).inc(3)
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "sessions_begun_total 3.0" in answer.text


async def test_memories_are_those_of_the_user_in_the_query(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/memories", params={"user": "zoë"})
    facts = [(each["id"], each["kind"], each["content"], each["said_at"]) for each in answer.json()["data"]]
    assert facts == [("mem_1", "name", "The user is called zoë.", 1), ("mem_2", "place", "Lives in Oslo.", 2)]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"content": ""}', b'{"content": "x", "more": 1}', b'{"content": 5}'])
async def test_a_memory_is_not_changed_to_something_unusable(body: bytes, client: httpx2.AsyncClient) -> None:
    answer = await client.patch("/v1/memories/mem_1?user=ada", content=body)
    assert answer.status_code == 400


@pytest.mark.parametrize("memory_id", ["mem_77", "77", "mem_x", "mem_" + "9" * 30, "mem_-1"])
async def test_a_memory_that_is_not_there_is_404(memory_id: str, client: httpx2.AsyncClient) -> None:
    for answer in (
        await client.delete(f"/v1/memories/{memory_id}?user=ada"),
        await client.patch(f"/v1/memories/{memory_id}?user=ada", json={"content": "I live in Rome."}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "memory_not_found")


async def test_the_safety_identifier_wins_over_the_query(client: httpx2.AsyncClient, services: FakeServices) -> None:
    await client.get("/v1/memories?user=eve", headers={"OpenAI-Safety-Identifier": "ana"})
    assert services.store.asked_for == ["ana"]


async def test_a_request_for_a_user_with_control_characters_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/memories?user=a%00b")
    assert error_of(answer) == (400, "invalid_request_error", "invalid_value", "user")


async def test_a_store_out_of_reach_is_503(client: httpx2.AsyncClient, services: FakeServices) -> None:
    services.store.failure = StoreUnavailable("host=secret")
    answer = await client.get("/v1/memories")
    assert error_of(answer) == (503, "server_error", "store_unavailable", None)
    assert "secret" not in answer.text


async def test_an_exception_is_500_logged_and_not_told(client: httpx2.AsyncClient, services: FakeServices) -> None:
    services.store.failure = RuntimeError("secret")
    with structlog.testing.capture_logs() as logs:
        answer = await client.get("/v1/memories")
    assert error_of(answer) == (500, "server_error", "internal_error", None)
    assert "secret" not in answer.text
    assert [(entry["event"], entry["path"]) for entry in logs] == [("http_request_failed", "/v1/memories")]


@pytest.mark.parametrize(
    "path", ["/nothing", "/static/nothing.js", "/static/../app.py", "/static/%2e%2e/app.py", "/static/"]
)
async def test_an_unknown_path_is_404(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert error_of(answer) == (404, "invalid_request_error", "not_found", None)


async def test_a_wrong_method_is_405_and_says_which_are_right(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/memories")
    assert error_of(answer) == (405, "invalid_request_error", "method_not_allowed", None)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/static/chat.js", "/healthz", "/nothing"])
async def test_every_answer_has_the_security_headers(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


async def test_a_file_that_did_not_change_is_not_sent_again(client: httpx2.AsyncClient) -> None:
    first = await client.get("/static/chat.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get("/static/chat.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_memories_are_not_cached(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/memories")).headers["cache-control"] == "no-store"


async def test_the_page_asks_only_for_files_that_are_there(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/")).text
    files = [part.partition('"')[0] for part in page.split('="/static/')[1:]]
    assert {"chat.css", "chat.js", "favicon.svg"} <= set(files)
    for file in files:
        assert (await client.get(f"/static/{file}")).status_code == 200


@pytest.mark.parametrize("script", sorted(STATIC.glob("*.js")), ids=lambda script: script.name)
def test_no_script_can_make_markup_of_text(script: Path) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(", script.read_text())


@pytest.mark.parametrize(
    ("headers", "query", "user"),
    [
        ({}, {}, None),
        ({}, {"user": " ana "}, "ana"),
        ({"openai-safety-identifier": "bo"}, {"user": "ana"}, "bo"),
        ({"openai-safety-identifier": "  "}, {"user": "ana"}, "ana"),
        ({}, {"user": "é" * USER_CHARS_MAX}, "é" * USER_CHARS_MAX),
        ({}, {"user": "jose\u0301"}, "josé"),
        ({}, {"user": " \u00a0josé "}, "josé"),
        ({"openai-safety-identifier": "jos\u00c3\u00a9"}, {}, "josé"),  # UTF-8
        ({"openai-safety-identifier": "jos\u00e9"}, {}, "josé"),  # Latin-1
        ({"openai-safety-identifier": "日本太郎".encode().decode("latin-1")}, {}, "日本太郎"),
    ],
)
def test_the_user_is_the_headers_then_the_querys_then_nobody(
    headers: dict[str, str], query: dict[str, str], user: str | None
) -> None:
    assert user_of(headers, query) == user


@pytest.mark.parametrize(
    "user",
    [
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\ud800b",
        "a\u200bb",
        "a\u202eb",
        "a\u034fb",
        "\u3164",
        "\u2800",
    ],
)
def test_a_user_id_with_a_control_character_raises(user: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        user_of({}, {"user": user})


def test_a_user_id_that_is_no_utf_8_raises() -> None:
    """Percent-encoded Latin-1: each such letter would become the same sign, and two users one."""
    with pytest.raises(ValueError, match="UTF-8"):
        user_of({}, {"user": "jos\ufffd"})


def test_a_user_id_that_is_too_long_raises() -> None:
    with pytest.raises(ValueError, match=f"at most {USER_CHARS_MAX}"):
        user_of({}, {"user": "a" * (USER_CHARS_MAX + 1)})
