"""The command `lastcall`, in a process of its own or in this one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

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


Lastcall = Callable[..., Answer]
"""The command in this process: the fixture `lastcall`."""


@contextmanager
def kept_logging() -> Iterator[None]:
    """What the block configures of logging is gone afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
