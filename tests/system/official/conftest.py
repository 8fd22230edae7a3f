"""Fixtures for the official clients: servers of their own, Node, a browser. All tests in this folder share them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import open_browser

from . import node, page
from .frameworks import environment
from .servers import Servers, run_servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ca.pem, the authority that signed the server's certificate."""
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="package")
def pages() -> Iterator[str]:
    """The origin of pages that are not the server's own."""
    with page.serve_pages() as origin:
        yield origin


@pytest.fixture(scope="package")
def servers(database_url: str, pages: str, folder: Path) -> Iterator[Servers]:
    with run_servers(database_url, pages, folder) as running:
        yield running


@pytest.fixture(scope="package")
def node_installed() -> None:
    """Skips where there is no Node; in CI, where there has to be one, fails."""
    try:
        node.install()
    except node.Unavailable as reason:
        (pytest.fail if node.is_required() else pytest.skip)(str(reason))


@pytest.fixture(scope="package")
def frameworks_installed() -> None:
    """Skips where the frameworks cannot be installed; in CI, fails."""
    try:
        environment.install()
    except environment.Unavailable as reason:
        (pytest.fail if node.is_required() else pytest.skip)(str(reason))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser
