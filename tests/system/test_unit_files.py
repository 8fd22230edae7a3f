"""The unit files for systemd say what systemd and our own command line understand."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from lastcall.cli.entry import lastcall
from lastcall.config import Settings
from lastcall.process.supervisor import KILL_MARGIN_SECONDS
from lastcall.runtime.watchdog import FORCE_MARGIN_SECONDS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = DEPLOY / "systemd"
PROGRAM = "/opt/lastcall/bin/lastcall"


@pytest.fixture
def service() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "lastcall.service")
    return parser


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))
    paths = [str(each) for each in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


def test_its_command_is_one_of_ours(service: ConfigParser) -> None:
    program, command, *options = shlex.split(service["Service"]["ExecStart"])
    assert program == PROGRAM
    context = lastcall.commands[command].make_context(command, options)
    assert context.params["workers"] > 1  # else a reload would end it


def test_one_of_several_is_called_by_its_port(tmp_path: Path) -> None:
    """Its settings come from a file, whose keys are settings; that of workers would be another port for each."""
    (tmp_path / "lastcall.toml").write_text((DEPLOY / "lastcall.toml").read_text())
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "lastcall@.service")
    line = parser["Service"]["ExecStart"].replace("%i", "8001").replace("/etc/lastcall", str(tmp_path))
    program, command, *options = shlex.split(line)
    assert program == PROGRAM
    context = lastcall.commands[command].make_context(command, options)
    assert (context.params["port"], context.params["workers"]) == (8001, 1)
    assert context.params["trusted_proxy"]


def test_it_is_given_the_time_that_a_shutdown_may_take(service: ConfigParser) -> None:
    settings = Settings()
    longest = settings.drain_delay + settings.drain_seconds + FORCE_MARGIN_SECONDS + KILL_MARGIN_SECONDS
    assert float(service["Service"]["TimeoutStopSec"]) > longest
