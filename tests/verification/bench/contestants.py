"""The servers that are compared, each in a process of its own with a PostgreSQL of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lastcall.embedded import cluster, programs
from lastcall.embedded import postgres as embedded

from ..starvation import Failed
from .cpu import pin

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.01
SETTLE_SECONDS = 120.0
SETTLE_LOOK_SECONDS = 0.1
READY = re.compile(rb"ready at http://127\.0\.0\.1:(\d+)")
SERVERS = "tests.verification.bench.servers"
AGENT = "tests.verification.bench.agent"

OURS, FORGETFUL, FASTAPI, WEBSOCKETS, FLOOR = "lastcall", "lastcall, no extraction", "FastAPI", "websockets", "floor"
PEERS = (FASTAPI, WEBSOCKETS)


class Tables(NamedTuple):
    """Queries for one number each. unsettled: sessions that are active, or whose memory is pending."""

    sessions: str
    active: str
    unsettled: str


_OURS = "SELECT count(*) FROM conversation_sessions"
_THEIRS = "SELECT count(*) FROM sessions"
_OUR_TABLES = Tables(_OURS, f"{_OURS} WHERE is_active", f"{_OURS} WHERE is_active OR memory_status = 'pending'")
_THEIR_TABLES = Tables(_THEIRS, f"{_THEIRS} WHERE is_active", f"{_THEIRS} WHERE is_active")
TABLES = {OURS: _OUR_TABLES, FORGETFUL: _OUR_TABLES, FASTAPI: _THEIR_TABLES, WEBSOCKETS: _THEIR_TABLES}
MESSAGES = "SELECT count(*) FROM messages"


class Database:
    """A running PostgreSQL, and one open psql: a connection for each query would be measured too."""

    def __init__(self, directory: Path) -> None:
        self.url = embedded.start(directory)
        found = cluster.find(embedded.place(directory).cluster)
        if found is None:
            raise Failed("PostgreSQL is gone")
        self.postmaster = found.pid
        command = [str(programs.programs() / "psql"), "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", self.url]
        self._psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if (durable := [self.ask("SHOW fsync"), self.ask("SHOW synchronous_commit")]) != ["on", "on"]:
            raise Failed(f"PostgreSQL does not wait for the disk: {durable}")

    def ask(self, query: str) -> str:
        """Returns the one value of the one row that a query has."""
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(f"{query};\n")
        self._psql.stdin.flush()
        if not (line := self._psql.stdout.readline()):
            raise Failed(f"a query failed: {query}")
        return line.strip()

    def count(self, query: str) -> int:
        return int(self.ask(query))

    def close(self) -> None:
        self._psql.kill()
        self._psql.communicate()


@dataclass
class Contestant:
    """A running server. database: None for the floor. ready_seconds: from its start until it accepts connections."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    database: Database | None
    ready_seconds: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def postmaster(self) -> int:
        return self.database.postmaster if self.database else 0

    def settle(self, idle: int = 0) -> None:
        """Waits until every row is closed and every memory extracted: both belong to the cost of a session.

        idle: sessions that stay open.
        """
        if self.database is None:
            return
        tables = TABLES[self.name]
        until = time.monotonic() + SETTLE_SECONDS
        while (left := self.database.count(tables.unsettled)) > idle:
            if time.monotonic() > until:
                raise Failed(f"{self.name}: {left} sessions were not settled after {SETTLE_SECONDS:.0f} s")
            time.sleep(SETTLE_LOOK_SECONDS)


def lastcall(agent: str = "make") -> Callable[[int, str], list[str]]:
    """Every promise is on, as for users; only one client may send more events than people do."""

    def command(port: int, database_url: str) -> list[str]:
        serve = [sys.executable, "-m", "lastcall", "serve", "--port", str(port), "--database-url", database_url]
        return [*serve, "--agent", f"{AGENT}:{agent}", "--events-per-second", "1000000"]

    return command


def _peer(module: str) -> Callable[[int, str], list[str]]:
    return lambda port, database_url: [sys.executable, "-m", f"{SERVERS}.{module}", str(port), database_url]


COMMANDS: dict[str, Callable[[int, str], list[str]]] = {
    OURS: lastcall(),
    FORGETFUL: lastcall("make_forgetful"),
    FASTAPI: _peer("with_fastapi"),
    WEBSOCKETS: _peer("with_websockets"),
    FLOOR: _peer("floor"),
}


class Contestants:
    """Starts what is asked for, once; the stack ends all of it.

    pinned: each server has the first processor, all else the others; as one that also has the database's and the
    load's processor is not the same from round to round.
    """

    def __init__(self, directory: Path, stack: ExitStack, *, pinned: bool) -> None:
        self._directory = directory
        self._stack = stack
        self._pinned = pinned
        self._processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._running: dict[str, Contestant] = {}
        self._databases: dict[str, Database] = {}

    def get(self, name: str) -> Contestant:
        """The running one of this name."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(self.started(name))
        return self._running[name]

    @contextmanager
    def started(self, name: str) -> Iterator[Contestant]:
        """Another one of this name, for the block; on the same database as the others of its name."""
        database = self._database(name) if name != FLOOR else None
        port, log = free_port(), self._directory / f"{name.replace(', ', '-').replace(' ', '-')}.log"
        began = time.perf_counter()
        with log.open("ab") as output:
            command = COMMANDS[name](port, database.url if database else "")
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait_until_ready(name, process, port, log)
            contestant = Contestant(name, process, port, database, time.perf_counter() - began)
            self.place(process.pid, contestant.postmaster)
            yield contestant
        finally:
            end(process)

    def place(self, server: int, *others: int) -> None:
        """Gives a server its processor, and others theirs. pids; 0: nobody."""
        if self._pinned and len(self._processors) > 1:
            for pid, processors in ((server, self._processors[:1]), *((each, self._processors[1:]) for each in others)):
                if pid:
                    pin(pid, processors)

    def _database(self, name: str) -> Database:
        if name not in self._databases:
            directory = self._directory / f"data{len(self._databases)}"
            self._stack.callback(embedded.stop, directory)
            self._databases[name] = Database(directory)
            self._stack.callback(self._databases[name].close)
        return self._databases[name]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until, wanted = time.monotonic() + START_SECONDS, str(port).encode()
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Failed(f"{name} did not start: {log.read_text(errors='replace')[-500:]}")
        if name in (OURS, FORGETFUL):
            if wanted in READY.findall(log.read_bytes()):
                return
        else:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
        time.sleep(LOOK_SECONDS)
    raise Failed(f"{name} was not ready within {START_SECONDS:.0f} s")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends it as an operator would, and by force if that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
