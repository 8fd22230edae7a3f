"""The Chromium on the PATH, driven by Playwright."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE_MS = 15_000.0
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# Without these flags Chromium contacts its maker's hosts, and refuses to start as root.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser for a module's tests. Skips them where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the tests in a browser need playwright (extra: dev)")
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if chromium is None:
        pytest.skip(f"the tests in a browser need a Chromium on the PATH: {', '.join(CHROMIUMS)}")
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with pytest.MonkeyPatch.context() as patch:
        # Once imported, trio-asyncio replaces the event loops that asyncio makes, and Playwright needs a plain one.
        patch.setattr(asyncio, "new_event_loop", asyncio.SelectorEventLoop)
        playwright = sync_api.sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    try:
        yield browser
    finally:
        browser.close()
        playwright.stop()
