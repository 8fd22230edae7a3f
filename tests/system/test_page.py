"""The chat page in a real browser, against `lastcall serve`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import jwt
import pytest

from ..support.chat_page import Visitors, expect_conversation, say
from ..support.processes import run_server

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from ..support.processes import ServerProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)")
expect = sync_api.expect
pytestmark = pytest.mark.slow


def test_an_answer_is_shown_below_the_message(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-answer")
    expect(page.get_by_role("heading", name="Say hello")).to_be_visible()
    say(page, "hello there")
    expect_conversation(page, "hello there", "You said: hello there")
    expect(page.get_by_role("heading", name="Say hello")).to_be_hidden()
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_shift_and_enter_start_a_new_line(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-lines")
    box = page.get_by_label("Message", exact=True)
    box.type("one")
    box.press("Shift+Enter")
    box.type("two")
    box.press("Enter")
    expect(page.locator("[data-role=user] .said")).to_have_text("one\ntwo")
    assert page.locator("[data-role=user] .said").inner_text() == "one\ntwo"


def test_messages_are_never_taken_for_markup(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-markup")
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    say(page, text)
    expect_conversation(page, text, f"You said: {text}")
    expect(page.locator("#messages b, #messages img")).to_have_count(0)


def test_stop_ends_the_answer_and_keeps_what_was_said(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", "tests.support.endless_agent:EndlessAgent") as server:
        page = open_page(server.url, "page-stop")
        say(page, "go on")
        expect(page.locator("[data-role=assistant] .said")).to_have_text("Well … ")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("[data-role=assistant] .note")).to_have_text("stopped")
        expect_conversation(page, "go on", "Well … ")


def test_a_reload_goes_on_in_the_same_conversation(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-reload")
    say(page, "first")
    expect_conversation(page, "first", "You said: first")
    page.reload()
    expect_conversation(page, "first", "You said: first")
    say(page, "second")
    expect_conversation(page, "first", "You said: first", "second", "You said: second")


def test_a_restart_of_the_server_loses_no_message(open_page: Visitors, database_url: str) -> None:
    """The page reconnects to the same conversation and sends what was typed meanwhile."""
    with run_server("--database-url", database_url, "--agent", "echo") as first:
        page = open_page(first.url, "page-restart")
        say(page, "before")
        expect_conversation(page, "before", "You said: before")
        assert first.stop() == 0
    expect(page.get_by_role("status")).to_contain_text("econnecting")
    say(page, "meanwhile")
    expect(page.locator("[data-state=waiting] .note")).to_have_text("waiting to be sent")
    port = str(urlsplit(first.url).port)
    with run_server("--database-url", database_url, "--agent", "echo", "--port", port):
        expect(page.get_by_role("status")).to_have_text("Connected")
        expect_conversation(page, "before", "You said: before", "meanwhile", "You said: meanwhile")


def test_a_conversation_that_is_gone_is_replaced_by_a_new_one(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url)
    page.evaluate(f"localStorage['lastcall.conversation.anonymous'] = 'conv_{'0' * 32}'")
    page.reload()
    expect(page.get_by_role("status")).to_have_text("Connected")
    say(page, "hello")
    expect_conversation(page, "hello", "You said: hello")


def test_a_new_conversation_starts_empty(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-new")
    say(page, "old")
    expect_conversation(page, "old", "You said: old")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#messages .said")).to_have_count(0)
    say(page, "new")
    expect_conversation(page, "new", "You said: new")


def test_what_was_said_in_an_earlier_session_is_shown_as_remembered(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-memory")
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    say(page, "I live in Oslo.")
    expect_conversation(page, "I live in Oslo.", "You said: I live in Oslo.")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#facts")).to_contain_text("Oslo")


def test_one_users_conversation_and_memories_are_not_anothers(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-one")
    say(page, "I live in Bergen.")
    expect_conversation(page, "I live in Bergen.", "You said: I live in Bergen.")
    page.get_by_label("Your name").fill("page-two")
    page.get_by_label("Your name").press("Enter")
    expect(page.locator("#messages .said")).to_have_count(0)
    say(page, "hello")
    expect_conversation(page, "hello", "You said: hello")
    expect(page.locator("#facts")).not_to_contain_text("Bergen")


@pytest.mark.parametrize("width", [320, 360, 768, 1600])
def test_no_width_scrolls_sideways(open_page: Visitors, chat_server: ServerProcess, width: int) -> None:
    page = open_page(chat_server.url, f"page-{width}", width)
    say(page, "unbreakable" * 30)
    expect(page.locator("#messages .said")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    messages = page.locator("#scroll")
    assert messages.evaluate("each => each.scrollWidth") <= messages.evaluate("each => each.clientWidth")


def test_the_page_asks_for_a_key_and_keeps_it_for_this_tab_only(
    browser: Browser, database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    token = jwt.encode({"sub": "ada", "exp": time.time() + 600}, "s" * 32, algorithm="HS256")
    with run_server("--database-url", database_url, "--agent", "echo", "--jwt-secret-file", str(secret)) as server:
        page = browser.new_context().new_page()
        page.goto(server.url)
        field = page.get_by_label("Key", exact=True)
        expect(field).to_be_focused()
        field.fill("sk-wrong")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("wrong, expired or revoked")
        expect(field).to_have_value("")
        field.fill(token)
        page.get_by_role("button", name="Connect").click()
        expect(page.get_by_role("status")).to_have_text("Connected")
        expect(field).to_be_hidden()
        page.reload()
        expect(page.get_by_role("status")).to_have_text("Connected")
        assert token not in page.url
        assert token not in str(page.evaluate("JSON.stringify(localStorage)"))
        page.context.close()
