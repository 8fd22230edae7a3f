"""Languages, themes and small screens of the chat page; and the rules of WCAG 2.2 AA in every state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.axe import violations
from ..support.chat_page import CODE, MARKDOWN, Visitors, button, expect_conversation, say
from ..support.databases import psql
from ..support.processes import run_server

if TYPE_CHECKING:
    from pathlib import Path

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

CONNECTED = {"en": "Connected", "de": "Verbunden", "es": "Conectado", "zh": "已连接"}
LANGUAGES = [("de-CH", "de"), ("es-MX", "es"), ("zh-CN", "zh"), ("en-GB", "en"), ("fr-FR", "en")]
USED = """all => all.flatMap((each) => Object.entries(each.dataset))
    .filter(([name]) => name.startsWith("words")).map(([, key]) => key)"""
KINDS = """async (languages) => Promise.all(languages.map(async (language) => {
    const { default: words } = await import(`/static/words.${language}.js`);
    return Object.fromEntries(Object.entries(words).map(([key, value]) => [key, typeof value]));
}))"""


@pytest.mark.parametrize(("locale", "language"), LANGUAGES)
def test_the_page_speaks_the_browsers_language(
    open_page: Visitors, chat_server: ServerProcess, locale: str, language: str
) -> None:
    page = open_page.visit(chat_server.url, locale=locale)
    expect(page.get_by_role("status")).to_have_text(CONNECTED[language])
    assert page.evaluate("document.documentElement.lang") == language
    assert violations(page) == []
    assert "undefined" not in page.locator("body").inner_text()


def test_every_language_has_all_words(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url)
    english, *others = page.evaluate(KINDS, list(CONNECTED))
    assert all(kinds == english for kinds in others)
    used = page.locator("*").evaluate_all(USED)
    assert set(used) <= set(english)


def test_a_theme_is_chosen_and_kept(open_page: Visitors, chat_server: ServerProcess) -> None:
    page = open_page(chat_server.url, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button(page, "Theme: as the system").click()
    assert page.evaluate(ground) == light
    button(page, "Theme: light").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(button(page, "Theme: dark")).to_be_visible()
    assert page.evaluate(ground) == dark
    button(page, "Theme: dark").click()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("width", [320, 900])
def test_panels_open_above_the_conversation_where_there_is_no_room_beside_it(
    open_page: Visitors, chat_server: ServerProcess, width: int
) -> None:
    page = open_page(chat_server.url, f"page-panels-{width}", width=width)
    say(page, "hello")
    expect_conversation(page, "hello", "You said: hello")
    conversations, memory = page.get_by_label("Search conversations"), page.locator("#facts-empty")
    expect(conversations).to_be_hidden()
    page.get_by_role("heading", name="Conversations").click()
    expect(conversations).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("heading", name="What I remember about you").click()
    expect(memory).to_be_visible()
    expect(conversations).to_be_hidden()
    page.get_by_role("heading", name="Conversations").click()
    page.locator("#conversation-list a").click()
    expect(conversations).to_be_hidden()


LOOKS: dict[str, dict[str, object]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"width": 360, "color_scheme": "light", "is_mobile": True, "has_touch": True},
    "forced colours": {"forced_colors": "active"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_state_keeps_the_rules_of_accessibility(
    open_page: Visitors, chat_server: ServerProcess, database_url: str, look: str
) -> None:
    user = f"page-axe-{look}"
    page = open_page(chat_server.url, user, **LOOKS[look])  # type: ignore[arg-type]
    found = {"new": violations(page)}
    say(page, MARKDOWN)
    expect(page.locator("[data-role=assistant] pre")).to_be_visible()
    expect(button(page, "Answer anew")).to_be_visible()
    found["answered"] = violations(page)
    say(page, CODE)
    expect(page.locator("[data-token=insert]")).to_be_visible()
    expect(button(page, "Answer anew")).to_be_visible()
    found["code"] = violations(page)
    button(page, "Edit").last.click()
    found["editing"] = violations(page)
    page.keyboard.press("Escape")
    if look == "phone":
        page.get_by_role("heading", name="Conversations").click()
    page.locator("#conversation-list .icon").first.click()
    found["renaming"] = violations(page)
    page.keyboard.press("Escape")
    page.locator("#conversation-list .icon").last.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found["deleting"] = violations(page)
    page.keyboard.press("Escape")
    psql(database_url, f"UPDATE conversation_sessions SET is_active = false WHERE user_id = '{user}' AND is_active")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(button(page, "Reconnect")).to_be_visible()
    say(page, "waiting")
    expect(page.locator("[data-state=waiting]")).to_be_visible()
    found["closed"] = violations(page)
    assert {state: broken for state, broken in found.items() if broken} == {}


def test_states_of_a_server_in_trouble_keep_the_rules_of_accessibility(
    open_page: Visitors, database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    agent = "tests.support.scripted_agents:Crashing"
    with run_server("--database-url", database_url, "--agent", agent, "--message-bytes-max", "2000") as server:
        page = open_page(server.url, "page-axe-trouble")
        say(page, "fail")
        expect(button(page, "Try again")).to_be_visible()
        assert violations(page) == []
        say(page, "x" * 3000)
        expect(page.locator("[data-state=refused]")).to_be_visible()
        assert violations(page) == []
    expect(button(page, "Reconnect")).to_be_visible()
    assert violations(page) == []
    with run_server("--database-url", database_url, "--agent", "echo", "--jwt-secret-file", str(secret)) as server:
        page = open_page.visit(server.url)
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        assert violations(page) == []
