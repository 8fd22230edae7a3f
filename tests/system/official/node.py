"""Node and the JavaScript clients: installed once from tests/system/node/package.json, with exact versions.

`python -m tests.system.official.node` installs them ahead of the tests.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "node"
PACKAGE = FOLDER / "package.json"
MODULES = FOLDER / "node_modules"
MARKER = MODULES / "installed-package.json"  # a copy of package.json as installed, so that a change to it is noticed
INSTALL_SECONDS = 300.0
# No lock: it would name the host that the packages came from. The few packages are pinned by version.
INSTALL = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
# The AI SDK has a part in CommonJS, which no browser reads: it is bundled, as its users do.
BUNDLED = "export * from 'ai'; export { createOpenAI } from '@ai-sdk/openai';"
BUNDLE = ("--bundle", "--format=esm", "--log-level=error", "--outfile=node_modules/ai-sdk.mjs")


class Unavailable(Exception):
    """There is no Node here; the message says what to install."""


def install() -> None:
    """Brings node_modules up to date with package.json; at once where it is. Raises `Unavailable`."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"the JavaScript clients need {' and '.join(missing)} on the PATH")
    MODULES.mkdir(exist_ok=True)
    with (MODULES / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of two runs, the second finds the work done
        if not _is_installed():
            MARKER.unlink(missing_ok=True)
            subprocess.run(["npm", *INSTALL], cwd=FOLDER, check=True, timeout=INSTALL_SECONDS)
            esbuild = [str(MODULES / ".bin" / "esbuild"), *BUNDLE]
            subprocess.run(esbuild, cwd=FOLDER, check=True, timeout=INSTALL_SECONDS, input=BUNDLED, text=True)
            MARKER.write_bytes(PACKAGE.read_bytes())


def _is_installed() -> bool:
    return MARKER.is_file() and MARKER.read_bytes() == PACKAGE.read_bytes()


def is_required() -> bool:
    """Whether a missing Node is a failure instead of a reason to skip."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def program(name: str) -> list[str]:
    """The command of a client of tests/system/node."""
    return ["node", str(FOLDER / "program.mjs"), name]


if __name__ == "__main__":
    try:
        install()
    except Unavailable as reason:
        sys.exit(f"{reason}; on Debian: apt install nodejs npm" if is_required() else 0)
