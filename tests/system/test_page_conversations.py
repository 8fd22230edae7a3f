"""The list of conversations on the chat page, their addresses, and their older messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ..support.chat_page import Visitors, button, expect_conversation, said, say
from ..support.databases import psql

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

ITEMS = 500
LONG = "c" * 32
FILL = f"""
WITH talk AS (INSERT INTO conversations (conversation_id, user_id) VALUES ('{LONG}', 'page-long')),
     meeting AS (INSERT INTO conversation_sessions (session_id, conversation_id, user_id, session_start)
                 VALUES ('{LONG}', '{LONG}', 'page-long', now() - interval '2 days'))
INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status,
                      created_at)
SELECT 'page-long', gen_random_uuid(), '{LONG}', '{LONG}', 'item_' || n, n,
       CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, 'message ' || n, 'completed', now() - interval '1 day'
  FROM generate_series(1, {ITEMS}) n
"""


def titles(page: Page) -> Locator:
    return page.locator("#conversation-list .title")


def converse(page: Page, *texts: str) -> None:
    """A conversation for each text."""
    for text in texts:
        button(page, "New conversation").click()
        expect(said(page)).to_have_count(0)
        say(page, text)
        expect_conversation(page, text, f"You said: {text}")


def test_conversations_are_listed_by_their_first_words_and_reached_again(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-list")
    expect(page.get_by_text("None yet.")).to_be_visible()
    converse(page, "about roses", "about boats")
    expect(titles(page)).to_have_text(["about boats", "about roses"])
    expect(page).to_have_title("about boats · lastcall")
    boats = page.url
    titles(page).last.click()
    expect_conversation(page, "about roses", "You said: about roses")
    expect(page.locator("#conversation-list [aria-current=page]")).to_have_text(re.compile("about roses"))
    say(page, "more")
    expect_conversation(page, "about roses", "You said: about roses", "more", "You said: more")
    page.go_back()
    expect(page).to_have_url(boats)
    expect_conversation(page, "about boats", "You said: about boats")


def test_an_address_opens_its_conversation_in_another_browser(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-address")
    converse(page, "here it is", "something else")
    titles(page).last.click()
    expect_conversation(page, "here it is", "You said: here it is")
    address = page.url
    assert re.fullmatch(rf"{chat_server.url}/c/conv_[0-9a-f]{{32}}", address)
    other = open_page(chat_server.url, "page-address")
    other.goto(address)
    expect_conversation(other, "here it is", "You said: here it is")


@pytest.mark.parametrize("path", ["/c/conv_" + "0" * 32, "/c/nothing"])
def test_an_address_of_nothing_leads_to_a_new_conversation(
    open_page: Visitors, chat_server: ServerProcess, path: str
) -> None:
    page = open_page(chat_server.url + path)
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(said(page)).to_have_count(0)
    if path != "/c/nothing":
        expect(page.get_by_role("alert")).to_contain_text("does not exist any more, or is not yours")


def test_a_conversation_is_searched_by_title_and_by_what_was_said(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-search")
    converse(page, "about roses", "about boats")
    say(page, "with tall MASTS")
    expect(said(page).last).to_have_text("You said: with tall MASTS")
    search = page.get_by_label("Search conversations")
    for words, found in (
        ("ROSES", ["about roses"]),
        ("masts", ["about boats"]),
        ("about", ["about boats", "about roses"]),
    ):
        search.fill(words)
        expect(titles(page)).to_have_text(found)
    search.fill("nothing like it")
    expect(page.get_by_text("None found.")).to_be_visible()
    search.fill("")
    expect(titles(page)).to_have_count(2)


def test_a_conversation_is_renamed(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, "page-rename")
    converse(page, "about roses")
    button(page, "Rename “about roses”").click()
    page.get_by_label("Title").fill("dropped")
    page.keyboard.press("Escape")
    expect(titles(page)).to_have_text(["about roses"])
    button(page, "Rename “about roses”").click()
    page.get_by_label("Title").fill("<b>The garden</b>")
    page.keyboard.press("Enter")
    expect(titles(page)).to_have_text(["<b>The garden</b>"])
    expect(page).to_have_title("<b>The garden</b> · lastcall")
    page.reload()
    expect(titles(page)).to_have_text(["<b>The garden</b>"])
    button(page, "Rename “<b>The garden</b>”").click()
    page.get_by_label("Title").fill("")
    page.keyboard.press("Enter")
    expect(titles(page)).to_have_text(["about roses"])


def test_a_conversation_is_deleted_once_that_is_confirmed(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    page = open_page(chat_server.url, "page-delete")
    converse(page, "kept", "unwanted")
    gone = page.url
    button(page, "Delete “unwanted”").click()
    expect(page.get_by_role("dialog")).to_contain_text("“unwanted”")
    button(page, "Cancel").click()
    expect(titles(page)).to_have_text(["unwanted", "kept"])
    button(page, "Delete “unwanted”").click()
    button(page, "Delete").click()
    expect(titles(page)).to_have_text(["kept"])
    expect(said(page)).to_have_count(0)
    page.goto(gone)
    expect(page.get_by_role("alert")).to_contain_text("does not exist any more")
    kept = "SELECT count(*) FROM messages WHERE user_id = 'page-delete'"
    assert psql(database_url, kept) == "4", "the transcript stays"


def test_a_long_conversation_is_scrolled_to_its_first_message(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    psql(database_url, FILL)
    page = open_page(chat_server.url, "page-long")
    page.goto(f"{chat_server.url}/c/conv_{LONG}")
    expect(said(page).last).to_have_text(f"message {ITEMS}")
    expect(said(page).last).to_be_in_viewport()
    expect(page.locator(".message time").first).to_be_visible()
    scroll = page.locator("#scroll")
    for shown in range(150, ITEMS + 1, 50):
        before = said(page).first.inner_text()
        scroll.evaluate("each => each.scrollTo(0, 0)")
        expect(said(page)).to_have_count(shown)
        expect(page.locator("#messages").get_by_text(before, exact=True)).to_be_in_viewport()
    scroll.evaluate("each => each.scrollTo(0, 0)")
    expect(said(page).first).to_be_in_viewport()
    assert said(page).all_inner_texts() == [f"message {n}" for n in range(1, ITEMS + 1)]
    say(page, "and on")
    expect(said(page).last).to_have_text("You said: and on")
