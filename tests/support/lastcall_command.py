"""The command `lastcall` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

HOLD_SECONDS = 30.0


@dataclass
class Answer:
    code: int
    out: str
    err: str


def process(*arguments: str, **variables: str) -> Answer:
    """The command in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LASTCALL_")} | variables
    command = [sys.executable, "-m", "lastcall", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HOLD_SECONDS, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)
