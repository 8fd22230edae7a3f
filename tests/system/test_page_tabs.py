"""The same conversation on two pages, of two servers: both show the same, and neither disturbs its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.axe import violations
from ..support.chat_page import Visitors, button, expect_conversation, said, say
from ..support.processes import run_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

    from ..support.processes import ServerProcess

expect = pytest.importorskip("playwright.sync_api", reason="the page tests need playwright (extra: dev)").expect
pytestmark = pytest.mark.slow

ENDLESS = "tests.support.endless_agent:EndlessAgent"
LONG = "\n\n".join(f"line {number}" for number in range(60))


@pytest.fixture(scope="module")
def other_server(database_url: str) -> Iterator[ServerProcess]:
    with run_server("--database-url", database_url, "--agent", "echo") as process:
        yield process


def two_tabs(open_page: Visitors, server: ServerProcess, other: ServerProcess, user: str) -> tuple[Page, Page]:
    """A page with one turn, and a page of the other server that shows it."""
    page = open_page(server.url, user)
    say(page, "first")
    expect_conversation(page, "first", "You said: first")
    second = open_page(other.url, user)
    second.goto(page.url.replace(server.url, other.url))
    expect_conversation(second, "first", "You said: first")
    return page, second


def speakers(page: Page) -> Locator:
    return page.locator("#messages .speaker")


def test_two_tabs_are_in_step(open_page: Visitors, chat_server: ServerProcess, other_server: ServerProcess) -> None:
    one, other = two_tabs(open_page, chat_server, other_server, "page-tabs")
    say(one, "second")
    expect_conversation(other, "first", "You said: first", "second", "You said: second")
    say(other, "third")
    everything = ["first", "You said: first", "second", "You said: second", "third", "You said: third"]
    for page in (one, other):
        expect_conversation(page, *everything)
        expect(speakers(page)).to_have_text(["You said: ", "The agent said: "] * 3)
        expect(page.locator("#messages time:visible")).to_have_count(6)
        expect(button(page, "Answer anew")).to_be_visible()
    button(one, "Answer anew").click()
    for page in (one, other):
        expect_conversation(page, *everything)
    button(other, "Edit").last.click()
    say(other, "changed")
    for page in (one, other):
        expect_conversation(page, *everything[:4], "changed", "You said: changed")
        assert violations(page) == []
    one.reload()
    expect_conversation(one, *everything[:4], "changed", "You said: changed")


def test_what_comes_from_elsewhere_disturbs_neither_writing_nor_reading(
    open_page: Visitors, chat_server: ServerProcess, other_server: ServerProcess
) -> None:
    one, other = two_tabs(open_page, chat_server, other_server, "page-tabs-calm")
    say(one, LONG)
    expect(said(other)).to_have_count(4)
    field = other.get_by_label("Message", exact=True)
    field.fill("half a sent")
    other.locator("#scroll").evaluate("(scroll) => (scroll.scrollTop = 200)")
    expect(field).to_be_focused()
    top = other.locator("#scroll").evaluate("(scroll) => scroll.scrollTop")
    say(one, "more")
    expect(said(other)).to_have_count(6)
    expect(said(other).last).to_have_text("You said: more")
    assert other.locator("#scroll").evaluate("(scroll) => scroll.scrollTop") == top
    expect(field).to_be_focused()
    expect(field).to_have_value("half a sent")


def test_a_message_that_is_being_changed_and_deleted_elsewhere_is_no_longer_changed(
    open_page: Visitors, chat_server: ServerProcess, other_server: ServerProcess
) -> None:
    one, other = two_tabs(open_page, chat_server, other_server, "page-tabs-edit")
    button(other, "Edit").click()
    expect(other.locator("#editing")).to_be_visible()
    button(one, "Edit").click()
    say(one, "changed")
    expect_conversation(other, "changed", "You said: changed")
    expect(other.locator("#editing")).to_be_hidden()


def test_an_answer_that_is_given_elsewhere_is_not_asked_for_here(
    open_page: Visitors, chat_server: ServerProcess, database_url: str
) -> None:
    with run_server("--database-url", database_url, "--agent", ENDLESS) as endless:
        one, other = two_tabs(open_page, chat_server, endless, "page-tabs-busy")
        say(other, "go on")
        expect(said(one)).to_have_text(["first", "You said: first", "go on"])
        expect(one.locator("#turn")).to_be_hidden()
        expect(said(other)).to_have_count(4)
        button(other, "Stop").click()
        expect(one.locator("[data-role=assistant][data-state=incomplete]")).to_have_count(1)
        expect(button(one, "Continue")).to_be_visible()
