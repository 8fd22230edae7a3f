"""How tests run side by side, and their fixtures: a real PostgreSQL, stores on it, servers in and beside this process.

Each worker of pytest-xdist has a PostgreSQL of its own.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from lastcall import logs
from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded
from lastcall.store.postgres import PostgresStore, migrate_schema, open_store

from .support.browser import open_browser
from .support.command_line import hear_hangups
from .support.databases import new_database, psql
from .support.examples import load_profile
from .support.processes import ServerProcess, run_server
from .support.servers import TABLES, TestServer, empty, open_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SLOW = "slow; scripts/test --all runs it"
PROVERS = Path(__file__).parent / "verification"

PARTITIONS = 4
RELOAD_LOOKS_MAX = 200  # for new settings of the database, each a start of psql

_started: list[str] = []  # the URL of this worker's PostgreSQL, once it runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skip-slow", action="store_true", help="skip tests marked slow, and those of the provers")


def pytest_configure(config: pytest.Config) -> None:
    load_profile("quick" if config.option.skip_slow else "all")
    hear_hangups()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `alone` come last. Slow tests, and those of the provers, can be skipped."""
    for item in items:
        _refuse_clock_of_fixture(item)
        if config.option.skip_slow and (item.get_closest_marker("slow") or PROVERS in item.path.parents):
            item.add_marker(pytest.mark.skip(reason=SLOW))
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


def _refuse_clock_of_fixture(item: pytest.Item) -> None:
    """pytest-trio ignores a clock that only a fixture asks for: the test would run, and wait, in real time."""
    own = getattr(item, "_fixtureinfo", None)
    if own is not None and "autojump_clock" in set(own.names_closure) - set(own.argnames):
        raise pytest.UsageError(f"{item.nodeid}: the test itself must ask for autojump_clock")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out because it is slow, by folder."""
    skipped = terminalreporter.stats.get("skipped", [])
    slow = Counter(
        report.nodeid.rpartition("::")[0].rpartition("/")[0] for report in skipped if SLOW in str(report.longrepr)
    )
    for folder, count in sorted(slow.items()):
        terminalreporter.write_line(f"left out: {count} slow tests of {folder}; scripts/test --all runs them")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """While a test marked `alone` runs, no other worker runs one."""
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with Path(__file__).open() as file:
        fcntl.flock(file, kind)
        try:
            return (yield)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that a test forked may hold the file open


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """The server's own logging, for problems only: the default of structlog draws pictures of every traceback."""
    logs.configure(json_logs=False, level="error")


@pytest.fixture(scope="session")
def database_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of an embedded PostgreSQL that all tests of this worker share."""
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        # pytest's own temporary folders are private, and as root PostgreSQL runs as another user.
        Path(directory).chmod(0o755)
        try:
            url = embedded.start(Path(directory))
            if pytestconfig.option.skip_slow:  # no test cuts the power: there, a commit need not wait for the disk
                _set_fsync(url, "off")
            _started.append(url)
            yield url
        finally:
            embedded.stop(Path(directory))


@pytest.fixture
def durable_url(database_url: str, pytestconfig: pytest.Config) -> Iterator[str]:
    """The same database as it is shipped: a server warns of one that does not wait for the disk."""
    if not pytestconfig.option.skip_slow:
        yield database_url
        return
    _set_fsync(database_url, "on")
    try:
        yield database_url
    finally:
        _set_fsync(database_url, "off")


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Empties the shared tables after each module: a key that is left behind would keep the next one's clients out."""
    yield
    for url in _started:
        _sql(url, "SET client_min_messages = error", f"TRUNCATE {TABLES}", may_fail=True)  # there may be no tables yet


def _sql(url: str, *statements: str, may_fail: bool = False) -> None:
    answer = cluster.run("psql", "-q", *(word for each in statements for word in ("-c", each)), url)
    assert answer.returncode == 0 or may_fail, answer.stderr


def _set_fsync(url: str, value: str) -> None:
    """Returns once new connections see it: a reload takes a moment."""
    _sql(url, f"ALTER SYSTEM SET fsync = {value}", "SELECT pg_reload_conf()")
    assert any(psql(url, "SHOW fsync") == value for _ in range(RELOAD_LOOKS_MAX))


@pytest.fixture
def crowd(pytestconfig: pytest.Config) -> int:
    """How many clients a test of many has; fewer where slow tests are skipped."""
    return 20 if pytestconfig.option.skip_slow else 200


@pytest.fixture(scope="session")
def partitioned_url(database_url: str) -> Iterator[str]:
    """The URL of a database whose large tables have partitions."""
    with new_database(database_url) as url:
        trio.run(lambda: migrate_schema(url, check=False, partitions=PARTITIONS))
        yield url


@pytest.fixture(scope="module")
def meaning_url(database_url: str) -> Iterator[str]:
    """The URL of a database for `open_meaning_store`; others are without what search by meaning needs."""
    with new_database(database_url) as url:
        yield url


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of the store's database; a module with `BOTH_FORMS` is tested on tables with partitions, too."""
    url: str = request.getfixturevalue(getattr(request, "param", "database_url"))
    return url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_url" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_FORMS", False):
        forms = ("database_url", "partitioned_url")
        metafunc.parametrize("store_url", forms, indirect=True, ids=["whole", "partitioned"])


@pytest.fixture
async def postgres_store(store_url: str) -> AsyncIterator[PostgresStore]:
    """The real store, on empty tables."""
    async with open_store(store_url) as store:
        await empty(store)
        yield store


@pytest.fixture
async def server(postgres_store: PostgresStore) -> AsyncIterator[TestServer]:
    """A server in this process, on the real store, with the echo agent."""
    async with open_server(postgres_store) as running:
        yield running


@pytest.fixture
def running_server(database_url: str) -> Iterator[ServerProcess]:
    """`lastcall serve` in a process of its own, with the echo agent."""
    with run_server("--database-url", database_url, "--agent", "echo") as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, for a module's tests."""
    with open_browser() as browser:
        yield browser
