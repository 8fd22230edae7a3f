"""What is remembered, on the chat page: seen with its source, corrected, forgotten, and taken along as a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..support.axe import violations
from ..support.chat_page import Visitors, button, expect_conversation, said, say
from ..support.databases import psql

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

HOME, LIKING = "I live in Oslo.", "I like hiking."
LOOKS: dict[str, dict[str, object]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"width": 360, "color_scheme": "light", "is_mobile": True, "has_touch": True},
    "forced colours": {"forced_colors": "active"},
}
CORRECT = {"de-DE": "berichtigen", "es-ES": "Corregir", "zh-CN": "更正"}


def facts(page: Page) -> Locator:
    return page.locator("#facts .fact")


def remembered(open_page: Visitors, url: str, user: str, **context: object) -> Page:
    """A visitor who has said two things of themselves in an earlier conversation."""
    page = open_page(url, user, **context)  # type: ignore[arg-type]
    say(page, HOME)
    expect_conversation(page, HOME, f"You said: {HOME}")
    say(page, LIKING)
    expect(said(page)).to_have_count(4)
    button(page, "New conversation").click()
    expect(facts(page)).to_have_text([HOME, LIKING])
    return page


def open_panel(page: Page) -> None:
    """On a phone, the panel is closed at first."""
    if not page.locator("#my-data").is_visible():
        page.get_by_role("heading", name="What I remember about you").click()


def test_a_fact_leads_to_where_it_was_said(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-source")
    expect(page.locator("#facts .kind")).to_have_text(["place", "likes"])
    source = page.locator("#facts .time a").first
    expect(source).to_have_text(re.compile(r"^said on .*\d{4}"))
    source.click()
    expect(said(page).first).to_have_text(HOME)
    expect(page).to_have_url(re.compile(r"/c/conv_[0-9a-f]{32}$"))


def test_a_fact_is_corrected_and_keeps_the_words_it_comes_from(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-correct")
    button(page, f"Correct “{HOME}”").click()
    field = page.get_by_label("What is right")
    expect(field).to_have_value(HOME)
    field.press("Escape")
    expect(field).to_be_hidden()
    expect(button(page, f"Correct “{HOME}”")).to_be_focused()
    button(page, f"Correct “{HOME}”").click()
    field.fill("I live near Oslo.")
    button(page, "Save").click()
    expect(facts(page)).to_have_text([LIKING, "I live near Oslo."])
    expect(button(page, "Correct “I live near Oslo.”")).to_be_focused()
    expect(page.locator("#facts .quote")).to_have_text(HOME)
    expect(page.locator("#facts .time").last).to_have_text(re.compile("^corrected on "))
    expect(page.locator("#announce")).to_have_text("Corrected.")
    page.reload()
    expect(facts(page)).to_have_text([LIKING, "I live near Oslo."])


def test_a_secret_in_a_correction_is_shown_as_it_is_stored(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-secret")
    button(page, f"Correct “{LIKING}”").click()
    page.get_by_label("What is right").fill("My password is hunter2.")
    page.get_by_label("What is right").press("Enter")
    expect(facts(page).last).to_have_text(re.compile(r"^My password is \[redacted\]"))


def test_a_fact_is_forgotten_once_that_is_confirmed_by_keyboard_alone(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    page = remembered(open_page, chat_server.url, "page-forget")
    button(page, f"Correct “{HOME}”").focus()
    page.keyboard.press("Tab")
    expect(button(page, f"Forget “{HOME}”")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(f"Forget “{HOME}” for good?")
    page.keyboard.press("Escape")
    expect(facts(page)).to_have_text([HOME, LIKING])
    expect(button(page, f"Forget “{HOME}”")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Forget").press("Enter")
    expect(facts(page)).to_have_text([LIKING])
    expect(button(page, f"Forget “{LIKING}”")).to_be_focused()
    expect(page.locator("#announce")).to_have_text("Forgotten.")
    assert psql(database_url, "SELECT content FROM user_memories WHERE user_id = 'page-forget'") == LIKING
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Forget").press("Enter")
    expect(page.locator("#facts-empty")).to_be_visible()
    expect(button(page, "Refresh")).to_be_focused()


def test_the_dialog_says_what_it_does_whatever_it_asked_before(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-dialog")
    button(page, f"Forget “{HOME}”").click()
    expect(page.locator("#confirm-yes")).to_have_text("Forget")
    page.keyboard.press("Escape")
    button(page, f"Delete “{HOME}”").click()
    expect(page.locator("#confirm-yes")).to_have_text("Delete")


def test_what_comes_in_meanwhile_takes_nothing_from_under_the_hands(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    user = "page-meanwhile"
    page = remembered(open_page, chat_server.url, user)
    page.clock.install()
    page.reload()
    expect(facts(page)).to_have_text([HOME, LIKING])
    button(page, f"Forget “{LIKING}”").focus()
    more = f"INSERT INTO user_memories (user_id, kind, content) VALUES ('{user}', 'note', 'A {{}} note.')"
    psql(database_url, more.format("first"))
    page.clock.run_for(1000)
    expect(facts(page)).to_have_text([HOME, LIKING, "A first note."])
    expect(button(page, f"Forget “{LIKING}”")).to_be_focused()
    button(page, f"Correct “{LIKING}”").click()
    field = page.get_by_label("What is right")
    field.fill("half writ")
    psql(database_url, more.format("second"))
    with page.expect_response("**/v1/memories?**"):
        page.clock.run_for(2000)
    expect(field).to_have_value("half writ")
    button(page, f"Correct “{HOME}”").click()
    expect(field).to_have_value(HOME)
    button(page, "Cancel").click()
    expect(facts(page)).to_have_text([HOME, LIKING, "A first note.", "A second note."])


def test_a_correction_that_fails_says_so_and_keeps_what_was_written(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = remembered(open_page, chat_server.url, "page-failing")
    page.route("**/v1/memories/**", lambda route: route.fulfill(status=503, json={}))
    button(page, f"Correct “{HOME}”").click()
    page.get_by_label("What is right").fill("I live in Rome.")
    button(page, "Save").click()
    expect(page.get_by_role("alert")).to_contain_text("did not work")
    expect(page.get_by_label("What is right")).to_have_value("I live in Rome.")


def test_everything_of_the_user_comes_as_a_file(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-file")
    say(page, "and more")
    expect_conversation(page, "and more", "You said: and more")
    with page.expect_download() as download:
        button(page, "My data as a file").click()
    assert download.value.suggested_filename == "my-data.json"
    found = json.loads(Path(download.value.path()).read_text())
    assert found["user"] == "page-file"
    assert [each["content"] for each in found["memories"]] == [HOME, LIKING]
    texts = [[item["content"][0]["text"] for item in each["items"]] for each in found["conversations"]]
    assert texts == [["and more", "You said: and more"], [HOME, f"You said: {HOME}", LIKING, f"You said: {LIKING}"]]
    assert all(item["stored_at"] > 0 for each in found["conversations"] for item in each["items"])


def test_a_file_that_cannot_be_had_whole_is_not_saved(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = remembered(open_page, chat_server.url, "page-no-file")
    downloads: list[object] = []
    page.on("download", lambda download: downloads.append(download))
    page.route("**/v1/conversations/*/items?**", lambda route: route.fulfill(status=503, json={}))
    button(page, "My data as a file").click()
    expect(page.get_by_role("alert")).to_contain_text("did not work")
    assert downloads == []


@pytest.mark.parametrize("locale", CORRECT)
def test_the_panel_speaks_the_browsers_language(open_page: Visitors, chat_server: ServerProcess, locale: str) -> None:
    user = f"page-memory-{locale}"
    remembered(open_page, chat_server.url, user)
    page = open_page.visit(chat_server.url, locale=locale)
    page.locator("#user").fill(user)
    page.locator("#user").press("Enter")
    expect(facts(page)).to_have_text([HOME, LIKING])
    expect(page.get_by_role("button", name=CORRECT[locale])).to_have_count(2)
    panel = page.locator("aside").inner_text()
    assert "undefined" not in panel
    assert "said on" not in panel
    assert violations(page) == []


@pytest.mark.parametrize("look", LOOKS)
def test_the_panel_keeps_the_rules_of_accessibility(open_page: Visitors, chat_server: ServerProcess, look: str) -> None:
    page = remembered(open_page, chat_server.url, f"page-memory-{look}", **LOOKS[look])
    open_panel(page)
    expect(facts(page).first).to_be_visible()
    found = {"listed": violations(page)}
    button(page, f"Correct “{HOME}”").click()
    found["correcting"] = violations(page)
    page.get_by_label("What is right").fill("I live in Bergen, and I have lived there for a long time by now.")
    button(page, "Save").click()
    expect(page.locator("#facts .quote")).to_be_visible()
    found["corrected"] = violations(page)
    button(page, f"Forget “{LIKING}”").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found["forgetting"] = violations(page)
    assert {state: broken for state, broken in found.items() if broken} == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
