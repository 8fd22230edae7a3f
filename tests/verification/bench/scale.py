"""The rows that measure lastcall by itself: many sessions, long conversations, starts and ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..starvation import Failed
from . import stalls
from .answers import Answer
from .checks import turn_frames
from .contestants import OURS, PEERS, STOP_SECONDS, TABLES, Contestant, Contestants, Database
from .cpu import Meter, Usage, rss_kib
from .load_client import LoadClient, open_load
from .rounds import ROWS, measure_turns

IDLE = "idle"
LONG = "long"
SETTLE_SECONDS = 1.0  # for memory to be allocated and returned before it is read
LOOK_SECONDS = 0.002
WAIT_SECONDS = 120.0
LONG_CLIENTS = 8
MEMORY_LOOKS = 10

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


@dataclass(frozen=True)
class Sizes:
    """How much of everything. stall_seconds: for how long stalls are looked for."""

    idle: tuple[int, int] = (1_000, 5_000)
    shutdown: int = 5_000
    orphans: int = 10_000
    streams: int = 200
    connects: int = 100
    stall_seconds: int = 5
    beside: tuple[int, ...] = (0, 1_000, 5_000)
    items: tuple[int, ...] = (10, 100, 1_000, 4_000)
    starts: int = 5
    short_sessions: int = 200_000


QUICK = Sizes(
    idle=(5, 25),
    shutdown=25,
    orphans=50,
    streams=5,
    connects=5,
    stall_seconds=1,
    beside=(0, 10),
    items=(2, 20),
    starts=1,
    short_sessions=40,
)


class Scale:
    """seconds: of each measurement of turns. Every row returns its figures, and the usage while they were measured."""

    def __init__(self, contestants: Contestants, load: LoadClient, sizes: Sizes, seconds: float) -> None:
        self._contestants = contestants
        self._load = load
        self._sizes = sizes
        self._seconds = seconds

    def idle(self) -> tuple[dict[str, Any], Usage]:
        """KiB for each idle session: the slope between two numbers of them."""
        low, high = self._sizes.idle
        slopes = {}
        for name in (OURS, *PEERS):
            with self._contestants.started(name) as contestant:
                meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
                sizes = []
                for count in (low, high - low):
                    self._load.do("open", group=IDLE, port=contestant.port, count=count)
                    time.sleep(SETTLE_SECONDS)
                    sizes.append(rss_kib(contestant.pid))
                usage = meter.usage()
                self._load.do("close", group=IDLE)
            slopes[name] = round((sizes[1] - sizes[0]) / (high - low), 1)
        return {"kib_each": slopes[OURS], "peers": {name: slopes[name] for name in PEERS}}, usage

    def shutdown(self) -> tuple[dict[str, Any], Usage]:
        """SIGTERM with many idle sessions, in seconds: until all rows are closed, the last socket, the exit."""
        with self._contestants.started(OURS) as contestant:
            database = _database(contestant)
            self._load.do("open", group=IDLE, port=contestant.port, count=self._sizes.shutdown)
            self._load.do("expect", group=IDLE)
            meter, began = Meter(contestant.pid, contestant.postmaster, self._load.pid), time.time()
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

    def orphans(self) -> tuple[dict[str, Any], Usage]:
        """A server of this host is gone: seconds until another one has closed its sessions, and its longest stall."""
        contestant = self._contestants.get(OURS)
        database = _database(contestant)
        with open_load() as asking:
            self._contestants.place(0, asking.pid)
            meter = Meter(contestant.pid, contestant.postmaster, asking.pid)
            _ask_for_stalls(asking, contestant, self._sizes.stall_seconds)
            if database.count(ORPHANS.format(count=self._sizes.orphans).replace("\n", " ")) != self._sizes.orphans:
                raise Failed("the orphans could not be made")
            began = time.time()
            _wait_until_none(database, ORPHANS_LEFT)
            seconds = time.time() - began
            stall = float(asking.result()["text"])
            return {"seconds": round(seconds, 3), "longest_stall_ms": round(stall * 1000, 1)}, meter.usage()

    def stall(self) -> tuple[dict[str, Any], Usage]:
        """The longest stall of the loop, in milliseconds, under paced streams and a burst of new connections."""
        contestant, row = self._contestants.get(OURS), ROWS["paced"]
        with ExitStack() as stack:
            asking, connecting = (stack.enter_context(open_load()) for _ in range(2))
            self._contestants.place(0, asking.pid, connecting.pid)
            self._load.do("open", group=row.title, port=contestant.port, count=self._sizes.streams)
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid, asking.pid, connecting.pid)
            self._load.begin(
                "turns",
                group=row.title,
                question=row.answer.question,
                frames=turn_frames(row.answer),
                seconds=self._sizes.stall_seconds + 1,
                turns_max=1_000_000,
            )
            _ask_for_stalls(asking, contestant, self._sizes.stall_seconds)
            time.sleep(self._sizes.stall_seconds / 2)
            count = self._sizes.connects
            connected = connecting.do("open", group=IDLE, port=contestant.port, count=count, at_once=count)
            stall, turns = float(asking.result()["text"]), self._load.result()
            usage = meter.usage()
            connecting.do("close", group=IDLE)
            self._load.do("close", group=row.title)
        return {
            "longest_ms": round(stall * 1000, 1),
            "connects_ms": round(connected["seconds"] * 1000, 1),
            "turns_per_second": round(turns["count"] / turns["seconds"], 1),
        }, usage

    def beside(self) -> tuple[dict[str, Any], Usage]:
        """Server µs of a turn beside so many idle sessions."""
        costs, open_now = {}, 0
        with self._contestants.started(OURS) as contestant:
            for count in self._sizes.beside:
                self._load.do("open", group=IDLE, port=contestant.port, count=count - open_now)
                open_now = count
                measure_turns(ROWS["turn"], self._seconds / 2, contestant, self._load)
                sample = measure_turns(ROWS["turn"], self._seconds, contestant, self._load)
                costs[str(count)] = round(sample.server_us, 1)
            self._load.do("close", group=IDLE)
        return {"server_us": costs, "ratio": _ratio(costs)}, sample.usage

    def length(self) -> tuple[dict[str, Any], Usage]:
        """Server µs of a turn in conversations of so many items; and the longest one against the shortest."""
        contestant, answer = self._contestants.get(OURS), Answer(1)
        turns = {"group": LONG, "question": answer.question, "frames": turn_frames(answer)}
        costs, latencies = {}, {}
        for items in self._sizes.items:
            self._load.do("open", group=LONG, port=contestant.port, count=LONG_CLIENTS)
            self._load.do("fill", group=LONG, count=items)
            self._load.do("turns", **turns, seconds=self._seconds, turns_max=1)
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
            result = self._load.do("turns", **turns, seconds=self._seconds, turns_max=50)
            usage = meter.usage()
            self._load.do("close", group=LONG)
            costs[str(items)] = round(usage.server / result["count"] * 1e6, 1)
            latencies[str(items)] = round(median(result["latencies"]), 2)
        return {"server_us": costs, "p50_ms": latencies, "ratio": _ratio(costs)}, usage

    def start(self) -> tuple[dict[str, Any], Usage]:
        """Seconds from the start of a server to its first session, on a database that runs."""
        meter, seconds = Meter(0, 0, self._load.pid), []
        self._contestants.get(OURS)  # so that the schema is there
        for _ in range(self._sizes.starts):
            with self._contestants.started(OURS) as contestant:
                seconds.append(contestant.ready_seconds)
        return {"seconds": round(median(seconds), 3), "longest_seconds": round(max(seconds), 3)}, meter.usage()

    def memory(self) -> tuple[dict[str, Any], Usage]:
        """MiB of a server over many short sessions, after each tenth of them."""
        row, looks = ROWS["session"], []
        with self._contestants.started(OURS) as contestant:
            meter = Meter(contestant.pid, contestant.postmaster, self._load.pid)
            for number in range(MEMORY_LOOKS):
                self._load.do(
                    "sessions",
                    port=contestant.port,
                    clients=row.clients,
                    question=row.answer.question,
                    frames=turn_frames(row.answer),
                    seconds=WAIT_SECONDS * MEMORY_LOOKS,
                    count_max=self._sizes.short_sessions // MEMORY_LOOKS,
                    user=f"many{number}-",
                )
                contestant.settle()
                looks.append(round(rss_kib(contestant.pid) / 1024, 1))
            usage = meter.usage()
        return {"mib": looks, "growth_mib": round(looks[-1] - looks[1], 1)}, usage

    def rows(self) -> dict[str, Callable[[], tuple[dict[str, Any], Usage]]]:
        """By the names that `--only` takes."""
        methods = (
            self.idle,
            self.shutdown,
            self.orphans,
            self.stall,
            self.beside,
            self.length,
            self.start,
            self.memory,
        )
        return {method.__name__: method for method in methods}


def _ratio(costs: dict[str, float]) -> float:
    first, *_, last = costs.values()
    return round(last / first, 3)


def _ask_for_stalls(asking: LoadClient, contestant: Contestant, seconds: int) -> None:
    asking.begin("ask", port=contestant.port, question=stalls.question(seconds), frames=turn_frames(Answer(1)))


def _database(contestant: Contestant) -> Database:
    assert contestant.database is not None
    return contestant.database


def _wait_until_none(database: Database, query: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while left := database.count(query):
        if time.monotonic() > until:
            raise Failed(f"{left} rows were active after {WAIT_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
