"""A PostgreSQL that a test may crash and freeze: a cluster of its own, by the pids of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded


class Cluster:
    """A running PostgreSQL. The `url` holds across restarts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = embedded.place(directory).cluster
        self.url = embedded.start(directory)

    def start(self) -> None:
        assert embedded.start(self._directory) == self.url

    def crash(self) -> None:
        """Ends it as a loss of power would, but for the files."""
        answer = cluster.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data, user=self._data.stat().st_uid)
        assert answer.returncode == 0, answer.stderr

    def stop(self) -> None:
        """Has it end in order, without the leave of its clients."""
        answer = cluster.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self._data, user=self._data.stat().st_uid)
        assert answer.returncode == 0, answer.stderr

    def kill(self) -> None:
        """Ends its processes at once, frozen ones too; nothing where none run."""
        if (self._data / "postmaster.pid").exists():
            _signal(self.pids(), signal.SIGKILL)

    def freeze(self) -> None:
        """From now on nothing of it runs. Sockets stay open, and take what fits into their buffers."""
        _signal(self.pids(), signal.SIGSTOP)

    def pids(self) -> list[int]:
        """The postmaster's pid, then those of all its processes."""
        postmaster = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        return [postmaster, *(pid for pid in _processes() if _parent(pid) == postmaster)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing of it runs within the block. Sockets stay open, and take what fits into their buffers."""
        pids = self.pids()
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    def resume(self, pids: list[int]) -> None:
        """Lets some of its frozen processes run again."""
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        return int((Path("/proc") / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return None
