"""Fixtures of the chat page's and the commands' tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from lastcall.cli.entry import run
from lastcall.embedded import cluster
from lastcall.store.postgres import open_store

from ..support.chat_page import Visitors
from ..support.distributions import ROOT, build_sdist, build_wheel, unpack
from ..support.embedded_data import embedded_data
from ..support.lastcall_command import Answer, Lastcall, kept_logging
from ..support.processes import run_server
from ..support.servers import empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

    from ..support.processes import ServerProcess


@pytest.fixture(scope="module")
def chat_server(database_url: str) -> Iterator[ServerProcess]:
    """One server for all tests of a file: each test is a user of its own."""
    with run_server("--database-url", database_url, "--agent", "echo") as process:
        yield process


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from this tree."""
    return build_sdist(ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def unpacked(sdist: Path) -> Path:
    """The folder in the source distribution."""
    return unpack(sdist, sdist.parent)


@pytest.fixture(scope="session")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as pip does it."""
    return build_wheel(unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Visitors]:
    """Opens the page as a new visitor's browser would. What the page reports as an error fails the test."""
    visitors = Visitors(browser)
    before = set(browser.contexts)
    yield visitors
    for context in set(browser.contexts) - before:
        context.close()
    assert visitors.errors == []


@pytest.fixture
def sql(database_url: str) -> Callable[[str], list[str]]:
    """Runs a statement on the test database, whose tables are empty at first; the rows as text."""

    async def clear() -> None:
        async with open_store(database_url) as store:
            await empty(store)

    trio.run(clear)

    def execute(statement: str) -> list[str]:
        answer = cluster.run("psql", "--no-psqlrc", "-Atqc", statement, database_url)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.splitlines()

    return execute


@pytest.fixture
def lastcall(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lastcall:
    """The command in this process."""
    for name in [name for name in os.environ if name.startswith("LASTCALL_") or name == "COLUMNS"]:
        monkeypatch.delenv(name)

    def command(*arguments: str) -> Answer:
        with kept_logging():
            code = run(arguments)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return command


@pytest.fixture
def ask(lastcall: Lastcall, database_url: str, sql: object) -> Lastcall:
    """The command in this process, on the test database, which `sql` emptied."""
    return lambda *arguments: lastcall(*arguments, "--database-url", database_url)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's own."""
    with embedded_data() as directory:
        yield directory
