"""What is read of PostgreSQL's main process and of its log."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from lastcall.embedded import postmaster
from lastcall.embedded.postmaster import FULL_DISK_BYTES, find, forget_dead, is_alive, log_of, why_ended

ENDED_BY_A_FULL_DISK = """\
2026-01-01 10:00:00.000 UTC [7] LOG:  database system is ready to accept connections
2026-01-01 10:00:00.000 UTC [9] PANIC:  could not write to file "pg_wal/xlogtemp.9": No space left on device
2026-01-01 10:00:00.000 UTC [8] FATAL:  the database system is in recovery mode
2026-01-01 10:00:00.000 UTC [8] FATAL:  terminating connection due to unexpected postmaster exit
"""


def test_the_reason_is_its_own_last_failure_not_what_clients_were_told(tmp_path: Path) -> None:
    log_of(tmp_path).write_text(ENDED_BY_A_FULL_DISK)
    assert why_ended(tmp_path) == 'PANIC: could not write to file "pg_wal/xlogtemp.9": No space left on device'


def test_the_reason_of_a_start_is_not_one_of_an_earlier_start(tmp_path: Path) -> None:
    log_of(tmp_path).write_text(ENDED_BY_A_FULL_DISK)
    assert why_ended(tmp_path, written=len(ENDED_BY_A_FULL_DISK)) == "its main process is gone"


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    log_of(tmp_path).write_text(ENDED_BY_A_FULL_DISK + "2026-01-01 LOG:  checkpoint\n" * 10_000)
    assert why_ended(tmp_path) == "its main process is gone"


def test_a_disk_too_full_for_a_log_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=FULL_DISK_BYTES - 1))
    assert why_ended(tmp_path) == "no space left on the disk of its data"


@pytest.mark.parametrize("text", ["", "\n", "x\n", "-5\n/data\n", "999999999999\n", "{pid}\n"])
def test_a_pid_file_of_nothing_that_runs_here_is_no_postmaster(tmp_path: Path, text: str) -> None:
    """The last one's pid exists, but is another program's."""
    (tmp_path / "postmaster.pid").write_text(text.format(pid=os.getpid()))
    assert find(tmp_path) is None


def test_a_pid_file_without_all_its_lines_is_one_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postmaster, "_is_postmaster", lambda _pid, _cluster: True)
    (tmp_path / "postmaster.pid").write_text("12\n/data\n1767225600\n5432\n/sockets\n")
    assert find(tmp_path) == postmaster.Postmaster(12, Path("/sockets"), "")


def test_a_zombie_is_dead_and_reaped() -> None:
    """As the first process of a container, this one inherits a postmaster that was killed."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_locks_of_a_crashed_one_whose_pid_was_reused_are_removed(tmp_path: Path) -> None:
    left = [tmp_path / "postmaster.pid", tmp_path / f".s.PGSQL.{postmaster.PORT}.lock"]
    for each in left:
        each.write_text(f"{os.getpid()}\n")
    forget_dead(tmp_path, tmp_path)
    assert [each for each in left if each.exists()] == []
