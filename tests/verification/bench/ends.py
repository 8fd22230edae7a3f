"""The rows of starts and ends: a server that comes, one that goes in order, and one that is gone."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from statistics import median

from ..starvation import Failed
from .alone import IDLE, WAIT_SECONDS, Alone, Figures, ask_for_stalls
from .contestants import OURS, STOP_SECONDS, TABLES, Contestant, Database
from .cpu import Meter, WholeMeter
from .load_client import open_load

LOOK_SECONDS = 0.002

# A server of this host that is gone, as its kernel says, and its sessions.
ORPHANS = """
WITH dead AS (
    INSERT INTO server_instances (instance_id, hostname, pid, host_id, process_started, version, lease_seconds)
    SELECT gen_random_uuid(), hostname, 4194305, host_id, 1, version, lease_seconds
      FROM server_instances WHERE stopped_at IS NULL AND reaped_at IS NULL LIMIT 1 RETURNING instance_id
), orphans AS (
    INSERT INTO conversation_sessions (user_id, instance_id)
    SELECT 'orphan', instance_id FROM dead, generate_series(1, {count}) RETURNING 1
)
SELECT count(*) FROM orphans
"""
ORPHANS_LEFT = "SELECT count(*) FROM conversation_sessions WHERE is_active AND user_id = 'orphan'"


class Ends(Alone):
    """Starts and ends."""

    def rows(self) -> dict[str, Callable[[], Figures]]:
        return {"shutdown": self.shutdown, "orphans": self.orphans, "start": self.start}

    def shutdown(self) -> Figures:
        """SIGTERM with many idle sessions, in seconds: until all rows are closed, the last socket, the exit."""
        with self._contestants.started(OURS) as contestant:
            database = _database(contestant)
            self._load.do("open", group=IDLE, port=contestant.port, count=self._sizes.shutdown)
            self._load.do("expect", group=IDLE)
            meter, began = WholeMeter(contestant.postmaster), time.time()
            contestant.process.send_signal(signal.SIGTERM)
            _wait_until_none(database, TABLES[OURS].active)
            rows_seconds = time.time() - began
            closed = self._load.do("closed")
            try:
                contestant.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise Failed(f"the server did not exit within {STOP_SECONDS:.0f} s") from None
            exit_seconds = time.time() - began
            figures = {
                "rows_seconds": round(rows_seconds, 3),
                "sockets_seconds": round(closed["at"] - began, 3),
                "exit_seconds": round(exit_seconds, 3),
                "close_codes": closed["codes"],
            }
            return figures, meter.usage()

    def orphans(self) -> Figures:
        """A server of this host is gone: seconds until another one has closed its sessions, and its longest stall."""
        contestant = self._contestants.get(OURS)
        database = _database(contestant)
        with open_load() as asking:
            self._contestants.place(0, asking.pid)
            meter = Meter(contestant.pid, contestant.postmaster, asking.pid)
            ask_for_stalls(asking, contestant, self._sizes.stall_seconds)
            if database.count(ORPHANS.format(count=self._sizes.orphans).replace("\n", " ")) != self._sizes.orphans:
                raise Failed("the orphans could not be made")
            began = time.time()
            _wait_until_none(database, ORPHANS_LEFT)
            seconds = time.time() - began
            stall = float(asking.result()["text"])
            return {"seconds": round(seconds, 3), "longest_stall_ms": round(stall * 1000, 1)}, meter.usage()

    def start(self) -> Figures:
        """Seconds from the start of a server until it is ready, on a database that runs and has the tables."""
        meter, seconds = WholeMeter(self._contestants.get(OURS).postmaster), []
        for _ in range(self._sizes.starts):
            with self._contestants.started(OURS) as contestant:
                seconds.append(contestant.ready_seconds)
        return {"seconds": round(median(seconds), 3), "longest_seconds": round(max(seconds), 3)}, meter.usage()


def _database(contestant: Contestant) -> Database:
    assert contestant.database is not None
    return contestant.database


def _wait_until_none(database: Database, query: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while left := database.count(query):
        if time.monotonic() > until:
            raise Failed(f"{left} rows were active after {WAIT_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
