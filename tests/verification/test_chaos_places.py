"""Where the servers of `scripts/chaos` stand, what they see of each other's host, and their clocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lastcall.runtime.host import host_id

from .chaos import places
from .chaos.clock import SettableClock, faketime
from .chaos.places import HERE, LINKED, REMOTE, Place, elsewhere, left_out, remote_problem
from .chaos.plan import CLOCK_FAULTS, CLOCK_RUN_SECONDS_MAX, LINK_FAULTS, Pace

ALL = [Place(HERE, 3.0, 0), Place(LINKED, 7.0, 2), Place(REMOTE, 7.0, 1)]


def test_with_all_places_and_tools_no_fault_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "faketime", lambda: Path("libfaketime.so"))

    assert left_out(ALL, Pace()) == {}


def test_faults_of_links_need_a_server_that_has_one() -> None:
    assert {"link_cut", "remote_link_cut", "remote_killed"} <= left_out(ALL[:1], Pace()).keys()
    assert set(LINK_FAULTS) <= left_out(ALL[:1], Pace()).keys()


def test_without_root_remote_faults_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    servers = places.places(3, Pace())

    assert REMOTE not in {server.name for server in servers}
    assert "root" in left_out(servers, Pace())["remote_killed"]


def test_without_faketime_clocks_are_left_out_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "faketime", lambda: None)

    assert "faketime" in left_out(ALL, Pace())["server_clock_set"]
    assert "faketime" in left_out(ALL, Pace())["database_clock_set"]


def test_in_a_long_run_the_databases_clock_is_not_set() -> None:
    assert set(CLOCK_FAULTS) <= left_out(ALL, Pace(seconds=CLOCK_RUN_SECONDS_MAX + 1)).keys()


@pytest.mark.skipif(remote_problem() is not None, reason=f"no other host: {remote_problem()}")
def test_a_server_elsewhere_has_a_host_id_and_name_of_its_own() -> None:
    command = elsewhere("other", [sys.executable, "-c", HOST])

    hostname, other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert hostname == "other"
    assert other != host_id()


HOST = "import socket; from lastcall.runtime.host import host_id; print(socket.gethostname(), host_id())"


@pytest.mark.skipif(faketime() is None, reason="libfaketime is not installed")
def test_a_clock_is_set_for_the_processes_that_were_started_with_it(tmp_path: Path) -> None:
    library = faketime()
    assert library is not None
    clock = SettableClock(library, tmp_path / "clock")
    telling = subprocess.Popen(
        [sys.executable, "-uc", TELL],
        env={**os.environ, **clock.environment},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with telling as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for offset in (0.0, -3600.0, 3600.0):
            clock.set(offset)
            process.stdin.write("\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            assert wall == pytest.approx(time.time() + offset, abs=60)
            assert monotonic == pytest.approx(time.monotonic(), abs=60)
        process.stdin.close()


TELL = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic())"
