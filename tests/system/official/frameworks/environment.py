"""The environment that the frameworks live in: made once by scripts/set-up, from requirements-frameworks.lock.

`python -m tests.system.official.frameworks.environment` makes it ahead of the tests.
"""

from __future__ import annotations

import subprocess
import sys

from ..node import is_required
from ..program import ROOT

PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
SET_UP = (str(ROOT / "scripts" / "set-up"), "--frameworks")
INSTALL_SECONDS = 600.0


class Unavailable(Exception):
    """It could not be made; the message is what scripts/set-up said."""


def install() -> None:
    """Brings it up to date with its lock; at once where it is. Raises `Unavailable`."""
    done = subprocess.run(SET_UP, stderr=subprocess.PIPE, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise Unavailable(done.stderr)


def program(module: str) -> list[str]:
    """The command of a program of this package."""
    return [str(PYTHON), "-m", f"{__package__}.{module}"]


if __name__ == "__main__":
    try:
        install()
    except Unavailable as reason:
        sys.stderr.write(str(reason))
        sys.exit(1 if is_required() else 0)
