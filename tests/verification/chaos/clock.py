"""A clock of some processes that can be set while they run, by libfaketime (Debian's package faketime)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LIBRARIES = "*/faketime/libfaketimeMT.so.1"
LIBRARY_FOLDERS = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))
SHARED_MEMORY = Path("/dev/shm")


def faketime() -> Path | None:
    """Returns the library, or None where it is not installed."""
    found = (path for folder in LIBRARY_FOLDERS for path in folder.glob(LIBRARIES))
    return next(found, None)


def remove_leftovers() -> None:
    """Removes the shared memory of processes that were killed: libfaketime does that only where they exit."""
    for leftover in SHARED_MEMORY.glob("*faketime_s*_*"):
        pid = leftover.name.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):  # another user's
                leftover.unlink()


class SettableClock:
    """The wall clock of the processes that are started with `environment`. Their monotonic clock runs on."""

    def __init__(self, library: Path, path: Path) -> None:
        self._path = path
        self.offset = 0.0
        self.set(0.0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",  # for all processes at the same moment
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: float) -> None:
        """Sets it to the real time and so many seconds."""
        self.offset = offset
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{offset:+.0f}\n")
        fresh.chmod(0o644)  # PostgreSQL may run as another user
        fresh.replace(self._path)  # in one step: an empty file would mean the real time
