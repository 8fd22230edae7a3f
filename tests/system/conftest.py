"""Fixtures of the chat page's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.chat_page import Visitors
from ..support.processes import run_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from ..support.processes import ServerProcess


@pytest.fixture(scope="module")
def chat_server(database_url: str) -> Iterator[ServerProcess]:
    """One server for all tests of a file: each test is a user of its own."""
    with run_server("--database-url", database_url, "--agent", "echo") as process:
        yield process


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Visitors]:
    """Opens the page as a new visitor's browser would. What the page reports as an error fails the test."""
    visitors = Visitors(browser)
    before = set(browser.contexts)
    yield visitors
    for context in set(browser.contexts) - before:
        context.close()
    assert visitors.errors == []
