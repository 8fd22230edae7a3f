"""Data directories for an embedded PostgreSQL of a test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lastcall.embedded import postgres as embedded


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's own: as root, PostgreSQL runs as another user."""
    directory = Path(tempfile.mkdtemp(prefix="lastcall-test-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def embedded_data() -> Iterator[Path]:
    """The same, whose PostgreSQL is stopped in the end if one was started."""
    with reachable_directory() as directory:
        try:
            yield directory
        finally:
            embedded.stop(directory)
