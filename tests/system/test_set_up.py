"""The decisions of scripts/set-up before it installs anything. The installation itself ran before these tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30.0
LOCKS = ("requirements.lock", "requirements-dev.lock")
FRAMEWORKS_LOCK = "requirements-frameworks.lock"
LOCKS_OF_TOOLS = ("requirements-docs.lock", "requirements-release.lock")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that set-up reads, with a .venv that looks complete for serving."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in (*LOCKS, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "lastcall").write_text('#!/bin/sh\necho "$PWD $*"\n')
    (programs / "lastcall").chmod(0o755)
    parts = (tmp_path / name for name in ("requirements.lock", "pyproject.toml"))
    marker = f"{tmp_path.resolve()}\n".encode() + b"".join(part.read_bytes() for part in parts)
    (tmp_path / ".venv" / "installed-requirements.lock").write_bytes(marker)
    # A stub of set-up, so that these tests never install anything.
    (tmp_path / "scripts" / "set-up").write_text("#!/bin/sh\necho set-up was asked\nexit 1\n")
    return tmp_path


def serve(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(tree / "scripts" / "serve"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def test_an_installed_tree_is_served_from_the_callers_directory(tree: Path) -> None:
    done = serve(tree, "--port", "0", "two words")
    assert (done.returncode, done.stdout, done.stderr) == (0, "/ serve --port 0 two words\n", "")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_set_up_again(tree: Path, name: str) -> None:
    with (tree / name).open("a") as file:
        file.write("# changed\n")
    done = serve(tree)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "set-up was asked\n")


def test_a_venv_whose_python_is_gone_is_set_up_again(tree: Path) -> None:
    (tree / ".venv" / "bin" / "python").unlink()
    (tree / ".venv" / "bin" / "python").symlink_to(tree / "gone")
    assert serve(tree).stderr == "set-up was asked\n"


def test_a_tree_that_was_moved_is_set_up_again(tree: Path) -> None:
    moved = tree.rename(tree.with_name(f"{tree.name}-moved"))
    assert serve(moved).stderr == "set-up was asked\n"


def test_a_failed_installation_is_shown_with_the_path_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "set-up", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "requirements.lock").write_text("no-such-thing\n")  # pip refuses it because it has no hash
    command = [sys.executable, str(tmp_path / "scripts" / "set-up")]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, env=environment)
    assert done.returncode == 1
    assert "no-such-thing" in done.stderr
    assert done.stderr.splitlines()[-1] == f"set-up: failed; the whole output is in {tmp_path / '.set-up.log'}"
    assert not list((tmp_path / ".venv").glob("installed-*"))


def test_a_failed_installation_of_the_frameworks_leaves_the_project_installed(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "set-up", tmp_path / "scripts")
    (tmp_path / FRAMEWORKS_LOCK).write_text("no-such-thing\n")  # pip refuses it because it has no hash
    installed = tmp_path / ".venv" / "installed-requirements.lock"
    installed.parent.mkdir()
    installed.write_text("all of it")
    command = [sys.executable, str(tmp_path / "scripts" / "set-up"), "--frameworks"]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "set-up: making .venv-frameworks\n")
    assert installed.read_text() == "all of it"
    assert not list((tmp_path / ".venv-frameworks").glob("installed-*"))


def test_an_unknown_argument_is_one_line() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "set-up"), "--all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    only = "set-up: the only argument is --dev, --frameworks, --docs or --release\n"
    assert (done.returncode, done.stderr) == (2, only)


@pytest.mark.parametrize("name", [*LOCKS, FRAMEWORKS_LOCK, *LOCKS_OF_TOOLS])
def test_locks_pin_every_package_by_hash_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    packages = re.findall(r"^([a-z][a-z0-9-]*)(==\S+)?.*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 0
    assert all(pinned for _, pinned in packages)


def test_the_dev_lock_is_a_superset_of_the_serving_lock() -> None:
    served, tested = (set(re.findall(r"^[a-z]\S+==\S+", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS)
    assert served < tested
