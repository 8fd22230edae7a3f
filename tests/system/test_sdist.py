"""The source distribution: all of the tree, able to build and to test itself, on every Python that is supported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.distributions import (
    ROOT,
    build_sdist,
    find_python,
    foreign_environment,
    install_wheel,
    run,
    unpack,
)
from ..support.embedded_data import reachable_directory

pytestmark = pytest.mark.slow

PYTHONS = ("3.11", "3.12", "3.13")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# The seven scenarios, and a conversation that goes on at another server process: a real PostgreSQL, real sockets.
SESSIONS = ("tests/integration/test_scenarios.py", "tests/system/test_resume.py")
OF_FILES = ("tests/unit/protocol", "tests/unit/test_house.py")
# Of the unit tests, those of what differs between versions: parsing, tasks and streams, standard-library modules.
OF_PYTHON = tuple(
    f"tests/unit/{each}"
    for each in (
        "agents",
        "auth",
        "cli",
        "conversation",
        "limits",
        "protocol",
        "runtime",
        "sessions",
        "store",
        "transport",
    )
)
PIP = ("-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile")
HASHED = ("--only-binary=:all:", "--require-hashes", "-r")
PYTEST = ("-m", "pytest", "-q", "--skip-slow", "-m", "not alone", "-p", "no:cacheprovider")


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_symlink() or each.is_file()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is no checkout of git")
def test_it_holds_every_file_of_the_repository_and_nothing_else(unpacked: Path) -> None:
    ours = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    assert files(unpacked) == {*filter(None, ours), "PKG-INFO"}


def test_it_builds_itself_byte_for_byte(sdist: Path, tmp_path: Path) -> None:
    source = unpack(sdist, tmp_path)
    assert build_sdist(source, tmp_path / "again").read_bytes() == sdist.read_bytes()


def run_tests(python: Path, source: Path, *tests: str) -> None:
    """Runs tests of the source distribution on the package of the wheel, which must be the one that is imported."""
    environment = foreign_environment()
    where = run(python, "-c", "import lastcall; print(lastcall.__file__)", cwd=source, env=environment)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    run(python, *PYTEST, *tests, cwd=source, env=environment)


def test_its_own_tests_pass_in_its_folder(unpacked: Path) -> None:
    """With the package in it, in this environment; nothing of this tree is on the path before it."""
    environment = foreign_environment(PYTHONPATH=str(unpacked / "server"))
    where = run(sys.executable, "-c", "import lastcall; print(lastcall.__file__)", cwd=unpacked, env=environment)
    assert where.strip() == str(unpacked / "server" / "lastcall" / "__init__.py")
    run(sys.executable, *PYTEST, *OF_FILES, *SESSIONS, cwd=unpacked, env=environment)


@pytest.mark.parametrize("version", [each for each in PYTHONS if each != THIS_PYTHON])
def test_on_other_pythons_the_lock_installs_and_unit_tests_and_sessions_pass(
    version: str, wheel: Path, sdist: Path
) -> None:
    """The wheel is installed there, beside the packages of the lock with that Python's own wheels."""
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on PATH, nor among pyenv's")
    with reachable_directory() as directory:  # which the embedded PostgreSQL's user enters
        subprocess.run([interpreter, "-m", "venv", directory / "venv"], check=True)
        python = directory / "venv" / "bin" / "python"
        run(python, *PIP, *HASHED, ROOT / "requirements-dev.lock", env=foreign_environment())
        install_wheel(wheel, python)
        run_tests(python, unpack(sdist, directory), *OF_PYTHON, *SESSIONS)
