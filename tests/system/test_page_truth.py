"""The chat page tells how things really are: whose session it is, whether it is saved, who closed it."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import jwt
import pytest

from ..support.chat_page import Visitors, button, expect_conversation, say
from ..support.databases import new_database, psql
from ..support.processes import run_server

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

LATER_MS = 120_000
CLOSE = "UPDATE conversation_sessions SET is_active = false WHERE user_id = '{}' AND is_active"
ASKS_FOR_KEY = """async () => {
    let status = 200;
    for (let looks = 0; status === 200 && looks < 100; looks += 1) {
        ({ status } = await fetch("/v1/memories"));
        await new Promise((done) => setTimeout(done, 50));
    }
    return status;
}"""
LIVE = "SELECT count(*) FROM conversation_sessions WHERE user_id = '{}' AND is_active"
REFUSING = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$",
    "CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()",
)


def enter_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    button(page, "Connect").click()
    expect(page.get_by_role("status")).to_have_text("Connected")


def test_the_user_is_the_one_of_the_key_whatever_was_typed(
    open_page: Visitors, database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    token = jwt.encode({"sub": "page-owner", "exp": time.time() + 600}, "s" * 32, algorithm="HS256")
    with run_server("--database-url", database_url, "--agent", "echo", "--jwt-secret-file", str(secret)) as server:
        page = open_page.visit(server.url)
        page.get_by_label("Your name").fill("somebody else")
        page.get_by_label("Your name").press("Enter")
        enter_key(page, token)
        expect(page.get_by_label("Your name")).to_have_value("page-owner")
        expect(page.get_by_label("Your name")).not_to_be_editable()
        say(page, "whose?")
        expect_conversation(page, "whose?", "You said: whose?")
        page.reload()
        expect_conversation(page, "whose?", "You said: whose?")
    assert psql(database_url, "SELECT count(*) FROM conversations WHERE user_id = 'somebody else'") == "0"


def test_a_session_that_the_operator_closed_stays_closed_until_the_user_reconnects(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    page = open_page(chat_server.url, "page-closed")
    say(page, "before")
    expect_conversation(page, "before", "You said: before")
    page.clock.install()
    psql(database_url, CLOSE.format("page-closed"))
    expect(page.get_by_role("status")).to_have_text("Closed")
    expect(page.get_by_role("alert")).to_contain_text("closed by the operator")
    say(page, "meanwhile")
    page.clock.fast_forward(LATER_MS)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("[data-state=waiting] .note")).to_have_text("waiting to be sent")
    expect(page.get_by_role("status")).to_have_text("Closed")
    assert psql(database_url, LIVE.format("page-closed")) == "0"
    button(page, "Reconnect").click()
    expect_conversation(page, "before", "You said: before", "meanwhile", "You said: meanwhile")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_revoked_key_is_told_and_asked_for_anew(open_page: Visitors, database_url: str) -> None:
    with (
        new_database(database_url) as url,
        run_server("--database-url", url, "--agent", "echo") as server,
    ):
        page = open_page.visit(server.url)
        expect(page.get_by_role("status")).to_have_text("Connected")
        psql(
            url,
            "INSERT INTO api_keys (subject, scope, prefix, secret_hash)"
            " VALUES ('page-revoked', 'user', 'sk-', sha256(('sk-' || repeat('k', 43))::bytea))",
        )
        assert page.evaluate(ASKS_FOR_KEY) == 401
        page.reload()
        enter_key(page, "sk-" + "k" * 43)
        expect(page.get_by_label("Your name")).to_have_value("page-revoked")
        psql(url, "UPDATE api_keys SET revoked_at = now()")
        expect(page.get_by_role("alert")).to_contain_text("revoked or has expired")
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        expect(page.get_by_role("status")).to_have_text("Closed")


def test_the_light_says_when_nothing_can_be_saved(open_page: Visitors, database_url: str) -> None:
    with (
        new_database(database_url) as url,
        run_server("--database-url", url, "--agent", "echo") as server,
    ):
        page = open_page(server.url)
        psql(url, *REFUSING)
        expect(page.get_by_role("status")).to_have_text("Connected, but cannot save right now")
        psql(url, "DROP TRIGGER refuse ON messages")
        expect(page.get_by_role("status")).to_have_text("Connected")


def test_a_shutdown_is_told_with_a_way_to_reconnect_at_once(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", "echo") as server:
        page = open_page(server.url, "page-shutdown")
        page.evaluate(
            """() => {
                window.told = [];
                const text = document.getElementById('status-text');
                new MutationObserver(() => told.push(text.textContent)).observe(text, { childList: true });
            }"""
        )
        assert server.stop() == 0
    expect(button(page, "Reconnect")).to_be_visible()
    expect(page.locator("#countdown")).to_contain_text("in ")
    told = page.evaluate("told")
    assert "The server restarts, reconnecting" in told
    assert all(one != other for one, other in itertools.pairwise(told)), "only changes are announced"


def test_a_conversation_that_another_tab_deletes_is_told_as_deleted(
    open_page: Visitors, chat_server: ServerProcess
) -> None:
    page = open_page(chat_server.url, "page-two-tabs")
    say(page, "short life")
    expect_conversation(page, "short life", "You said: short life")
    other = page.context.new_page()
    other.goto(chat_server.url)
    button(other, "Delete “short life”").click()
    button(other, "Delete").click()
    expect(other.locator("#conversation-list a")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("was deleted")
    button(page, "Reconnect").click()
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(page.get_by_role("alert")).to_contain_text("does not exist any more")
    expect(page).to_have_url(chat_server.url + "/")


def test_a_session_that_ended_in_silence_goes_on_with_the_next_word(open_page: Visitors, database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", "echo", "--idle-seconds", "2") as server:
        page = open_page(server.url, "page-idle")
        say(page, "first")
        expect_conversation(page, "first", "You said: first")
        page.clock.install()
        expect(page.get_by_role("alert")).to_contain_text("nothing was said for a long time")
        page.clock.fast_forward(LATER_MS)
        expect(page.get_by_role("status")).to_have_text("Closed")
        say(page, "second")
        expect_conversation(page, "first", "You said: first", "second", "You said: second")
