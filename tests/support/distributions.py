"""The source distribution and the wheel, and what it takes to run them somewhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 900.0


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What the command printed. Raises AssertionError with all of it where its exit code is not 0."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def foreign_environment(**variables: str) -> dict[str, str]:
    """The environment of a program that must not notice this test, its tree or its settings."""
    ours = ("LASTCALL_", "PYTHON", "PYTEST_", "VIRTUAL_ENV", "COLUMNS", "LINES")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)} | variables


def build_sdist(source: Path, into: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", into, cwd=source)
    [sdist] = into.glob("*.tar.gz")
    return sdist


def unpack(sdist: Path, into: Path) -> Path:
    """The folder that was in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    return into / sdist.name.removesuffix(".tar.gz")


def build_wheel(source: Path, into: Path) -> Path:
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir", "--wheel-dir", into)
    run(sys.executable, "-m", "pip", "wheel", *options, source)
    [wheel] = into.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, python: Path) -> None:
    """Alone, into the environment of this Python."""
    options = ("--no-deps", "--no-index", "--no-cache-dir", "--no-compile")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)


def find_python(version: str) -> Path | None:
    """An interpreter of a version such as 3.12 that can make environments: on PATH, or one of pyenv's."""
    for candidate in _candidates(version):
        check = f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        # One of pyenv's shims exists, but runs nothing where its version is not the chosen one.
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode == 0:
            return Path(candidate)
    return None


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(each) for each in sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True))
