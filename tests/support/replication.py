"""Two PostgreSQL with streaming replication: a primary that can be stopped, killed and frozen, and its standby."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from lastcall.embedded import cluster
from lastcall.embedded import postgres as embedded
from lastcall.embedded.folder import prepare

from .databases import psql
from .postgresql import Cluster

Fault = Literal["stop", "kill", "freeze"]

STREAM_SECONDS = 20.0
LOOK_SECONDS = 0.02


class Pair:
    """A primary and its standby in folders of their own. `url` names both hosts, and wants the one that takes writes.

    synchronous: commits wait for the standby.
    """

    def __init__(self, directory: Path, *, synchronous: bool) -> None:
        self._one, self._two = directory / "one", directory / "two"
        self.primary = Cluster(self._one)
        self._copy()
        self.standby = Cluster(self._two)
        hosts = ",".join(_host(each.url) for each in (self.primary, self.standby))
        self.url = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"
        if synchronous:
            psql(self.primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        self._await("sync" if synchronous else "async")

    def _copy(self) -> None:
        owner, data = embedded.place(self._one).cluster.stat().st_uid, prepare(self._two).cluster
        data.mkdir(mode=0o700)
        os.chown(data, owner, -1)
        answer = cluster.run("pg_basebackup", "-d", self.primary.url, "-D", data, "-R", "-c", "fast", user=owner)
        assert answer.returncode == 0, answer.stderr

    def _await(self, state: str) -> None:
        deadline = time.monotonic() + STREAM_SECONDS
        while psql(self.primary.url, "SELECT sync_state FROM pg_stat_replication") != state:
            assert time.monotonic() < deadline, f"the standby is not {state or 'away'}"
            time.sleep(LOOK_SECONDS)

    def break_primary(self, fault: Fault) -> None:
        """Stops it in order, kills all of its processes, or freezes them."""
        {"stop": self.primary.stop, "kill": self.primary.kill, "freeze": self.primary.freeze}[fault]()

    def detach(self) -> None:
        """From now on the standby gets nothing more of the primary."""
        psql(self.standby.url, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        self._await("")

    def promote(self) -> None:
        """Makes the standby the primary."""
        assert psql(self.standby.url, "SELECT pg_promote(true)") == "t"

    def remove(self) -> None:
        """Ends both, whatever became of them, and deletes their folders."""
        for each, folder in ((self.primary, self._one), (self.standby, self._two)):
            each.kill()
            shutil.rmtree(embedded.place(folder).directory, ignore_errors=True)


def _host(url: str) -> str:
    return parse_qs(urlsplit(url).query)["host"][0]
