"""Facts about processes from the kernel: a dead one is recognised, and a live one is never taken for dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lastcall.runtime import host
from lastcall.runtime.host import ProcessState, host_id, process_started, process_state

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that prints a line once it runs, and then waits for the end of its input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


WAIT = "print('here', flush=True); import sys; sys.stdin.read()"


def test_the_start_of_a_process_never_changes() -> None:
    with process(sys.executable, "-c", WAIT) as child:
        started = process_started(child.pid)
        assert started is not None
        assert started >= (process_started(os.getpid()) or 0)
        assert process_started(child.pid) == started


def test_a_frozen_process_is_alive() -> None:
    with process(sys.executable, "-c", WAIT) as child:
        started = process_started(child.pid)
        child.send_signal(signal.SIGSTOP)
        assert process_started(child.pid) == started


def test_a_killed_process_is_gone_even_as_a_zombie() -> None:
    with process(sys.executable, "-c", WAIT) as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_started(child.pid) is None, "a zombie"
    assert process_started(child.pid) is None


@pytest.mark.parametrize("name", ["a) S 1 (b", "with spaces", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_command_name_may_hold_any_bytes(name: str, tmp_path: Path) -> None:
    # The kernel cuts names at 15 bytes, in the middle of a character if need be.
    for encoded in (os.fsencode(name), b"\xff\xfe"):
        program = f"open('/proc/self/comm', 'wb').write({encoded!r}); {WAIT}"
        with process(sys.executable, "-c", program) as child:
            assert process_started(child.pid) is not None


# --- whether a process is provably gone


def test_a_process_that_runs_lives_and_one_that_was_killed_is_gone() -> None:
    with process(sys.executable, "-c", WAIT) as child:
        started = process_started(child.pid)
        assert process_state(child.pid, started) is ProcessState.LIVES
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_state(child.pid, started) is ProcessState.GONE, "a zombie"
    assert process_state(child.pid, started) is ProcessState.GONE


def test_another_process_with_the_same_pid_is_not_the_one_that_is_gone() -> None:
    with process(sys.executable, "-c", WAIT) as child:
        started = process_started(child.pid)
        assert started is not None
        assert process_state(child.pid, started - 1) is ProcessState.GONE


def test_a_process_that_cannot_be_seen_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc mounted hidepid=2: only the kernel's own word that there is no such process counts."""
    with process(sys.executable, "-c", WAIT) as child:
        started = process_started(child.pid)
        monkeypatch.setattr(host, "_PROC", tmp_path)
        assert process_state(child.pid, started) is ProcessState.UNKNOWN
    assert process_state(child.pid, started) is ProcessState.GONE


@pytest.mark.parametrize("error", [PermissionError, OSError(38, "Function not implemented")])
def test_a_process_that_may_not_be_signalled_is_not_gone(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user, or under a seccomp filter."""

    def refuse(_pid: int, _signal: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    assert process_state(os.getpid(), process_started(os.getpid())) is ProcessState.LIVES
    monkeypatch.setattr(host, "_PROC", tmp_path)
    assert process_state(os.getpid(), 1) is ProcessState.UNKNOWN


def test_a_start_that_its_owner_could_not_read_proves_nothing() -> None:
    assert process_state(os.getpid(), None) is ProcessState.UNKNOWN


def test_the_proc_of_another_pid_namespace_names_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container with the host's /proc, pids there are not ours."""
    (tmp_path / "1").mkdir()
    (tmp_path / "self").symlink_to("1")
    for name in ("sys", "1/ns"):
        (tmp_path / name).symlink_to(Path("/proc") / name.replace("1/", "self/"))
    monkeypatch.setattr(host, "_PROC", tmp_path)
    assert host_id() is None


def test_all_processes_of_a_host_agree_on_its_id() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from lastcall.runtime.host import host_id; print(host_id())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == host_id()


def test_without_proc_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_PROC", tmp_path)
    assert host_id() is None
    assert process_started(os.getpid()) is None
